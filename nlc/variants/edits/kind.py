"""What a kind of edit is, and the words in which edits say what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from nlc.variants.edits.draft import Draft, Place

T = TypeVar("T")


class Unchanged(Exception):
    """A site at which this kind has nothing else to offer."""


@dataclass(frozen=True)
class Kind:
    """A typed edit: `sites` are the parts of a spec that it applies to, `make` changes one and says what it did."""

    name: str
    doc: str
    sites: Callable[[Draft], Sequence[Any]]
    make: Callable[[Draft, Any, Random], str]


def among(rng: Random, options: Sequence[T]) -> T:
    """One of them.  Raises Unchanged where there is none."""
    if not options:
        raise Unchanged
    return options[rng.randrange(len(options))]


def other(rng: Random, options: Sequence[T], than: T) -> T:
    """One of them that is not what is there already."""
    return among(rng, [option for option in options if option != than])


def becomes(place: Place, name: str, old: object, new: object) -> str:
    """`level 'titans': rule dgd becomes momentum(beta=0.9)`"""
    if old is None:
        return f"{place.subject}: {name} is {new}"
    return f"{place.subject}: {name} {old} becomes {new}"
