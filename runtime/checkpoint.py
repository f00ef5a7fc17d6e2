"""Checkpoints: a folder per step, whole or not there at all.

    checkpoints/step-000100/
        model.safetensors       every weight by its name in the spec
        optimiser.safetensors   what the update rules remember, <level>/<part>/<weight>
        state.safetensors       memory states that outlive a step, <place>/<part>; only when there are any
        training.json           step, tokens, counts of the levels, random number generator
        manifest.json           size and SHA-256 of each of the others; written last
    checkpoints/latest          the name of the newest
    checkpoints/step-000120.damaged     one that a run could not go on from, and went on before

A checkpoint appears whole (runtime.whole).  Nothing is a pickle.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from runtime.errors import CheckpointError
from runtime.whole import damage, replace_text, write_folder

LATEST = "latest"
NAME = re.compile(r"step-\d{6,}", re.ASCII)
State = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.  `scalars` is JSON; `state` is nested as a model's state is."""

    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    state: dict[str, dict[str, Tensor]]
    scalars: dict[str, Any]


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def save(folder: Path, step: int, checkpoint: Checkpoint, keep: int = 0) -> Path:
    """Write `folder`/step-<step>, point `latest` at it, and drop what is older than the newest `keep` (0 keeps all)."""
    place = write(folder / name_of(step), checkpoint)
    replace_text(folder / LATEST, f"{place.name}\n")
    if keep > 0:
        drop_older(place, keep)
    return place


def drop_older(place: Path, keep: int) -> None:
    """Remove what is older than `keep` whole checkpoints: the one just written and those before it.

    Damaged ones do not count, and neither do newer ones, which this run has not come to.
    """
    whole = 1
    for old in reversed([path for path in steps(place.parent) if step_of(path) < step_of(place)]):
        if whole == keep:
            shutil.rmtree(old)
        elif not damage(old):
            whole += 1


def write(place: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint at `place`, replacing one that is there."""
    tensors = {"model": checkpoint.weights, "optimiser": checkpoint.optimiser}
    tensors |= {"state": flat(checkpoint.state)} if checkpoint.state else {}
    return write_folder(place, tensors, {"training": checkpoint.scalars})


def read(place: Path) -> Checkpoint:
    """A checkpoint whose every file is as it was written.  Raises CheckpointError naming what is not."""
    if reason := damage(place):
        raise CheckpointError(f"'{place}' {reason}")
    try:
        state = load_file(place / "state.safetensors") if (place / "state.safetensors").exists() else {}
        return Checkpoint(
            weights=load_file(place / "model.safetensors"),
            optimiser=load_file(place / "optimiser.safetensors"),
            state=nested(state),
            scalars=json.loads((place / "training.json").read_text(encoding="utf-8")),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read '{place}': {error}") from None


def step_of(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, whole or not; those that were set aside are none."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=step_of)


def newest(folder: Path, warn: Callable[[str], None] = lambda message: None) -> Path:
    """The newest whole checkpoint; damaged ones are named to `warn` and passed over.  Raises CheckpointError."""
    for place in reversed(steps(folder)):
        reason = damage(place)
        if not reason:
            return place
        warn(f"'{place}' {reason}: passed over")
    raise CheckpointError(f"no whole checkpoint in '{folder}'")


def go_back_to(place: Path, warn: Callable[[str], None]) -> None:
    """Let this checkpoint be the newest: `latest` names it, and damaged ones after it are set aside, as `warn` says."""
    for later in steps(place.parent):
        if step_of(later) > step_of(place):
            aside = free(later.with_name(f"{later.name}.damaged"))
            later.rename(aside)
            warn(f"'{later}' is set aside as {aside.name}")
    latest = place.parent / LATEST
    if not latest.exists() or latest.read_text(encoding="utf-8") != f"{place.name}\n":
        replace_text(latest, f"{place.name}\n")


def free(path: Path) -> Path:
    """The path, or the first of path-2, path-3 ... that is not there."""
    names = (path.with_name(f"{path.name}-{n}") if n > 1 else path for n in count(1))
    return next(one for one in names if not one.exists())


def random_state(device: str = "cpu") -> str:
    """torch's random number generator of a device, as text."""
    state = torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state(device)
    return base64.b64encode(state.numpy().tobytes()).decode()


def restore_random_state(text: str, device: str = "cpu") -> None:
    state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
    torch.set_rng_state(state) if device == "cpu" else torch.cuda.set_rng_state(state, device)


def random_states(device: torch.device) -> dict[str, str]:
    """Those that a step on this device draws from."""
    on_device = {"random_cuda": random_state(str(device))} if device.type == "cuda" else {}
    return {"random": random_state(), **on_device}


def restore_random_states(scalars: Mapping[str, Any], device: torch.device) -> None:
    """The inverse; numbers drawn on another kind of device than before are others."""
    restore_random_state(scalars["random"])
    if device.type == "cuda" and "random_cuda" in scalars:
        restore_random_state(scalars["random_cuda"], str(device))


# ---- state as tensors by name ---------------------------------------------------------------------------------------


def flat(state: State) -> dict[str, Tensor]:
    return {f"{place}/{part}": value for place, parts in state.items() for part, value in parts.items()}


def nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, part = name.split("/", 1)
        state.setdefault(place, {})[part] = value
    return state
