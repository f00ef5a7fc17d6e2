"""Periods: how often something is written.  Compare frequencies, store periods."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    TOKEN = "token"
    SEQUENCE = "sequence"
    STEP = "step"
    TASK = "task"
    NEVER = "never"


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """Time between two updates: `count` of `unit`; the frequency is its inverse. NEVER has count 0."""

    count: int
    unit: Unit

    def __str__(self) -> str:
        if self.unit is Unit.NEVER:
            return "never"
        return f"{self.count} {self.unit.value}" + ("s" if self.count != 1 else "")
