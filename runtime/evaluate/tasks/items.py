"""What a task is made of: items, each a sequence, what is asked in it, and what tells it from other items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from runtime.data import Text
from runtime.evaluate.tasks.draw import Draw

IGNORED = -100  # a target that teaches nothing, and that nobody asks for


@dataclass(frozen=True, slots=True)
class Items:
    """B items.  An answer is one target, or several that are right only together.

    content: what decides whether an item is trained or tested on; the tokens, unless something else is said.
    marks: numbers of an item by which results are told apart, such as how deep a needle lies.
    """

    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64, IGNORED where nothing is asked
    answers: Tensor  # (B, T) int64: the number, within its item, of the answer that a target belongs to
    content: Tensor  # (B, N) int64
    marks: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) float64

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(
        cls,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        answers_BT: Tensor | None = None,
        content_BN: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
    ) -> Items:
        """Where no answers are given each target is one."""
        asked_BT = targets_BT != IGNORED
        each_BT = asked_BT.long().cumsum(1) - 1 if answers_BT is None else answers_BT
        answers_BT = torch.where(asked_BT, each_BT, -1)
        return cls(tokens_BT, targets_BT, answers_BT, tokens_BT if content_BN is None else content_BN, marks or {})

    def put(self, at: Tensor, other: Items) -> None:
        """Let the items at these places be others."""
        for name in ("tokens", "targets", "answers", "content"):
            getattr(self, name)[at] = getattr(other, name)
        for name, mark_B in self.marks.items():
            mark_B[at] = other.marks[name]

    def rows(self, at: Tensor) -> Items:
        """Some of the items."""
        marks = {name: mark_B[at] for name, mark_B in self.marks.items()}
        return Items(self.tokens[at], self.targets[at], self.answers[at], self.content[at], marks)


class Kind(Protocol):
    """Makes items; its fields are the knobs."""

    context: int  # tokens of an item

    @property
    def vocab(self) -> int: ...

    @property
    def choices(self) -> range:
        """The tokens that an answer is chosen among."""

    @property
    def chance(self) -> float:
        """The share of answers that are right where any answer there can be is guessed."""

    def items(self, draw: Draw, text: Text | None) -> Items:
        """An item for each key of the draw; `text`: for kinds that hide something in it."""
