"""Class-incremental classification: texts and their labels as sequences of bytes, and who is asked which labels.

    \\n \\n \\n w h e r e   i s   m y   c a r d \\t c a r d _ a r r i v a l \\n
                                             ^ from here on the loss counts; with `whole` 1, from the text on

A text ends at the same place in every sequence.  One that is too long loses its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from runtime.data import Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.tasks.continual import sources, topics
from runtime.evaluate.tasks.continual.classify import PAD, likeliest
from runtime.evaluate.tasks.continual.course import Course, course
from runtime.evaluate.tasks.continual.labelled import Example, Labelled, cut, hashed, ordered
from runtime.evaluate.tasks.continual.lessons import How, Known
from runtime.evaluate.tasks.draw import Draw
from runtime.evaluate.tasks.items import IGNORED, Items
from runtime.model import LanguageModel
from runtime.precision import autocast

TAB = ord("\t")


@dataclass(frozen=True)
class Classes:
    """`tasks` tasks of `classes` labels each, one after another; an answer is right where the likeliest label is it.

    shots: training texts of a label, 0 is all; passes: over a task while it is learned; replay: texts of a label that
    are kept and read again; mixed: 1 is all tasks at once; whole: 1 teaches the text too, not the label alone;
    order: seed of the order.
    """

    context: int
    tasks: int
    classes: int
    shots: int
    passes: int
    replay: int
    mixed: int
    whole: int
    order: int

    vocab = 256
    choices = range(256)

    @property
    def chance(self) -> float:
        return 1 / (self.tasks * self.classes)

    def items(self, draw: Draw, text: Text | None) -> Items:
        raise NotImplementedError("learned in order: lessons() has its sequences")

    def labelled(self, path: str | Path | None) -> Labelled:
        raise NotImplementedError

    def lessons(self, path: str | Path | None = None) -> ClassLessons:
        """Raises DataError where the texts are missing, malformed or too few."""
        return ClassLessons(self, self.labelled(path), None if path is None else Path(path))


@dataclass(frozen=True)
class Topics(Classes):
    """The stand-in.  words: that belong to a label; length: words of a text."""

    words: int
    length: int

    tests = 32  # test texts of a label

    def labelled(self, path: str | Path | None) -> Labelled:
        if path is not None:
            raise DataError("the texts are made here: --data is for tasks that read some", USAGE)
        labels, train, test = topics.made(self.tasks * self.classes, self.words, self.length, self.shots, self.tests)
        chosen = ordered(labels, self.order)
        return cut("made-up topics", train, test, chosen, self.tasks, self.classes, self.shots, self.order)


@dataclass(frozen=True)
class Published(Classes):
    """A published set: `name` as sources.WHERE has it."""

    name = ""

    def labelled(self, path: str | Path | None) -> Labelled:
        found = sources.read(self.name, path)
        told = (self.tasks, self.classes, self.shots, self.order)
        return cut(self.name, found.train, found.test, self.labels(found), *told)

    def labels(self, found: sources.Published) -> list[str]:
        """In the order in which they are learned."""
        return ordered(found.labels, self.order)


@dataclass(frozen=True)
class Clinc150(Published):
    """150 intents in 10 domains.  by_domain 1: a domain is a task.  Source: Larson et al., EMNLP 2019."""

    by_domain: int

    name = "clinc150"

    def labels(self, found: sources.Published) -> list[str]:
        if not self.by_domain:
            return super().labels(found)
        large = [labels[: self.classes] for labels in found.domains.values() if len(labels) >= self.classes]
        if len(large) < self.tasks:
            asked = f"by_domain 1 takes {self.tasks} domains of {self.classes} labels"
            raise DataError(f"{self.name}: {asked}, and domains.json has {len(large)}", USAGE)
        return [label for labels in large for label in labels]


@dataclass(frozen=True)
class Banking77(Published):
    """77 fine-grained intents of one bank's customers.  Source: Casanueva et al., arXiv 2003.04807."""

    name = "banking77"


@dataclass(frozen=True)
class Dbpedia70(Published):
    """First sentences of articles, 70 classes of DBpedia.  Source: the cut of github.com/SalehMomeni/KLDA."""

    name = "dbpedia70"


