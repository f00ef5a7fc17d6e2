"""Memories that are about to vanish or explode, seen in the norms of a run's rows.

A memory's norm in the last row is compared with its first one, and, once the beginning of training is over, with the
one a few rows before:

    vanishes    norm < VANISHED x first
    explodes    norm > EXPLODED x first,  or  norm > GROWTH x norm WINDOW rows before, after SETTLED rows

A norm of 0 and one that is not finite say nothing here: a memory may start at 0, and the run stops at the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

VANISHED, EXPLODED = 0.1, 10.0
GROWTH, WINDOW, SETTLED = 2.0, 5, 10


class Trends:
    """What has been seen of every memory so far; each is named once."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.recent: dict[str, deque[float]] = {}
        self.rows: dict[str, int] = {}
        self.said: set[str] = set()

    def see(self, row: Mapping[str, Any]) -> dict[str, str]:
        """memory -> what this row warns of, in words, for memories that have not been named before."""
        found = {}
        for metric, norm in row.items():
            kind, _, rest = metric.partition("/")
            memory, _, what = rest.rpartition("/")
            said = kind == "memory" and what == "norm" and isinstance(norm, int | float) and norm > 0
            if said and (words := self._words(memory, norm)):
                found[memory] = words
        self.said |= found.keys()
        return found

    def _words(self, memory: str, norm: float) -> str:
        """Take one norm in; "" or what it warns of."""
        first = self.first.setdefault(memory, norm)
        recent = self.recent.setdefault(memory, deque(maxlen=WINDOW + 1))
        recent.append(norm)
        self.rows[memory] = self.rows.get(memory, 0) + 1
        times, growth = norm / first, norm / recent[0]
        if memory in self.said:
            return ""
        if times < VANISHED:
            return f"is about to vanish: its norm is {times:.3g} times its first"
        if times > EXPLODED:
            return f"is about to explode: its norm is {times:.3g} times its first"
        if self.rows[memory] > SETTLED and growth > GROWTH:
            return f"is about to explode: its norm grew {growth:.3g} times within {WINDOW} rows"
        return ""
