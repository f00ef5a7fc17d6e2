"""A task as what a run learns from, in place of a text: batches of its items, and a look at its first test set.

Training takes item after item, so that a step's are known by its number; of tasks that are learned in order, the
sequences of their course.  The loss is that of the answers and, where a text is learned too, of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from runtime import data
from runtime.batches import Batch, share
from runtime.errors import USAGE, DataError
from runtime.evaluate.loss import left_alone
from runtime.evaluate.tasks import Items, Score, Task, score
from runtime.evaluate.tasks.continual.course import Course
from runtime.evaluate.tasks.continual.lessons import Lessons
from runtime.evaluate.tasks.items import IGNORED
from runtime.precision import autocast


@dataclass(frozen=True, slots=True)
class Exercise:
    """hay: the text that it is made from; lessons: of several tasks that are learned in order."""

    task: Task
    hay: data.Data | None = None
    lessons: Lessons | None = None

    unit = "bits/target"
    bytes_per_token = 1.0
    tokenizer = None

    @property
    def source(self) -> str:
        return self.task.name

    @property
    def train(self) -> Exercise:
        """As a text has a part to learn from: here its items are told apart one by one."""
        return self

    def __str__(self) -> str:
        task, kind = self.task, self.task.kind()
        of = f", {'of' if task.told else 'hidden in'} {self.hay.source}" if self.hay else ""
        if self.lessons:
            return f"task {task.name}: {self.lessons.tasks} tasks, one after another, of {self.lessons.source}"
        many = f"{task.examples:,} different items" if task.examples else "no item twice"
        return f"task {task.name}: {kind.context} tokens of {kind.vocab}, {many}{of}; chance {kind.chance:.4g}"

    def facts(self) -> dict[str, Any]:
        """As JSON: enough to find the same items `again`, and to tell that they are the same."""
        hay = {} if self.hay is None else self.hay.facts()
        made = self.hay or self.lessons
        digest = self.task.digest if made is None else f"{self.task.digest[:32]}{made.digest[:32]}"
        if self.lessons is not None and self.lessons.path is not None:
            hay = {"path": str(self.lessons.path.resolve())}
        told = {"bytes_per_token": 1.0, "source": str(self.source), "sha256": digest}
        return {name: hay.get(name) for name in ("path", "field")} | told | {"task": self.task.as_dict()}

    def items(self, split: Literal["train", "test"], numbers: Tensor | Sequence[int], *, seed: int = 0,
              test: str | None = None) -> Items:  # fmt: skip
        """Items of a split by their numbers; of the tasks that are learned in order, the seed is a knob of theirs."""
        if self.lessons is not None:
            return self.lessons.items(split, numbers)
        text = None if self.hay is None else self.hay.train if split == "train" else self.hay.validation
        return self.task.make(split, numbers, seed=seed, test=test, text=text)

    def course(self, batch: int) -> Course | None:
        """What is learned when, of tasks that are learned in order."""
        return None if self.lessons is None else self.lessons.course(batch)

    def check(self, context: int, vocab: int) -> None:
        """Raises DataError unless the sequences of a spec are the task's."""
        kind = self.task.kind()
        if (context, vocab) != (kind.context, kind.vocab):
            asks = f"task {self.task.name} has {kind.context} tokens of {kind.vocab} different ones"
            given = f"--set sizes.context={kind.context} --set sizes.vocab={kind.vocab}"
            raise DataError(f"{asks}, the spec {context} of {vocab}: say {given}", USAGE)


def load(task: Task, path: str | Path | None = None, field: str | None = None,
         note: Callable[[str], None] = lambda message: None) -> Exercise:  # fmt: skip
    """The task, with the text that `path` names where it hides something.  Raises DataError."""
    if task.hides:
        return Exercise(task, data.load(path, field=field, note=note))
    if task.ordered and field is None:
        return Exercise(task, lessons=task.kind().lessons(path))  # type: ignore[attr-defined]
    if path is not None or field is not None:
        option = "--data" if path is not None else "--field"
        raise DataError(
            f"task {task.name} makes its items itself: {option} is for tasks that hide something or read", USAGE
        )
    return Exercise(task)


def read(path: Path) -> Task:
    """The task that a file holds, as `nlc train --task` writes it.  Raises DataError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"'{path}': {error.strerror}") from None
    except ValueError:
        raise DataError(f"'{path}' is not JSON", USAGE) from None
    if not isinstance(found, Mapping):
        raise DataError(f"'{path}' does not describe a task", USAGE)
    return Task.read(found, f"'{path}'")


class Drill:
    """The items of every step, in order; with `streams`, memories that outlive a sequence are told that one begins."""

    def __init__(
        self, of: Exercise, batch: int, seed: int, rank: int = 0, ranks: int = 1, streams: bool = False
    ) -> None:
        self.of, self.batch, self.seed, self.streams = of, batch, seed, streams
        self.own = share(batch, rank, ranks)
        self.course = of.course(batch)

    def at(self, step: int) -> Batch:
        number_B = torch.arange(step * self.batch, (step + 1) * self.batch)[self.own]
        if self.course is not None:
            number_B = torch.tensor(self.course.numbers)[number_B]
        items = self.of.items("train", number_B, seed=self.seed)
        starts_BT = torch.zeros_like(items.tokens, dtype=torch.bool)
        starts_BT[:, 0] = True
        return Batch(items.tokens, items.targets, starts_BT if self.streams else None)


@torch.no_grad()
def examine(
    model: nn.Module,
    of: Exercise,
    test: str,
    *,
    items: int,
    tokens: int,
    learn: bool = True,
    precision: str = "float32",
    between: Callable[[], None] = lambda: None,
) -> Score:
    """What a model gets right in a test set's first `items`, about so many `tokens` at a time.

    A memory that learns from the token's loss learns from the targets that belong to no answer, and from no answer but
    those of a text, whose next byte is known once it has been asked for.
    The model's weights, mode and firing counts are left as they were, whatever happens.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    kind = of.task.kind(test)
    made = of.items("test", range(items), test=test)

    def answer(part: Items) -> Tensor:
        known_BT = part.targets if of.task.told else part.targets.masked_fill(part.answers >= 0, IGNORED)
        with autocast(precision, device):
            return model.predicted(part.tokens.to(device), known_BT.to(device), learn)  # type: ignore[operator]

    with left_alone(model):
        return score(answer, made, kind.choices, max(1, tokens // kind.context), between, places=of.task.told)


@dataclass(frozen=True, slots=True)
class Examined:
    """A look at the first test set on the way, said as a validation is."""

    score: Score
    chance: float

    def metrics(self) -> dict[str, float]:
        share = self.score.share
        return {"val/loss": self.score.loss, "val/accuracy": share.accuracy, "val/answers": share.answers}

    def result(self) -> dict[str, Any]:
        share = self.score.share
        return {
            "val_loss": self.score.loss, "val_accuracy": share.accuracy, "val_low": share.low, "val_high": share.high,
            "val_answers": share.answers, "val_items": share.items, "chance": self.chance,
        }  # fmt: skip

    @property
    def brief(self) -> str:
        return f"{100 * self.score.share.accuracy:.1f} % right"

    def __str__(self) -> str:
        s = self.score.share
        sure = f"95 %: {100 * s.low:.1f} to {100 * s.high:.1f}; chance {100 * self.chance:.3g}"
        return f"{100 * s.accuracy:.1f} % of {s.answers:,} answers right ({sure})"
