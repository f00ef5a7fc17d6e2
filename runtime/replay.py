"""A training step, kept or rebuilt from a checkpoint, run once more: is it finite, and where not first.

A run that stops on a number that is not finite keeps the step beside its checkpoints, as a checkpoint of its own:

    diverged/    weights, what the rules remember, states of streams and random numbers before the step; in
                 state.safetensors also its batch (batch/tokens, batch/targets, batch/starts)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from runtime import checkpoint, data, device, diverge, program, resume
from runtime.batches import Batch, Crops, Lanes
from runtime.checkpoint import Checkpoint
from runtime.directory import RunDirectory
from runtime.diverge import Found, Step
from runtime.errors import USAGE, RunError
from runtime.level import Level
from runtime.numerics import subnormals_flushed
from runtime.precision import DTYPES
from runtime.whole import MANIFEST


def keep(directory: RunDirectory, step: Step, levels: Sequence[Level], scalars: dict[str, Any]) -> list[str]:
    """Write what a step was made of, then look for the place; lines that say both."""
    batch = {name: x for name, x in step.batch._asdict().items() if x is not None}
    optimiser = {name: x for level in levels for name, x in level.own_tensors().items()}
    counted = {"fires": dict(getattr(step.model, "fires", {})), "precision": step.precision}
    kept = Checkpoint(
        step.model.state_dict(), optimiser, {"batch": batch, **(step.state or {})}, {**scalars, **counted}
    )
    checkpoint.write(directory.diverged, kept)
    found = diverge.find(step, levels)
    said = found.lines() if found else ["run again, the step is finite"]
    return [*said, f"weights, state and batch are kept in {directory.diverged}: nlc replay {directory.path}"]


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
        raise RunError(f"no such run directory: '{path}'", USAGE)
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
            there = ", ".join(str(int(p.name.removeprefix("step-"))) for p in checkpoint.steps(directory.checkpoints))
            raise RunError(f"no checkpoint after step {step} in '{path}'; there are: {there or 'none'}", USAGE)
        return directory, place
    return directory, directory.diverged if directory.diverged.is_dir() else checkpoint.newest(directory.checkpoints)


def again(directory: RunDirectory, train: ModuleType, found: Checkpoint, kind: type[Crops | Lanes]) -> Batch:
    """The batch of the step after a checkpoint, from the data of its run."""
    lock, s = directory.read_lock(), train.settings
    text = data.again(lock.get("data", {}), run=directory.path, note=lambda message: None)
    data.check(text, s.context, s.vocab)
    return kind(text.train, s.batch, s.context, lock.get("seed", s.seed)).at(found.scalars["step"])
