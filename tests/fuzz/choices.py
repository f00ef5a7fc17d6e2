"""Choices by name, over one primitive: a whole number below n.

Choose(lambda n: draw(st.integers(0, n - 1)))      hypothesis draws, and shrinks: the first choice is the simplest
Choose.seeded(7)                                    a seed draws: the same program on every machine
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
LITERALS = 100_000  # seeds from here on draw plain numbers as values; the programs of those below are on record


@dataclass(frozen=True)
class Choose:
    """One source of choices for a whole program."""

    below: Callable[[int], int]
    literals: bool = True  # plain numbers stand for values, too

    @classmethod
    def seeded(cls, seed: int) -> Choose:
        return cls(random.Random(seed).randrange, seed >= LITERALS)

    def among(self, options: Sequence[T]) -> T:
        """One of them; the first is the simplest."""
        return options[self.below(len(options))]

    def some(self, options: Sequence[T], least: int = 0, most: int = 99) -> list[T]:
        """Different ones of them, in the order given."""
        count = self.whole(least, min(most, len(options))) if options else 0
        picked = set(self.shuffled(range(len(options)))[:count])
        return [option for i, option in enumerate(options) if i in picked]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        left, found = list(options), list[T]()
        while left:
            found.append(left.pop(self.below(len(left))))
        return found

    def whole(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True so many times in a hundred; False is the simpler."""
        return self.below(100) >= 100 - percent

    def plain(self, low: float, high: float) -> str:
        """A number, as one may be written, in place of a value; "" where a value is to stand."""
        if not self.literals or not self.chance(25):
            return ""
        x = self.number(low, high)
        return self.among([f"{x}", f"min({x}, 2)", f"{x} * 1", f"where({x} > 5, 0, {x})"])

    def number(self, low: float, high: float) -> float:
        """A number of two digits."""
        return float(f"{low + (high - low) * self.whole(0, 100) / 100:.2g}")


def drawn(make: Callable[[Choose], T]) -> SearchStrategy[T]:
    """The strategy of what a function of choices makes."""

    @st.composite
    def strategy(draw: Callable[[SearchStrategy[int]], int]) -> T:
        return make(Choose(lambda n: draw(st.integers(0, n - 1))))

    return strategy()
