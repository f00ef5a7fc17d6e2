"""Texts with labels, cut into tasks of equally many labels: the order is a pure function of a seed.

Labels stand in the order of sha256("seed:label"), the texts of a task in that of sha256("seed:label:text").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import USAGE, DataError

Pairs = Sequence[tuple[str, str]]  # (text, label)


def hashed(*words: object) -> str:
    return hashlib.sha256(":".join(str(word) for word in words).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    text: bytes
    label: int  # its place among the labels


@dataclass(frozen=True, slots=True)
class Labelled:
    """labels: as bytes, task after task, `each` of them in a task; train, test: of every label its examples, in order.

    overlap: training examples left out because their text is one of the test's.
    """

    name: str
    labels: tuple[bytes, ...]
    each: int
    train: tuple[tuple[Example, ...], ...]
    test: tuple[tuple[Example, ...], ...]
    overlap: int
    order: int

    @property
    def tasks(self) -> int:
        return len(self.labels) // self.each

    @property
    def digest(self) -> str:
        told = [[label.decode(), [[e.text.decode() for e in part[i]] for part in (self.train, self.test)]]
                for i, label in enumerate(self.labels)]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """As JSON: what was learned, and what not."""
        return {
            "data": self.name, "labels": [label.decode() for label in self.labels], "labels_of_a_task": self.each,
            "training_examples": sum(map(len, self.train)), "test_examples": sum(map(len, self.test)),
            "left_out_because_in_test": self.overlap,
        }  # fmt: skip


def ordered(labels: Iterable[str], seed: int) -> list[str]:
    """The order in which labels are learned."""
    return sorted(labels, key=lambda label: hashed(seed, label))


def cut(
    name: str, train: Pairs, test: Pairs, labels: Sequence[str], tasks: int, each: int, shots: int, seed: int
) -> Labelled:
    """`tasks` tasks of `each` labels, in the order given; of every label the first `shots` examples, 0 is all of them.

    A training text that is also a text of the test, whatever its label, is left out.  Raises DataError.
    """
    known_as: dict[bytes, str] = {}
    for label in labels:
        if (other := known_as.setdefault(clean(label), label)) != label:
            raise DataError(f"{name}: labels {other!r} and {label!r} are the same but for spaces")
    if tasks * each > len(labels):
        asked = f"{tasks} tasks of {each} labels are {tasks * each}"
        raise DataError(f"{name} has {len(labels)} labels, and {asked}: take fewer", USAGE)
    chosen = labels[: tasks * each]
    known = {clean(text) for text, _ in test}
    kept = [(text, label) for text, label in train if clean(text) not in known]
    parts = [examples(pairs, chosen, seed) for pairs in (kept, test)]
    for of, part in zip(("training", "test"), parts, strict=True):
        if empty := [label for label, found in zip(chosen, part, strict=True) if not found]:
            raise DataError(f"{name}: label '{empty[0]}' has no {of} text")
    few = [found[:shots] if shots else found for found in parts[0]]
    spelt = tuple(clean(label) for label in chosen)
    return Labelled(name, spelt, each, tuple(few), tuple(parts[1]), len(train) - len(kept), seed)


def examples(pairs: Pairs, labels: Sequence[str], seed: int) -> list[tuple[Example, ...]]:
    """Of every label its texts, each once, in the order of their hashes."""
    place = {label: i for i, label in enumerate(labels)}
    found: list[dict[bytes, None]] = [{} for _ in labels]
    for text, label in sorted(pairs, key=lambda pair: hashed(seed, pair[1], pair[0])):
        if label in place:
            found[place[label]][clean(text)] = None
    return [tuple(Example(text, i) for text in texts) for i, texts in enumerate(found)]


def clean(text: str) -> bytes:
    """On one line: what ends a text (a tab) and a label (a line's end) stands in neither."""
    return " ".join(text.split()).encode()
