"""Checkpoints: a folder per step, whole or not there at all.

    checkpoints/step-000100/
        model.safetensors       every weight by its name in the spec
        optimiser.safetensors   what the update rules remember, <level>/<part>/<weight>
        state.safetensors       memory states that outlive a step, <place>/<part>; only when there are any
        training.json           step, tokens, counts of the levels, random number generator
        manifest.json           size and SHA-256 of each of the others; written last
    checkpoints/latest          the name of the newest

A checkpoint is written beside its place, synced, and renamed.  Nothing is a pickle.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.errors import CheckpointError, Unsaved

MANIFEST = "manifest.json"
FORMAT = 1
NAME = re.compile(r"step-\d+", re.ASCII)
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
    """Write `folder`/step-<step>, point `latest` at it, and drop all but the newest `keep` (0 keeps all)."""
    place = write(folder / name_of(step), checkpoint)
    replace_text(folder / "latest", place.name + "\n")
    if keep > 0:
        for old in steps(folder)[:-keep]:
            shutil.rmtree(old)
    return place


def write(place: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint at `place`, replacing one that is there."""
    tensors = {"model": checkpoint.weights, "optimiser": checkpoint.optimiser}
    tensors |= {"state": flat(checkpoint.state)} if checkpoint.state else {}
    return write_folder(place, tensors, {"training": checkpoint.scalars})


def write_folder(
    place: Path, tensors: Mapping[str, Mapping[str, Tensor]], scalars: Mapping[str, Mapping[str, Any]]
) -> Path:
    """A folder of <name>.safetensors and <name>.json, with a manifest: it appears whole, replacing one that is there.

    Raises Unsaved where it cannot be written; what was there is then as it was.
    """
    making = place.with_name(f".{place.name}.{os.getpid()}")
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name, values in tensors.items():
            put_tensors(making / f"{name}.safetensors", values)
        for name, facts in scalars.items():
            put_text(making / f"{name}.json", json.dumps(facts, indent=1) + "\n")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in sorted(making.iterdir())}
        put_text(making / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")
        sync(making)
        if place.exists():
            place.rename(old)
        making.rename(place)
        sync(place.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(making, ignore_errors=True)
        if old.exists() and not place.exists():
            old.rename(place)
        raise Unsaved(f"cannot save '{place}': {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(old, ignore_errors=True)
    return place


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


def damage(place: Path) -> str:
    """Why a checkpoint cannot be trusted; "" when it is whole."""
    if not place.is_dir():
        return "is a file, not a folder" if place.exists() else "is not there"
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"is of format {manifest['format']}: this version reads {FORMAT}"
        for name, record in manifest["files"].items():
            path = place / name
            if not path.is_file():
                return f"is torn: {name} is missing"
            if path.stat().st_size != record["bytes"] or digest(path) != record["sha256"]:
                return f"is altered: {name} is not what was written"
    except FileNotFoundError:
        return f"is torn: {MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"is altered: {MANIFEST} cannot be read"
    return ""


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, whole or not."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=step_of)


def step_of(place: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(place.name.removeprefix("step-"))


def newest(folder: Path, warn: Callable[[str], None] = lambda message: None) -> Path:
    """The newest whole checkpoint; damaged ones are named to `warn` and passed over.  Raises CheckpointError."""
    for place in reversed(steps(folder)):
        reason = damage(place)
        if not reason:
            return place
        warn(f"'{place}' {reason}: passed over")
    raise CheckpointError(f"no whole checkpoint in '{folder}'")


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left half written."""
    for path in folder.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


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


# ---- files ----------------------------------------------------------------------------------------------------------


def flat(state: State) -> dict[str, Tensor]:
    return {f"{place}/{part}": value for place, parts in state.items() for part, value in parts.items()}


def nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, part = name.split("/", 1)
        state.setdefault(place, {})[part] = value
    return state


def put_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)
    sync(path)


def put_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    sync(path)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never less."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        put_text(making, text)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
