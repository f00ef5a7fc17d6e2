"""The inputs of layers, for update rules that look at them: the sum of x x^T over every token a weight multiplies.

    with summed([W, ...]) as sums:
        model.loss(x_BT, y_BT)
    sums[id(W)]      (in, in), or (heads, in, in) where each head has its own weight

`linear` and the forms of memories hand in what they multiply; a backward pass that multiplies again does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from runtime.precision import exact


class Summed:
    """Where the sums are kept, by the weight: None, as a rule."""

    by: dict[int, Tensor] | None = None


@contextmanager
def summed(weights: Iterable[Tensor]) -> Iterator[dict[int, Tensor]]:
    """The sums of these weights, float32 at least, over what this block multiplies."""
    before, sums = Summed.by, dict(Summed.by or {})
    for W in weights:
        dtype = torch.promote_types(W.dtype, torch.float32)
        sums[id(W)] = W.new_zeros(*W.shape[:-2], W.shape[-1], W.shape[-1], dtype=dtype)
    Summed.by = sums
    try:
        yield sums
    finally:
        Summed.by = before


@contextmanager
def unseen() -> Iterator[None]:
    """What is multiplied in this block is multiplied again."""
    before, Summed.by = Summed.by, None
    try:
        yield
    finally:
        Summed.by = before


def seen(W: Tensor, x: Tensor) -> None:
    """x (B, T, in), or (B, T, heads, in), is multiplied by W."""
    if Summed.by is None or id(W) not in Summed.by:
        return
    total = Summed.by[id(W)]
    with torch.no_grad(), exact(x):
        rows = x.detach().to(total.dtype)
        rows = rows.flatten(0, -2) if total.dim() == 2 else rows.flatten(0, -3).transpose(0, 1)
        total += rows.mT @ rows
