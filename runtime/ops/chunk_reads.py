"""What a box answers to queries at the first state of every chunk, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from runtime.ops.history import Past
from runtime.ops.stack import read, read_gradient
from runtime.precision import exact


class ReadChunks(torch.autograd.Function):
    """Reads of one box at every chunk's first state:  y = W P_c q.

    apply((N, C), fresh, q (B, N C, H, K), P (N, H, B, I, K), W (H, 1 or B, rows, I)) to (B, N C, H, rows).  On a
    processor a chunk at a time: what one needs stays in its cache.  fresh: the first P is the identity, a constant.
    """

    @staticmethod
    def forward(ctx: Any, size: tuple[int, int], fresh: bool, q: Tensor, P: Tensor, W: Tensor) -> Tensor:
        ctx.size, ctx.fresh = size, fresh
        ctx.save_for_backward(q, P, W)
        out = q.new_empty(*q.shape[:-1], W.shape[-2])
        for at, tokens in groups(size, fresh, q):
            x = chunks(q, tokens, size)
            Y = x if fresh and not at.start else x @ P[at].mT
            chunks(out, tokens, size).copy_(apart(read(joint(Y), W), x))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Of any order: ordinary operations."""
        with exact(g):
            return None, None, *ReadChunks.pulled(ctx.size, ctx.fresh, g, *ctx.saved_tensors)

    @staticmethod
    def pulled(size: tuple[int, int], fresh: bool, g: Tensor, q: Tensor, P: Tensor, W: Tensor) -> Any:
        own = Past.closed  # a token's own error ends here at the state
        dq, dP, dW = [], [], torch.zeros_like(W)
        for at, tokens in groups(size, fresh, q):
            dy, x = chunks(g, tokens, size), chunks(q, tokens, size)
            identity = fresh and not at.start
            if own:
                dY = apart(read(joint(dy), W.mT), dy)
            else:
                rows, more = read_gradient(joint(dy), joint(x if identity else x @ P[at].mT), W)
                dY, dW = apart(rows, x), dW + more
                dP.append(torch.zeros_like(P[at]) if identity else dY.mT @ x)
            dq.append(by_token(dY if identity else dY @ P[at]))
        return along(1, dq), None if own else along(0, dP), None if own else dW


def groups(size: tuple[int, int], fresh: bool, x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Chunks that are computed at once, and their tokens: each alone on a processor, else all but a fresh first."""
    N, C = size
    firsts = range(N) if x.device.type == "cpu" else range(2 if fresh and N > 1 else 1)
    for first, end in zip(firsts, (*firsts[1:], N), strict=True):
        yield slice(first, end), slice(first * C, end * C)


def chunks(x: Tensor, tokens: slice, size: tuple[int, int]) -> Tensor:
    """Some chunks of (B, T, H, ...) as (n, H, B, C, ...): a view."""
    return x[:, tokens].unflatten(1, (-1, size[1])).permute(1, 3, 0, 2, 4)


def by_token(x: Tensor) -> Tensor:
    """(n, H, B, C, ...) as (B, n C, H, ...)."""
    return x.permute(2, 0, 3, 1, 4).flatten(1, 2)


def joint(x: Tensor) -> Tensor:
    """(N, H, B, C, ...) to (H, B, N C, ...)."""
    return x.movedim(0, 2).flatten(2, 3)


def apart(x: Tensor, like: Tensor) -> Tensor:
    """(H, B, N C, ...) to (N, H, B, C, ...), as `like` has them."""
    return x.unflatten(2, (like.shape[0], like.shape[3])).movedim(2, 0)


def along(dim: int, parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
