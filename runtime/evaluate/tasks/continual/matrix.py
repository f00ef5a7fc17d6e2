"""A run that learned tasks in order -> R[after][task] from the checkpoint at the end of each, learning on and off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime import checkpoint
from runtime.device import moved
from runtime.errors import CheckpointError
from runtime.evaluate.loss import left_alone
from runtime.evaluate.tasks.continual.lessons import How, Known, Lessons
from runtime.evaluate.tasks.continual.measures import DEFINITIONS, Measures, measured
from runtime.evaluate.tasks.score import Share
from runtime.model import LanguageModel, State
from runtime.resume import put_weights
from runtime.state import count, rows_of

Rows = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Lasting:
    """What is left of every task after each; `share` and `loss` as a Score has them, of all tasks after the last."""

    share: Share
    matrix: Rows
    chances: tuple[float, ...]
    unit: str
    measures: Measures
    by = ()  # nothing tells items apart besides their task

    def as_dict(self) -> dict[str, Any]:
        """JSON; `matrix`[t][i] of task i after task t, null where it was not asked."""
        told = {"unit": self.unit, "matrix": self.matrix, "chance_of_each": self.chances, "definitions": DEFINITIONS}
        return {**asdict(self.share), **asdict(self.measures), **told}


@dataclass(frozen=True, slots=True)
class Place:
    """Weights to be asked, and after which task, counted from 0, they were saved."""

    checkpoint: Path
    after: int


def places(folder: Path, ends: Sequence[int], tasks: int, warn: Callable[[str], None]) -> list[Place]:
    """The checkpoints at the ends of tasks; of a run that learned all at once the one at its end."""
    found = []
    for n, step in enumerate(ends):
        place = folder / checkpoint.name_of(step)
        if place.is_dir():
            found.append(Place(place, n if len(ends) == tasks else tasks - 1))
        else:
            warn(f"'{place}' is not there: what was known after task {n + 1} is not told")
    return found


def lasting(
    model: LanguageModel, of: Lessons, found: Sequence[Place], how: How, done: Callable[[int], None]
) -> tuple[Lasting, Lasting]:
    """With learning on, and off; the same where no level writes inside a sequence.  `done`: after each checkpoint.

    After task t the tasks up to t are asked about, and the next one, which says what is carried forward.
    Raises CheckpointError.
    """
    T = of.tasks
    if T - 1 not in [place.after for place in found]:
        raise CheckpointError("there is no checkpoint of the end of the last task: resume the run first")
    on, off = ([[None] * T for _ in range(T)] for _ in range(2))
    last: dict[bool, list[Known]] = {}
    for place in found:
        saved = checkpoint.read(place.checkpoint)
        put_weights(model, saved.weights, place.checkpoint)
        asked = range(min(place.after + 2, T))
        state = carried(model, saved.state)
        for learn, R in ((True, on), (False, off)) if model.writing else ((True, on),):
            with left_alone(model):
                known = of.known(model, asked, place.after, replace(how, learn=learn, state=state))
            R[place.after][: len(asked)] = [one.value for one in known]  # type: ignore[assignment]
            last[learn] = known
        done(place.after)
    told = [summed(of, R, last[learn]) for learn, R in ((True, on), (False, off)) if learn in last]
    return told[0], told[-1]


def summed(of: Lessons, R: Sequence[Sequence[float | None]], last: Sequence[Known]) -> Lasting:
    share = Share.of(torch.cat([k.right_B for k in last]), torch.cat([k.asked_B for k in last]))
    rows = tuple(tuple(row) for row in R)
    return Lasting(share, rows, tuple(of.chances), of.unit, measured(rows, of.chances, of.loss))


def carried(model: LanguageModel, saved: dict[str, dict[str, Tensor]]) -> Callable[[int], State | None]:
    """rows -> the state that so many test items begin from: memories that outlive a sequence as training left them.

    Item n goes on from lane n, modulo their number; every item from the same, whatever was asked before it.
    """
    if not (model.streams and saved):
        return lambda rows: None
    lanes, there = count(saved), moved(saved, next(model.parameters()).device)

    def state(rows: int) -> State:
        begun = [model.bordered(rows_of(there, torch.tensor([n % lanes]))) for n in range(rows)]
        return model.joined(begun)

    return state
