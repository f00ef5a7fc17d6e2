"""A training step, kept or rebuilt from a checkpoint, run once more: is it finite, and where not first.

A run that stops on a number that is not finite keeps the step beside its checkpoints, as a checkpoint of its own:

    diverged/    weights, what the rules remember, states of streams and random numbers before the step; in
                 state.safetensors also its batch (batch/tokens, batch/targets, batch/starts); in found.json the number
                 of the step, and where a number was first not finite

A resumed run that gets past that step renames the folder to diverged-step-000012.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from runtime import checkpoint, device, diverge, learned, program, resume
from runtime.batches import Batch, Crops, Lanes
from runtime.checkpoint import Checkpoint
from runtime.directory import RunDirectory, no_run
from runtime.diverge import Found, Step
from runtime.errors import USAGE, RunError
from runtime.level import Level
from runtime.numerics import subnormals_flushed
from runtime.precision import DTYPES
from runtime.whole import MANIFEST, replace_text, settle

FOUND = "found.json"
FINITE = "run again, the step is finite"


def keep(
    directory: RunDirectory, step: Step, levels: Sequence[Level], scalars: dict[str, Any], stopped: Stopped
) -> list[str]:
    """Write what a step was made of, then look for the place, and write that; lines that say both.

    `stopped`: the number of the step, and what is known before anything is looked for."""
    batch = {name: x for name, x in step.batch._asdict().items() if x is not None}
    optimiser = {name: x for level in levels for name, x in level.own_tensors().items()}
    counted = {"fires": dict(getattr(step.model, "fires", {})), "precision": step.precision}
    kept = Checkpoint(
        step.model.state_dict(), optimiser, {"batch": batch, **(step.state or {})}, {**scalars, **counted}
    )
    checkpoint.write(directory.diverged, kept)
    found = diverge.find(step, levels)
    said = found.lines() if found else [FINITE]
    stopped = Stopped(stopped.step, stopped.why, found.place() if found else "")
    replace_text(directory.diverged / FOUND, json.dumps(asdict(stopped), indent=1) + "\n")
    return [*said, f"weights, state and batch are kept in {directory.diverged}: nlc replay {directory.path}"]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A step, from 1, that a run diverged at: what it stopped on, and where a number was first not finite.

    where: "" where the step is finite when it is run again; None where nobody has looked."""

    step: int
    why: str
    where: str | None = None

    def __str__(self) -> str:
        if self.where is None:
            return self.why
        return f"{self.why}; {f'first not finite: {self.where}' if self.where else FINITE}"


