"""A run directory (or one of its checkpoints) and tasks -> what it gets right, with learning on and off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import exercise
from runtime.device import choose
from runtime.errors import USAGE, RunError
from runtime.evaluate.tasks import Score, Task
from runtime.evaluate.tasks.continual.lessons import How
from runtime.evaluate.tasks.continual.matrix import Lasting, Place, lasting, places
from runtime.exercise import Exercise, examine
from runtime.model import LanguageModel
from runtime.numerics import subnormals_flushed
from runtime.trained import Trained, of_run


@dataclass(frozen=True, slots=True)
class Exam:
    """A test set of a task, or all tasks that were learned in order.

    on, off: with the levels inside a sequence writing, and not; one where there are none.  data: what was learned.
    """

    task: Task
    test: str
    on: Score | Lasting
    off: Score | Lasting
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        return self.task.kind(self.test).chance

    def as_dict(self) -> dict[str, Any]:
        t = self.task
        told = {"task": t.name, "test": self.test, "source": t.source, "knobs": dict(t.tests[self.test])}
        scores = {"on": self.on.as_dict(), "off": self.off.as_dict()}
        return {**told, "chance": self.chance, "solved": t.solved, **self.data, **scores}


def task_of(facts: Mapping[str, Any]) -> Task | None:
    """The task that the run with this lock.json learned; None where it learned a text.  Raises DataError."""
    told = facts.get("data", {}).get("task")
    return None if told is None else Task.read(told, "lock.json")


def text_of(
    facts: Mapping[str, Any], text: str | Path | None, field: str | None
) -> tuple[str | Path | None, str | None]:
    """A text that is named, or else what the run with this lock.json learned from; the field of its records."""
    data = facts.get("data", {})
    return (text, field) if text is not None else (data.get("path"), data.get("field"))


def examine_run(
    path: str | Path,
    tasks: Sequence[Task],
    *,
    items: int = 256,
    text: str | Path | None = None,
    field: str | None = None,
    device: str = "auto",
    warn: Callable[[str], None] = lambda message: None,
    done: Callable[[Exam], None] = lambda exam: None,
) -> list[Exam]:
    """A run's newest whole checkpoint, or the checkpoint given, on every test set of some tasks.

    items: of each test set, the first of it.  text: what needles are hidden in, in place of what the run learned from.
    `done` is called after each.  Raises RunError (DataError, CheckpointError).
    """
    trained = of_run(path, warn=warn)
    settings, model, own = trained.settings, trained.model.to(choose(device)), task_of(trained.facts)

    def made(task: Task) -> Exercise:
        for test in task.tests:
            if (wanted := task.kind(test).vocab) > settings.vocab:
                said = f"task {task.name} has {wanted} different tokens, and the model knows {settings.vocab}"
                raise RunError(f"{said}: train it with --task", USAGE)
        if own is None or own.items != task.items:
            warn(f"{path} learned {own.name if own else trained.facts.get('data', {}).get('source')}, not {task.name}")
        if (task.hides or task.ordered) and trained.codec.unit != "bytes":
            raise RunError(f"task {task.name} is of bytes, and {path} reads the tokens of {trained.codec.path}", USAGE)
        same = task.hides or (own is not None and own.items == task.items)  # so it may read what the run did
        return exercise.load(task, *(text_of(trained.facts, text, field) if same else (text,)), note=warn)

    found = []
    for of in [made(task) for task in tasks]:  # what cannot be asked is said before any is
        if of.lessons is not None:
            found.append(examine_in_order(trained, of, own, model, items, warn))
            done(found[-1])
            continue
        for test in of.task.tests:
            how: dict[str, Any] = {"items": items, "tokens": settings.tokens, "precision": settings.precision}
            with subnormals_flushed():
                on = examine(model, of, test, **how)
                off = examine(model, of, test, **how, learn=False) if model.writing else on
            found.append(Exam(of.task, test, on, off))
            done(found[-1])
    return found


def examine_in_order(
    trained: Trained, of: Exercise, own: Task | None, model: LanguageModel, items: int, warn: Callable[[str], None]
) -> Exam:
    """Tasks that are learned one after another: the matrix of a run that did so; else what its last weights know.

    items: of each of them.
    """
    task, lessons, settings = of.task, of.lessons, trained.settings
    assert lessons is not None
    if own is not None and own.digest == task.digest:
        course = lessons.course(settings.batch)
        there = trained.weights.parent.parent
        known = of.facts()["sha256"]
        if (then := trained.facts["data"].get("sha256")) != known:
            warn(f"{lessons.source} is another than when the run began: digest {str(then)[:16]} -> {known[:16]}")
        found = places(there, course.ends, lessons.tasks, warn)
    else:
        warn(f"this run did not learn {task.name} in order: only what it knows at its end is told")
        found = [Place(trained.weights.parent, lessons.tasks - 1)]
    how = How(items, settings.tokens, precision=settings.precision)
    with subnormals_flushed():
        on, off = lasting(
            model, lessons, found, how, lambda after: warn(f"{task.name}: after task {after + 1} of {lessons.tasks}")
        )
    return Exam(task, next(iter(task.tests)), on, off, lessons.facts())
