"""A task as data -> any of its items: item i of a split is the same for ever, and never one of the other split.

    task = Task.read({"name": "mqar", "items": "associative", "knobs": {...}, "examples": 0, "tests": {...}, ...})
    task.make("test", torch.arange(256), test="as trained") -> Items

What an item holds decides its split: a hash of it, the same for every seed.  One that falls on the wrong side is drawn
again.  So training under any seed, and at any difficulty, has seen nothing of any test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from runtime.data import Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.tasks.draw import Draw, digest, key_of, mixed
from runtime.evaluate.tasks.items import Items, Kind
from runtime.evaluate.tasks.kinds import HAYSTACKS, KINDS, ORDERED, READ, TOLD
from runtime.shape import misfit

Split = Literal["train", "test"]

SHARE = 4  # one of so many items is for tests
TRIES = 200  # with fewer than one in 10^24 no item of the split is found where they are mixed as they should be
SHAPE = {"name": str, "items": str, "knobs": dict, "tests": dict, "examples": int, "source": str}


@dataclass(frozen=True)
class Task:
    """knobs: of training; tests: the knobs of every test set by name, the first of them as hard as training.

    examples: different items of training, 0 is as many as there are steps for; source: the paper; solved: the accuracy
    of a model that is known to solve it, None where none is.
    """

    name: str
    items: str
    knobs: Mapping[str, float]
    tests: Mapping[str, Mapping[str, float]]
    examples: int
    source: str
    solved: float | None = None

    @classmethod
    def read(cls, facts: Mapping[str, Any], where: str = "a task") -> Task:
        """The task that `as_dict` describes.  Raises DataError where something else is described."""
        missing = [name for name in SHAPE if name not in facts]
        wrong = f"{missing[0]} is missing" if missing else misfit(facts, SHAPE)
        if not wrong and facts["items"] not in KINDS:
            wrong = f"items is '{facts['items']}'; there are {', '.join(KINDS)}"
        if not wrong and not facts["tests"]:
            wrong = "tests is empty"
        if wrong:
            raise DataError(f"{where} does not describe a task: {wrong}", USAGE)
        task = cls(**{name: facts[name] for name in SHAPE}, solved=facts.get("solved"))
        for knobs in (task.knobs, *task.tests.values()):
            made(task.items, knobs, where)
        return task

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*SHAPE, "solved")}

    @property
    def digest(self) -> str:
        """Of what its items hang on."""
        text = {"items": self.items, "knobs": self.knobs, "tests": self.tests, "examples": self.examples}
        return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()

    @property
    def hides(self) -> bool:
        """Whether its items are made from a text: something is hidden in it, or it is itself to be read."""
        return self.items in HAYSTACKS

    @property
    def reads(self) -> bool:
        """Whether it takes texts from a file or folder that is named."""
        return self.items in READ

    @property
    def told(self) -> bool:
        """Whether a memory that learns from the loss may learn from its answers."""
        return self.items in TOLD

    @property
    def ordered(self) -> bool:
        """Whether it is several tasks, learned one after another: its kind has `lessons` in place of items."""
        return self.items in ORDERED

    def kind(self, test: str | None = None) -> Kind:
        """Of training, or of a test set."""
        return made(self.items, self.knobs if test is None else self.tests[test])

    def make(
        self,
        split: Split,
        numbers: Tensor | Sequence[int],
        *,
        seed: int = 0,
        test: str | None = None,
        text: Text | None = None,
    ) -> Items:
        """Items of a split by their numbers; of a test set, where one is named.  Raises DataError."""
        number_B = torch.as_tensor(numbers)
        if self.examples and split == "train":
            number_B = number_B % self.examples
        words = json.dumps([self.items, split, seed, test], sort_keys=True)
        return drawn(self.kind(test), split, mixed(number_B + key_of(words)), text)


def made(items: str, knobs: Mapping[str, float], where: str = "a task") -> Kind:
    """Raises DataError where the knobs are not those of the kind."""
    kind = KINDS[items]
    known = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    for name in (*known, *knobs):
        if name not in knobs or name not in known:
            raise DataError(f"{where}: items '{items}' have {'no' if name in knobs else 'a'} knob '{name}'", USAGE)
        if known[name] == "int" and not isinstance(knobs[name], int):
            raise DataError(f"{where}: knob '{name}' is {knobs[name]!r}, a whole number is expected", USAGE)
    return kind(**knobs)


def drawn(kind: Kind, split: Split, key_B: Tensor, text: Text | None) -> Items:
    """An item of the split for each key: the first that is one of those that the key gives."""
    found, wrong_n = kind.items(Draw(key_B), text), torch.arange(len(key_B))
    for attempt in range(1, TRIES):
        wrong_n = wrong_n[(digest(found.content[wrong_n]) % SHARE == 0) != (split == "test")]
        if not len(wrong_n):
            return found
        found.put(wrong_n, kind.items(Draw(mixed(key_B[wrong_n] + attempt)), text))
    raise DataError(f"no {split} items: there are too few different ones; make the sequence longer", USAGE)