def stopped(folder: Path) -> Stopped | None:
    """What a `diverged` folder says of its step; None where there is none that can be read."""
    try:
        said = json.loads((folder / FOUND).read_text(encoding="utf-8"))
        return Stopped(int(said["step"]), str(said["why"]), None if said["where"] is None else str(said["where"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    try:  # the place was never found: the run was killed meanwhile
        step = json.loads((folder / "training.json").read_text(encoding="utf-8"))["step"]
        return Stopped(int(step) + 1, "a loss, gradient or state is not finite")
    except (OSError, ValueError, TypeError, KeyError):
        return None


def set_aside(directory: RunDirectory, found: Stopped) -> None:
    """What was kept of a step that the run has got past since makes room."""
    aside = directory.diverged.with_name(f"diverged-{checkpoint.name_of(found.step)}")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):  # somebody removed it
        directory.diverged.rename(aside)


def earlier(directory: RunDirectory) -> list[Stopped]:
    """The steps that the run stopped at and got past."""
    return [found for place in sorted(directory.path.glob("diverged-step-*")) if (found := stopped(place))]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A step run again.  found: None where all of it is finite; norms: {level: of this step's gradient}."""

    place: Path
    step: int
    dtype: str
    loss: float
    norms: dict[str, float]
    found: Found | None

    def as_dict(self) -> dict[str, Any]:
        number = {name: norm if torch.tensor(norm).isfinite() else None for name, norm in self.norms.items()}
        loss = self.loss if torch.tensor(self.loss).isfinite() else None
        return {
            "checkpoint": str(self.place), "step": self.step, "dtype": self.dtype, "finite": self.found is None,
            "loss": loss, "gradient_norms": number, "found": self.found.as_dict() if self.found else None,
        }  # fmt: skip

    def __str__(self) -> str:
        norms = "  ".join(f"{name} {norm:.4g}" for name, norm in self.norms.items())
        said = self.found.lines() if self.found else ["finite: every loss, state and gradient"]
        first = f"step {self.step} in {self.dtype}, from {self.place}"
        return "\n".join([first, *said, f"loss            {self.loss:.6g}", f"gradient norms  {norms}"])


def replay(path: str | Path, *, step: int | None = None, dtype: str | None = None, where: str = "auto") -> Replayed:
    """The step that a run stopped at; or the one after a checkpoint, which `step` or the path names.

    dtype: float32, bfloat16 (matrix products) or float64 in place of the run's.  Raises RunError.
    """
    directory, place = placed(Path(path), step)
    train = program.load(directory.code)
    precision = dtype or train.settings.precision
    target = device.choose(where)
    model: nn.Module = train.build(seed=0).to(target)
    levels: list[Level] = train.levels(model)
    found = checkpoint.read(place)
    resume.restore(found, place, model, levels)
    numbers = DTYPES["float64" if precision == "float64" else "float32"] if dtype else next(model.parameters()).dtype
    model.to(numbers)
    for level in levels:
        level.put_aside()
    state, batch = dict(found.state), found.state.get("batch")
    state.pop("batch", None)
    if batch:
        rows = Batch(batch["tokens"], batch["targets"], batch.get("starts"))
    else:
        rows = again(directory, train, found, Lanes if getattr(model, "streams", ()) else Crops)
    random = {name: text for name, text in found.scalars.items() if name.startswith("random")}
    one = Step(model, device.sent(rows, target), device.moved(state, target, numbers) or None, precision, random)
    with subnormals_flushed():
        loss, norms = measured(one, levels)
        return Replayed(place, found.scalars["step"] + 1, precision, loss, norms, diverge.find(one, levels))


def measured(step: Step, levels: Sequence[Level]) -> tuple[float, dict[str, float]]:
    """The loss and the norm of every level's gradient."""
    nats, _ = step.nats()
    loss = nats.sum() / (step.batch.targets != diverge.IGNORED).sum().clamp(min=1)
    loss.backward()
    norms = {level.name: float(torch.nn.utils.get_total_norm(level.gradients())) for level in levels}
    for level in levels:
        level.put_aside()
    return float(loss.detach()), norms


def placed(path: Path, step: int | None) -> tuple[RunDirectory, Path]:
    """The run and the checkpoint that a path means: a run, its `diverged`, or one of its checkpoints."""
    if not path.is_dir():
        raise no_run(path)
    if (path / MANIFEST).is_file():
        if step is not None:
            raise RunError(f"--step is for a run, and '{path}' is one checkpoint", USAGE)
        inner = path.resolve().parent.name == "checkpoints"
        return RunDirectory(path.parent.parent if inner else path.parent), path
    directory = RunDirectory(path)
    directory.read_lock()
    if step is not None:
        place = directory.checkpoints / checkpoint.name_of(step)
        if not place.is_dir():
            there = ", ".join(str(checkpoint.step_of(p)) for p in checkpoint.steps(directory.checkpoints))
            raise RunError(f"no checkpoint after step {step} in '{path}'; there are: {there or 'none'}", USAGE)
        return directory, place
    settle(directory.diverged)
    return directory, directory.diverged if directory.diverged.is_dir() else checkpoint.newest(directory.checkpoints)


def again(directory: RunDirectory, train: ModuleType, found: Checkpoint, kind: type[Crops | Lanes]) -> Batch:
    """The batch of the step after a checkpoint, from the data of its run."""
    lock, s = directory.read_lock(), train.settings
    text = learned.again(lock.get("data", {}), directory.path, lambda message: None)
    learned.check(text, s.context, s.vocab)
    return learned.batches(kind, text.train, s, lock.get("seed", s.seed)).at(found.scalars["step"])
