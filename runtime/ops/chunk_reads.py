"""What a box answers to queries at the first state of every chunk, and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runtime.ops.history import Past
from runtime.ops.stack import read, read_gradient
from runtime.precision import exact


class ReadChunks(torch.autograd.Function):
    """Reads of one box at every chunk's first state:  y = W P_c q,  q (N, H, B, C, K), P (N, H, B, I, K), W (H, 1 or B,
    rows, I) to (N, H, B, C, rows).  On a processor a chunk at a time: what one needs stays in its cache."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, P: Tensor, W: Tensor) -> Tensor:
        ctx.save_for_backward(q, P, W)
        return along(0, [apart(read(joint(x @ Pc.mT), W), x) for x, Pc in together(q, P)])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Of any order: ordinary operations."""
        with exact(g):
            return ReadChunks.pulled(g, *ctx.saved_tensors)

    @staticmethod
    def pulled(g: Tensor, q: Tensor, P: Tensor, W: Tensor) -> Any:
        if Past.closed:  # a token's own error ends here at the state
            return along(0, [apart(read(joint(dy), W.mT), dy) @ Pc for dy, Pc in together(g, P)]), None, None
        dq, dP, dW = [], [], torch.zeros_like(W)
        for dy, x, Pc in together(g, q, P):
            dY, more = read_gradient(joint(dy), joint(x @ Pc.mT), W)
            dY = apart(dY, x)
            dq.append(dY @ Pc)
            dP.append(dY.mT @ x)
            dW = dW + more
        return along(0, dq), along(0, dP), dW


def together(*xs: Tensor) -> list[tuple[Tensor, ...]]:
    """Chunks that are computed at once: each alone on a processor, all of them elsewhere."""
    n = 1 if xs[0].device.type == "cpu" else max(len(xs[0]), 1)
    return list(zip(*(x.split(n) for x in xs), strict=True))


def joint(x: Tensor) -> Tensor:
    """(N, H, B, C, ...) to (H, B, N C, ...)."""
    return x.movedim(0, 2).flatten(2, 3)


def apart(x: Tensor, like: Tensor) -> Tensor:
    """(H, B, N C, ...) to (N, H, B, C, ...), as `like` has them."""
    return x.unflatten(2, (like.shape[0], like.shape[3])).movedim(2, 0)


def along(dim: int, parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