class ClassLessons:
    """Sequence n of training is the n-th text, label after label; item n of a test goes from label to label in turn."""

    unit, loss = "accuracy", False

    def __init__(self, kind: Classes, of: Labelled, path: Path | None) -> None:
        self.kind, self.of, self.path, self.source = kind, of, path, of.name
        self.ends = [label + b"\n" for label in of.labels]
        self.room = kind.context - max(map(len, self.ends))  # bytes of a text
        if self.room < 1:
            longest = max(of.labels, key=len).decode()
            raise DataError(f"{of.name}: {kind.context} bytes have no room for a text and label '{longest}'", USAGE)
        self.training = [example for found in of.train for example in found]
        seen = {self.end(example) for example in self.training}  # two texts may be one where they lose their beginning
        test = [[example for example in found if self.end(example) not in seen] for found in of.test]
        if not all(test):
            label = of.labels[test.index([])].decode()
            said = f"the last {self.room} bytes of every test text of label '{label}' end a training text, too"
            raise DataError(f"{of.name}: {said}: give a longer context", USAGE)
        self.testing = [found[i] for i in range(max(map(len, test))) for found in test if i < len(found)]

    @property
    def tasks(self) -> int:
        return self.of.tasks

    @property
    def digest(self) -> str:
        return self.of.digest

    @property
    def chances(self) -> Sequence[float]:
        """Among the labels of the task and of all before it."""
        return [1 / ((i + 1) * self.of.each) for i in range(self.tasks)]

    def facts(self) -> dict[str, Any]:
        return self.of.facts() | {"test_examples": len(self.testing)}

    def course(self, batch: int) -> Course:
        first, groups = 0, []
        for found in self.of.train:
            groups.append(range(first, first + len(found)))
            first += len(found)
        tasks = [groups[i : i + self.of.each] for i in range(0, len(groups), self.of.each)]
        k = self.kind
        return course(tasks, batch, passes=k.passes, replay=k.replay, mixed=bool(k.mixed), rank=self.rank)

    def rank(self, number: int, turn: int) -> str:
        """The place of a text among those of its task; in every pass another."""
        example = self.training[number]
        words = (self.of.order, self.of.labels[example.label].decode(), example.text.decode())
        return hashed(*words, *([turn] if turn else []))

    def items(self, split: Literal["train", "test"], numbers: Tensor | Sequence[int]) -> Items:
        among = self.training if split == "train" else self.testing
        chosen = [among[int(n) % len(among)] for n in torch.as_tensor(numbers)]
        text_BP, long = self.texts(chosen), self.kind.context
        tokens_BT = torch.full((len(chosen), long), PAD)
        tokens_BT[:, : self.room + 1] = text_BP
        targets_BT = torch.full_like(tokens_BT, IGNORED)
        answers_BT = torch.full_like(tokens_BT, -1)
        for b, example in enumerate(chosen):
            end = torch.tensor(list(self.ends[example.label]))
            tokens_BT[b, self.room + 1 : self.room + len(end)] = end[:-1]
            targets_BT[b, self.room : self.room + len(end)] = end
            answers_BT[b, self.room : self.room + len(end)] = 0
            if self.kind.whole:
                first = self.room - len(self.end(example))
                targets_BT[b, first : self.room] = tokens_BT[b, first + 1 : self.room + 1]
        return Items.of(tokens_BT, targets_BT, answers_BT)

    def end(self, example: Example) -> bytes:
        """What a sequence has of its text."""
        return example.text[-self.room :]

    def texts(self, examples: Sequence[Example]) -> Tensor:
        """(B, P) the texts, each with the tab that asks."""
        ends = [*map(self.end, examples)]
        return torch.tensor([[*[PAD] * (self.room - len(text)), *text, TAB] for text in ends])

    def tested(self, task: int, items: int) -> list[Example]:
        """The test texts of a task, from label to label in turn."""
        labels = range(task * self.of.each, (task + 1) * self.of.each)
        return [example for example in self.testing if example.label in labels][:items]

    def known(self, model: LanguageModel, asked: Sequence[int], after: int, how: How) -> list[Known]:
        """Among the labels of all tasks up to `after`, or up to the one that is asked about, where that comes later."""
        found = []
        device = next(model.parameters()).device
        for upto in sorted({max(task, after) for task in asked}):
            labels = self.ends[: (upto + 1) * self.of.each]
            mine = [task for task in asked if max(task, after) == upto]
            examples = [(task, example) for task in mine for example in self.tested(task, how.items)]
            told: list[Tensor] = []
            batch = max(1, how.tokens // (self.room + 1))
            for at in range(0, len(examples), batch):
                part = [example for _, example in examples[at : at + batch]]
                with autocast(how.precision, device):
                    best_B = likeliest(
                        model, self.texts(part).to(device), labels, taught=bool(self.kind.whole),
                        state=how.state(len(part)), learn=how.learn,
                    ).cpu()  # fmt: skip
                told.append(best_B == torch.tensor([example.label for example in part]))
            right_N = torch.cat(told).long()
            of_N = torch.tensor([task for task, _ in examples])
            for task in mine:
                right_B = right_N[of_N == task]
                found.append((task, Known(float(right_B.double().mean()), right_B, torch.ones_like(right_B))))
        return [known for _, known in sorted(found, key=lambda pair: pair[0])]
