"""What is learned in order, as sequences by number, and what a model knows of it after some of the tasks.

A kind of items that is learned in order has `lessons(path)` in place of `items(draw, text)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from runtime.evaluate.tasks.continual.course import Course
from runtime.evaluate.tasks.items import Items
from runtime.evaluate.tasks.score import Share
from runtime.model import LanguageModel, State


@dataclass(frozen=True, slots=True)
class Known:
    """Of one task at one time.  value: its accuracy, or for texts its bits per byte; right, asked: answers by item."""

    value: float
    right_B: Tensor
    asked_B: Tensor

    @property
    def share(self) -> Share:
        return Share.of(self.right_B, self.asked_B)


class Lessons(Protocol):
    """loss: whether the value of a task is better where it is smaller; chances: of each task before it is learned."""

    path: Path | None  # what was named: a folder or file; None: nothing
    source: str
    unit: str
    loss: bool

    @property
    def tasks(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def chances(self) -> Sequence[float]: ...

    def facts(self) -> dict[str, Any]: ...

    def course(self, batch: int) -> Course: ...

    def items(self, split: Literal["train", "test"], numbers: Tensor | Sequence[int]) -> Items: ...

    def known(self, model: LanguageModel, asked: Sequence[int], after: int, how: How) -> list[Known]:
        """What is known of tasks `asked` (one after another, from 0) when all up to `after` have been learned."""


@dataclass(frozen=True, slots=True)
class How:
    """items: of a test, of each task; tokens: read at a time; state: that every item begins from, None: a fresh one."""

    items: int
    tokens: int
    learn: bool = True
    precision: str = "float32"
    state: Callable[[int], State | None] = lambda rows: None
