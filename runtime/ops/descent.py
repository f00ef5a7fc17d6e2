"""The write of a rule that is plain descent, delta = -r G, in one pass over the state, and its gradient in few."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONG = 1 << 13  # numbers of a vector: a product of stacks takes three times as long as `dot` on the processor
PIECE = 1 << 12  # of a vector on a GPU, where a product of stacks gives each vector to one block of threads


def descended(W: Tensor, G: Tensor, r: Tensor, c: Tensor | None = None, S: Tensor | None = None) -> Tensor:
    """W' = c W [+ (1 - c) S] - r G.

    W, S (.., O, I), or (O, I) where all sequences share them; G (B, .., O, I), a vector likewise without I; the rate r
    and what is kept, c, are numbers or have an axis for each of G's.
    """
    return Descent.apply(W, G, r, c, S)


class Descent(torch.autograd.Function):
    """apply(W, G, r, c or None, S or None) -> W'.  Of any order: ordinary operations.

        dW = c dW',   dS = (1 - c) dW',   dG = -r dW',   dr = -<dW', G>,   dc = <dW', W - S>
    """  # fmt: skip

    @staticmethod
    def forward(ctx: Any, W: Tensor, G: Tensor, r: Tensor, c: Tensor | None, S: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        on_W, on_G, on_r, on_c, on_S = ctx.needs_input_grad
        ctx.shapes = [None if x is None else x.shape for x in (W, G, r, c, S)]
        ctx.save_for_backward(
            *((W, S) if on_c else (None, None)), G if on_r else None, r if on_G else None, c if on_W or on_S else None
        )
        if c is None:
            return torch.addcmul(W, G, r, value=-1)
        base = c * W if S is None else torch.lerp(S, W, c)
        return torch.addcmul(base, G, r, value=-1)

    @staticmethod
    def backward(ctx: Any, d: Tensor | None) -> Any:
        if d is None:
            return (None,) * 5
        on_W, on_G, on_r, on_c, on_S = ctx.needs_input_grad
        W, S, G, r, c = ctx.saved_tensors
        found = (
            (d if c is None else c * d) if on_W else None,
            -r * d if on_G else None,
            -along(d, G, ctx.shapes[2]) if on_r else None,
            d * (W if S is None else W - S) if on_c else None,
            (1 - c) * d if on_S else None,
        )
        return tuple(
            x if x is None or shape is None or x.shape == shape else x.sum_to_size(shape)
            for x, shape in zip(found, ctx.shapes, strict=True)
        )


def along(x: Tensor, y: Tensor, like: torch.Size) -> Tensor:
    """<x, y> in the shape `like` of a rate: over every axis that is 1 there, or is not there."""
    ones = next((i for i, n in enumerate(reversed(like)) if n != 1), x.dim())
    axes = min(ones, 2)  # those of a matrix in one product, without their entries' products in memory
    if not axes:
        return (x * y).sum_to_size(like)
    lead = y.shape[: y.dim() - axes]
    rows, columns = (z.reshape(lead.numel(), -1) for z in (x.expand_as(y), y))
    return inner(rows, columns).view(*lead, *(1,) * axes).sum_to_size(like)


def inner(rows: Tensor, columns: Tensor) -> Tensor:
    """<row, column> of each, (n, k) both: (n,)."""
    if rows.shape[1] < LONG:
        return (rows.unsqueeze(-2) @ columns.unsqueeze(-1)).flatten()
    if rows.is_cpu:
        return torch.stack([torch.dot(*pair) for pair in zip(rows.unbind(), columns.unbind(), strict=True)])
    return inner_of_pieces(rows, columns)


def inner_of_pieces(rows: Tensor, columns: Tensor) -> Tensor:
    """The same of long vectors on a GPU, a block of threads for each piece."""
    n, k = rows.shape
    if k % PIECE or not (rows.is_contiguous() and columns.is_contiguous()):
        return (rows * columns).sum(-1)
    return (rows.view(-1, 1, PIECE) @ columns.view(-1, PIECE, 1)).view(n, -1).sum(-1)
