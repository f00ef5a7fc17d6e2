"""What memories are given while somebody watches: how surprised they are, at which rate they write, what they keep.

    with watch() as seen:
        model.loss(x_BT, y_BT)
    seen.means()    {"titans.memory": {"surprise": 0.81, "rate": 0.3, "retain": 0.98}, ...}

Outside of such a block the operators compute nothing of this.  Quantities, of every token and layer; surprise and
update of the batch's first sequence alone, which is enough to see them and costs little:

    surprise   |g_t|, the norm of the gradient of the memory's objective at the state in force, all parts and heads
               together; a layer's part of g_t is error input^T, so |g_t|^2 = sum_layers |error_t|^2 (|input_t|^2 [+ 1])
    rate       the rule's learning rate, of every head
    retain     the share of the state that is kept, of every head
    update     |W_after - W_before| of a write at the end of a period, all parts together

surprise and update are root mean squares; rate and retain are means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

SQUARES = ("surprise", "update")  # kept as sums of squares
ONCE = "rate of a write"  # a rate said at the end of a period, for all its tokens


@dataclass
class Watch:
    """Sums and counts by memory and quantity; the sums stay on the device until they are asked for."""

    found: dict[str, dict[str, list[tuple[Tensor | float, int]]]] = field(default_factory=dict)

    def add(self, memory: str, quantity: str, total: Tensor | float, count: int) -> None:
        """`count` numbers (of a quantity in SQUARES: their squares) that add up to `total`."""
        if memory:
            total = total.detach() if isinstance(total, Tensor) else total
            self.found.setdefault(memory, {}).setdefault(quantity, []).append((total, count))

    @torch.no_grad()
    def speed(self, memory: str, rate: Tensor | None, keep: Tensor | None) -> None:
        """Rates and log retentions of tokens."""
        if rate is not None:
            self.add(memory, "rate", rate.sum(), rate.numel())
        if keep is not None:
            self.add(memory, "retain", keep.exp().sum(), keep.numel())

    def means(self) -> dict[str, dict[str, float]]:
        """{memory: {quantity: number}}"""
        return {memory: dict(self._means(kinds)) for memory, kinds in self.found.items()}

    def _means(self, kinds: Mapping[str, list[tuple[Tensor | float, int]]]) -> Iterator[tuple[str, float]]:
        for quantity, sums in kinds.items():
            mean = sum(float(total) for total, _ in sums) / sum(count for _, count in sums)
            if quantity in SQUARES:
                yield quantity, math.sqrt(mean) if mean >= 0 else math.nan
            elif quantity != ONCE:
                yield quantity, mean
            elif "rate" not in kinds:
                yield "rate", mean


class Watched:
    """Who is watching: None, as a rule."""

    by: Watch | None = None


@contextmanager
def watch() -> Iterator[Watch]:
    """Everything that memories do in this block is seen."""
    before, Watched.by = Watched.by, Watch()
    try:
        yield Watched.by
    finally:
        Watched.by = before


@contextmanager
def unwatched() -> Iterator[None]:
    """What memories do in this block they do again."""
    before, Watched.by = Watched.by, None
    try:
        yield
    finally:
        Watched.by = before


def begin() -> None:
    """Watch from here on, until `end`."""
    Watched.by = Watch()


def end() -> Watch:
    """What was seen since `begin`: nothing, where nobody watched."""
    seen, Watched.by = Watched.by or Watch(), None
    return seen


def squared(x: Tensor) -> Tensor:
    """Of vectors along the last axis; in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x.detach(), dim=-1, dtype=dtype).square()
