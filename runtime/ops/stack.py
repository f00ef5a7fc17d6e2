"""How `shared_product` lays out its work: tokens cut into chunks, heads first, reads handed to the flow.

H heads, B batch, T tokens, N chunks, C tokens of a chunk, K width.  Heads come first inside, for all sequences of a
head may then be read in one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.product import Kind

Tensors = tuple[Tensor, ...]
Size = tuple[int, int]  # chunks, tokens of each
NUMBERS = 2**18  # of a tensor, up to which a processor computes chunks at once: fewer calls, and all in its cache
Flow = Callable[[Tensors, Tensors, Tensors], tuple[Tensor, Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Layout:
    """What a call computes.  reads: of every query the rows of each box read with it, in the flow's order; extras: how
    many values of tokens the flow gets besides."""

    flow: Flow
    kind: Kind
    reads: tuple[tuple[int, ...], ...]
    extras: int

    def split(self, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensors, Tensors, Tensors]:
        """Rows that are read, queries, extras, weights."""
        q = len(self.reads)
        e = 2 * q + self.extras
        return tuple(inputs[:q]), tuple(inputs[q : 2 * q]), tuple(inputs[2 * q : e]), tuple(inputs[e:])

    def boxes(self, W: Sequence[Tensor]) -> list[list[Tensor]]:
        """Of every query the rows of each box, apart: views."""
        return [list(w.split(rows, 2)) for w, rows in zip(W, self.reads, strict=True)]

    def apart(self, zs: Sequence[Tensor]) -> list[Tensor]:
        """The boxes' reads from those with each query, (H, B, T, all rows)."""
        return [z for wide, rows in zip(zs, self.reads, strict=True) for z in wide.split(rows, -1)]

    def flowing(
        self, zs: Sequence[Tensor], extras: Tensors, weights: Tensors
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """k, v (H, B, T, K), rate, log retention (H, B, T) from the reads of the boxes, (H, B, T, rows) each."""
        k, v, rate, keep = self.flowing_by_token([z.permute(1, 2, 0, 3) for z in zs], extras, weights)
        return (
            k.permute(2, 0, 1, 3),
            v.permute(2, 0, 1, 3),
            rate.permute(2, 0, 1),
            None if keep is None else keep.permute(2, 0, 1),
        )

    def flowing_by_token(
        self, zs: Sequence[Tensor], extras: Tensors, weights: Tensors
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The same with heads after tokens: reads (B, T, H, rows); k, v (B, T, H, K), rate, log retention (B, T, H)."""
        k, v, rate, keep = self.flow(tuple(zs), extras, weights)
        shape = k.shape[:3]
        return k, v, rate.expand(shape), None if keep is None else keep.expand(shape)


def cut(T: int, chunk: int, phase: int) -> list[tuple[int, int]]:
    """(count, length) of the rest of a running chunk, the whole chunks, and the unfinished one."""
    head = min(T, -phase % chunk)
    whole, rest = divmod(T - head, chunk)
    return [(n, length) for n, length in ((1, head), (whole, chunk), (1, rest)) if n and length]


def at_once(x: Tensor, N: int) -> int:
    """How many of the N chunks of x are computed at once where none needs another's: on a GPU all."""
    return max(1, min(N, NUMBERS * N // max(1, x.numel()))) if x.device.type == "cpu" else N


def by_chunk(x: Tensor, size: Size) -> Tensor:
    """(B, T, H, K) to (N, H, B, C, K), dense; (B, T, H) to (N, H, B, C)."""
    B, _, H, *K = x.shape
    return x.reshape(B, *size, H, *K).permute(1, 3, 0, 2, *range(4, 4 + len(K))).contiguous()


def by_token(x: Tensor) -> Tensor:
    """(N, H, B, C, ...) to (B, T, H, ...)."""
    return x.movedim(0, 2).flatten(2, 3).movedim(0, 2)


def flat(x: Tensor) -> Tensor:
    """Leading axes of a stack of matrices as one."""
    return x.reshape(-1, *x.shape[-2:])


def read(Y: Tensor, W: Tensor) -> Tensor:
    """Y W^T: (H, B, C, I) by rows (H, 1 or B, R, I); rows that all sequences share are one product for all of them."""
    w = W.flatten(0, 1)
    return torch.bmm(Y.reshape(len(w), -1, Y.shape[-1]), w.mT).view(*Y.shape[:-1], W.shape[2])


def reads(Y: Tensor, W: Sequence[Tensor]) -> list[Tensor]:
    """`read` of every box: one product each, where all boxes' rows in one would have to be taken apart again."""
    return [read(Y, w) for w in W]


def reads_gradient(dzs: Sequence[Tensor], Y: Tensor, W: Sequence[Tensor], dW: Sequence[Tensor]) -> Tensor:
    """Gradient of Y from those of `reads`; that of every box's rows is added to its `dW`, (H or H B, rows, I)."""
    dY = None
    for dz, w, dw in zip(dzs, W, dW, strict=True):
        rows, w = dz.reshape(len(dw), -1, dz.shape[-1]), w.flatten(0, 1)
        dY = torch.bmm(rows, w) if dY is None else dY.baddbmm_(rows, w)
        dw.baddbmm_(rows.mT, Y.reshape(len(dw), -1, Y.shape[-1]))
    assert dY is not None
    return dY.view(Y.shape)
