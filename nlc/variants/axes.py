"""Axes: how variants differ, and every way of choosing.

Axis("levels.titans.rule", choices, when)      choices: (label, what it changes), in order
combinations(axes)                             every legal choice of one label an axis, in order
drawn(axes, rng)                               one of them by chance
settings(axes, chosen)                         what a choice sets: path -> Entry, as nlc.load takes it

An axis that does not apply (`when`) is left out of a choice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nlc.source import Entry, Position

Chosen = Mapping[str, str]  # axis -> label

BASE = "base"  # the axis of the specs that variants begin from
ENUMERATED = 100_000  # combinations that are listed one by one; a draw from more of them just draws


@dataclass(frozen=True, slots=True)
class Choice:
    """label: what stands in tables; changes: path, and the value with its place."""

    label: str
    changes: tuple[tuple[str, Entry], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """when: (another axis, its labels with which this one applies)."""

    name: str
    choices: tuple[Choice, ...]
    when: tuple[tuple[str, tuple[str, ...]], ...]
    at: Position

    def applies(self, chosen: Chosen) -> bool:
        return all(chosen.get(other) in labels for other, labels in self.when)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(choice.label for choice in self.choices)


def combinations(axes: Sequence[Axis], chosen: Chosen | None = None) -> Iterator[dict[str, str]]:
    """The last axis changes fastest."""
    so_far = dict(chosen or {})
    if not axes:
        yield so_far
        return
    first, *rest = axes
    if not first.applies(so_far):
        yield from combinations(rest, so_far)
        return
    for label in first.labels:
        yield from combinations(rest, {**so_far, first.name: label})


def count(axes: Sequence[Axis], most: int) -> int:
    """How many combinations there are, or `most` where there are more."""
    found = 0
    for _ in combinations(axes):
        found += 1
        if found >= most:
            break
    return found


def drawn(axes: Sequence[Axis], rng: random.Random) -> dict[str, str]:
    """Each axis by itself, every label as likely."""
    chosen: dict[str, str] = {}
    for axis in axes:
        if axis.applies(chosen):
            chosen[axis.name] = rng.choice(axis.labels)
    return chosen


def settings(axes: Sequence[Axis], chosen: Chosen) -> dict[str, Entry]:
    """A path that two axes set is the later one's."""
    found: dict[str, Entry] = {}
    for axis in axes:
        if axis.name in chosen:
            choice = axis.choices[axis.labels.index(chosen[axis.name])]
            for path, entry in choice.changes:
                found.pop(path, None)
                found[path] = entry
    return found
