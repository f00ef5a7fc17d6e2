"""A state on disk, as a folder that any machine can go on from.

    STATE/
        state.safetensors   the registers of every memory, <place>/<part>, clocks and the token not learned from yet,
                            and the logits of the next token
        session.json        whose state it is; tokens read, what they taught, random numbers; nothing of this machine
        manifest.json       size and SHA-256 of each; written last

It appears whole, or stays as it was (runtime.whole).  Nothing is a pickle.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from runtime import checkpoint
from runtime.errors import USAGE, CheckpointError, RunError
from runtime.model import State
from runtime.resume import Difference
from runtime.session.memories import running, started
from runtime.state import short
from runtime.trained import Trained
from runtime.whole import damage, settle, write_folder

SESSION = "session.json"
TENSORS = "state.safetensors"
FORMAT = 1
MISFITS = 8  # parts of memories that are named where a state does not fit
NEEDED = ("model", "tokens", "border", "learn", "surprise", "last", "memories", "random")


@dataclass(frozen=True, slots=True)
class Saved:
    """model: what the state depends on, as Trained.identity() says; facts: as JSON, the rest."""

    model: dict[str, Any]
    state: State
    logits: Tensor  # (vocab,) of the next token
    facts: dict[str, Any]


def write(place: Path, found: Saved) -> Path:
    """Raises RunError where it cannot be written, or something else than a state is there."""
    keep_others(place)
    tensors = checkpoint.flat({**found.state, "next": {"logits": found.logits}})
    facts = {"format": FORMAT, "model": found.model, **found.facts}
    return write_folder(place, {Path(TENSORS).stem: tensors}, {Path(SESSION).stem: facts})


def keep_others(place: Path) -> None:
    """Raises RunError where something else than a state is in the place of one that is to be written."""
    if place.exists() and not (place / SESSION).is_file():
        raise RunError(f"'{place}' is there and is no saved state: give another name", USAGE)


def read(place: Path) -> Saved:
    """A state whose every file is as it was written.  Raises CheckpointError naming what is not."""
    settle(place)
    if not place.exists():
        raise CheckpointError(f"no saved state at '{place}'")
    if place.is_dir() and not (place / SESSION).exists() and (place / "training.json").exists():
        raise CheckpointError(f"'{place}' is a checkpoint of a run, not a saved state", USAGE)
    if reason := damage(place):
        raise CheckpointError(f"'{place}' is no saved state: it {reason}")
    try:
        facts = json.loads((place / SESSION).read_text(encoding="utf-8"))
        state = checkpoint.nested(load_file(place / TENSORS))
        if facts["format"] != FORMAT:
            raise CheckpointError(f"'{place}' has format {facts['format']}; this release reads {FORMAT}", USAGE)
        logits = state.pop("next")["logits"]
        model = facts.pop("model") if not (lost := [n for n in NEEDED if n not in facts]) else {}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"cannot read '{place}': {error}") from None
    if lost:
        raise CheckpointError(f"'{place}' is no saved state: {SESSION} does not say {lost[0]}")
    return Saved(model, state, logits, facts)


def fork(place: Path, copy: Path) -> Path:
    """A copy that goes its own way; every file is compared with the manifest first, and nothing is replaced."""
    found = read(place)
    if copy.exists():
        raise RunError(f"'{copy}' is already there; nothing was written", USAGE)
    return write(copy, found)


def differences(found: Saved, trained: Trained) -> list[Difference]:
    """What a state depends on and this model has otherwise: facts, then memories whose state has another shape."""
    mine = trained.identity()
    matter = [name for name in mine if name != "name"]
    facts = [Difference(n, found.model.get(n), mine[n]) for n in matter if found.model.get(n) != mine[n]]
    if all(difference.what == "weights" for difference in facts):
        return facts
    return facts + misfits(found.state, started(trained.model, found.state))


def misfits(theirs: State, mine: State) -> list[Difference]:
    """Running states of memories that are there in one, or have another shape in the other."""
    shapes = [
        {f"{short(place)} {part}": tuple(x.shape[1:]) for place, r in state.items() for part, x in running(r).items()}
        for state in (theirs, mine)
    ]
    names = dict.fromkeys(name for one in shapes for name in one)
    wrong = [n for n in names if shapes[0].get(n) != shapes[1].get(n)]
    named = sorted(wrong, key=lambda n: n.endswith(("W_out", "b_in", "b_out")))  # one part a memory first
    return [Difference(f"memory {n}", shapes[0].get(n), shapes[1].get(n)) for n in named[:MISFITS]]


def refuse(place: Path, found: Saved, trained: Trained, allow: bool = False) -> None:
    """Raises RunError that names every difference; `allow`: other weights of the same program will do."""
    wrong = differences(found, trained)
    only_weights = [difference.what for difference in wrong] == ["weights"]
    if not wrong or (allow and only_weights):
        return
    lines = "\n".join(f"  {difference}" for difference in wrong)
    more = "\nthe program is the same: --allow goes on with these weights" if only_weights else ""
    raise RunError(f"'{place}' is a state of another model (its -> this one's):\n{lines}{more}", USAGE)


def random_text(generator: torch.Generator) -> str:
    return base64.b64encode(generator.get_state().numpy().tobytes()).decode()


def random_of(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
