"""A state on disk, as a folder that any machine can go on from.

    STATE/
        state.safetensors   the registers of every memory, <place>/<part>, clocks and the token not learned from yet,
                            and the logits of the next token
        waiting.safetensors where tokens wait for a border: they, and the registers before them and as the next token
                            sees them, where they are not those of the state; the next token is then read to the bit
                            as if nothing had been saved
        session.json        whose state it is; tokens read, what they taught, random numbers; nothing of this machine
        manifest.json       size and SHA-256 of each; written last

It appears whole, or stays as it was (runtime.whole).  Nothing is a pickle.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
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
from runtime.session.position import Waiting
from runtime.state import short
from runtime.trained import Trained
from runtime.whole import MANIFEST, damage, settle, write_folder

SESSION = "session.json"
TENSORS = "state.safetensors"
WAITING = "waiting"
FORMAT = 1
OTHERS = {"training.json": "a checkpoint of a run", "lock.json": "a run", "model.py": "a package"}  # by what they hold
MISFITS = 8  # parts of memories that are named where a state does not fit
NEEDED = ("model", "tokens", "border", "learn", "surprise", "last", "memories", "random")


@dataclass(frozen=True, slots=True)
class Saved:
    """model: what the state depends on, as Trained.identity() says; facts: as JSON, the rest."""

    model: dict[str, Any]
    state: State
    logits: Tensor  # (vocab,) of the next token
    facts: dict[str, Any]
    waiting: Waiting | None = None


def write(place: Path, found: Saved) -> Path:
    """Raises RunError where it cannot be written, or something else than a state is there."""
    keep_others(place)
    tensors = checkpoint.flat({**found.state, "next": {"logits": found.logits}})
    facts = {"format": FORMAT, "model": found.model, **found.facts}
    files = {Path(TENSORS).stem: tensors}
    if found.waiting is not None:
        files[WAITING], facts[WAITING] = apart_of(found.waiting, tensors)
    return write_folder(place, files, {Path(SESSION).stem: facts})


def apart_of(waiting: Waiting, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """What waits, as tensors, without those that are the state's; and the names of all registers."""
    tensors, names = {"tokens": waiting.tokens}, dict[str, list[str]]()
    for part, registers in (("learned", waiting.learned), ("seen", waiting.seen)):
        flat = checkpoint.flat(registers)
        names[part] = list(flat)
        tensors |= {f"{part}/{n}": x for n, x in flat.items() if n not in state or not torch.equal(x, state[n])}
    return tensors, names


def waiting_of(tensors: Mapping[str, Tensor], names: Mapping[str, list[str]], state: Mapping[str, Tensor]) -> Waiting:
    """The inverse."""

    def part(which: str) -> State:
        own = ((n, f"{which}/{n}") for n in names[which])
        return checkpoint.nested({n: tensors[name] if name in tensors else state[n] for n, name in own})

    return Waiting(tensors["tokens"], part("learned"), part("seen"))


def keep_others(place: Path) -> None:
    """Raises RunError where something else than a state is in the place of one that is to be written, or the place is
    inside of another state, which is replaced as a whole."""
    if place.exists() and not (place / SESSION).is_file():
        raise RunError(f"'{place}' is there and is no saved state: give another name", USAGE)
    for above in place.resolve().parents:
        if (above / SESSION).is_file() and (above / MANIFEST).is_file():
            raise RunError(
                f"'{place}' is inside of the saved state '{above}', which goes as a whole: give another name", USAGE
            )


def read(place: Path) -> Saved:
    """A state whose every file is as it was written.  Raises CheckpointError naming what is not."""
    settle(place)
    if not place.exists():
        raise CheckpointError(f"no saved state at '{place}'")
    if place.is_dir() and not (place / SESSION).exists():
        for file, what in OTHERS.items():
            if (place / file).exists():
                raise CheckpointError(f"'{place}' is {what}, not a saved state", USAGE)
    if reason := damage(place):
        raise CheckpointError(f"'{place}' is no saved state: it {reason}")
    try:
        facts = json.loads((place / SESSION).read_text(encoding="utf-8"))
        tensors = aligned(place / TENSORS)
        state = checkpoint.nested(tensors)
        if facts["format"] != FORMAT:
            raise CheckpointError(f"'{place}' has format {facts['format']}; this release reads {FORMAT}", USAGE)
        logits = state.pop("next")["logits"]
        waits = facts.pop(WAITING, None)
        waiting = waits and waiting_of(aligned(place / f"{WAITING}.safetensors"), waits, tensors)
        model = facts.pop("model") if not (lost := [n for n in NEEDED if n not in facts]) else {}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"cannot read '{place}': {error}") from None
    if lost:
        raise CheckpointError(f"'{place}' is no saved state: {SESSION} does not say {lost[0]}")
    return Saved(model, state, logits, facts, waiting)


def aligned(file: Path) -> dict[str, Tensor]:
    """Tensors of a file, each where one that was computed could be: the order of a product's sums may depend on it."""
    return {name: x.clone() for name, x in load_file(file).items()}


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
