"""What a box answers to queries at the first state of every chunk, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runtime.ops.history import Past
from runtime.ops.stack import Size, at_once, by_chunk
from runtime.precision import exact


class ReadChunks(torch.autograd.Function):
    """Reads of one box at every chunk's first state:  y = W P_c q.

    apply((N, C), q (B, N C, H, K), P (N, H, B, I, K), W (H, 1 or B, rows, I)) to (B, N C, H, rows).
    """

    @staticmethod
    def forward(ctx: Any, size: Size, q: Tensor, P: Tensor, W: Tensor) -> Tensor:
        ctx.size = size
        ctx.save_for_backward(q, P, W)
        return tokens(size, [read(X @ P[at].mT, W) for at, (X,) in groups(size, q)])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Of any order: ordinary operations."""
        with exact(g):
            return None, *ReadChunks.pulled(ctx.size, g, *ctx.saved_tensors)

    @staticmethod
    def pulled(size: Size, g: Tensor, q: Tensor, P: Tensor, W: Tensor) -> Any:
        if Past.closed:  # a token's own error ends here at the state
            return tokens(size, [read(dy, W.mT) @ P[at] for at, (dy,) in groups(size, g)]), None, None
        dq, dP, dW = [], [], []
        for at, (dy, X) in groups(size, g, q):
            dY = read(dy, W.mT)
            dW.append(read_gradient(dy, X @ P[at].mT, W))
            dP.append(dY.mT @ X)
            dq.append(dY @ P[at])
        return tokens(size, dq), along(0, dP), sum(dW[1:], dW[0])


def groups(size: Size, *xs: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Chunks that are computed at once, and the tokens of each tensor, (B, N C, H, ...), as (n, H, B, C, ...)."""
    N, C = size
    n = at_once(xs[0], N)
    for first in range(0, N, n):
        end = min(N, first + n)
        yield slice(first, end), [by_chunk(x[:, first * C : end * C], (end - first, C)) for x in xs]


def tokens(size: Size, parts: list[Tensor]) -> Tensor:
    """Groups of chunks (n, H, B, C, ...) as (B, N C, H, ...)."""
    return along(1, [x.permute(2, 0, 3, 1, 4) for x in parts]).flatten(1, 2)


def read(Y: Tensor, W: Tensor) -> Tensor:
    """Y W^T: (n, H, B, C, I) by rows (H, 1 or B, R, I).  Rows that all sequences share are copied for every chunk
    rather than what is read is gathered by head."""
    if W.shape[1] != 1:
        return Y @ W.mT
    return (Y.flatten(2, 3) @ W.squeeze(1).mT).unflatten(2, Y.shape[2:4])


def read_gradient(dz: Tensor, Y: Tensor, W: Tensor) -> Tensor:
    """Gradient of W from that of `read`."""
    if W.shape[1] != 1:
        return (dz.mT @ Y).sum(0)
    return (dz.flatten(2, 3).mT @ Y.flatten(2, 3)).sum(0).unsqueeze(1)


def joint(x: Tensor) -> Tensor:
    """(N, H, B, C, ...) to (H, B, N C, ...)."""
    return x.movedim(0, 2).flatten(2, 3)


def along(dim: int, parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
