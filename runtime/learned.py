"""What a run learns from, a text or a task: found, found again, cut into batches, judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from runtime import data, exercise
from runtime.batches import Crops, Lanes, spread
from runtime.data import Data, Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.loss import Result, evaluate
from runtime.evaluate.tasks import Task
from runtime.exercise import Drill, Examined, Exercise, examine
from runtime.settings import Options, Settings

Note = Callable[[str], None]


def load(options: Options, begun: Mapping[str, Any], vocab: int, note: Note) -> Data | Exercise:
    """What the command line names; a run that has `begun` with a task goes on with it.  Raises DataError."""
    o = options
    if o.task is not None or "task" in begun:
        task = Task.read(begun["task"]) if o.task is None else exercise.read(o.task)
        return exercise.load(task, o.data, o.field, note)
    return data.load(o.data, field=o.field, tokenizer=o.tokenizer, pack=o.pack, vocab=vocab, note=note)


def foreseen(
    path: Path | None, field: str | None, tokenizer: Path | None, task: Task | None, context: int, vocab: int
) -> str:
    """What a run would learn from, by name: read and checked as for a run, but for what that would put into the cache.

    Raises DataError."""
    name, writes = ("", False) if task is not None and not task.hides else data.found(path, field, tokenizer, vocab)
    if not writes:
        found = data.load(path, field=field) if task is None else exercise.load(task, path, field)
        check(found, context, vocab)
    return name if task is None else f"the task {task.name}"


def again(facts: Mapping[str, Any], run: Path, note: Note) -> Data | Exercise:
    """What the `facts` of an earlier run describe.  Raises DataError where it is gone."""
    if "task" not in facts:
        return data.again(facts, run=run, note=note)
    return exercise.load(Task.read(facts["task"], f"'{run}'"), facts.get("path"), facts.get("field"), note)


def check(found: Data | Exercise, context: int, vocab: int) -> None:
    """Raises DataError unless it goes with the sizes of a spec."""
    found.check(context, vocab) if isinstance(found, Exercise) else data.check(found, context, vocab)


def batches(
    kind: type[Crops | Lanes], part: Text | Exercise, settings: Settings, seed: int, rank: int = 0, ranks: int = 1
) -> Crops | Lanes | Drill:
    """The batch of any step: `.at(step)`."""
    s = settings
    if isinstance(part, Exercise):
        return Drill(part, s.batch, seed, rank, ranks, streams=kind is Lanes)
    return kind(part, s.batch, s.context, seed, rank, ranks)


def ends(found: Data | Exercise, settings: Settings) -> frozenset[int]:
    """The steps after which a task is over, of several that are learned in order: each leaves a checkpoint.

    Raises DataError where the run is longer or shorter than they are.
    """
    course = found.course(settings.batch) if isinstance(found, Exercise) else None
    if course is None:
        return frozenset()
    if course.steps != settings.steps:
        asked = f"{found.source} takes {course.steps:,} steps of {settings.batch} sequences, not {settings.steps:,}"
        raise DataError(f"{asked}: say --set run.steps={course.steps}", USAGE)
    return frozenset(course.ends)


def sequences(found: Data | Exercise, tokens: int, context: int) -> int:
    """How many are read to judge by so many tokens."""
    count = max(1, tokens // context)
    return count if isinstance(found, Exercise) else len(spread(found.validation, count, context))


def judge(
    model: nn.Module, found: Data | Exercise, settings: Settings, tokens: int, between: Callable[[], None]
) -> Result | Examined:
    """A model on what it does not learn from, by about so many tokens."""
    s = settings
    if isinstance(found, Data):
        how = {"batch": s.batch, "context": s.context, "precision": s.precision}
        return evaluate(model, found.validation, **how, tokens=tokens, between=between)
    first, items = next(iter(found.task.tests)), sequences(found, tokens, s.context)
    told = examine(model, found, first, items=items, tokens=s.tokens, precision=s.precision, between=between)
    return Examined(told, found.task.kind(first).chance)
