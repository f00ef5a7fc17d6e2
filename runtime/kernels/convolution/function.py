"""A short convolution and what follows of it on a GPU: the kernels, joined to autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runtime.kernels.convolution.launch import forward, slope, token
from runtime.ops.history import Past


class KernelConvolution(torch.autograd.Function):
    """apply(ordinary, heads, act, norm, x (B, T, D), w (C, D), past (B, C - 1, D), gain (K) or None) -> (B, T, D).

    All are dense.  ordinary(x, w, past, gain): the same by ordinary operations, for derivatives of higher order.  A
    token's own error passes the last tap only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        ordinary: Callable[..., Tensor],
        heads: int,
        act: int,
        norm: int,
        x: Tensor,
        w: Tensor,
        past: Tensor,
        gain: Tensor | None,
    ) -> Tensor:
        ctx.ordinary, ctx.call = ordinary, (heads, act, norm)
        ctx.save_for_backward(x, w, past, gain)
        return forward(x, w, past, gain, heads, act, norm)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        none = (None,) * 4
        if torch.is_grad_enabled():
            own = [x if x is None else x.view_as(x) for x in ctx.saved_tensors]
            wanted = [x for x in own if x is not None and x.requires_grad]
            found = iter(torch.autograd.grad(ctx.ordinary(*own), wanted, g, create_graph=True, allow_unused=True))
            return *none, *(next(found) if x is not None and x.requires_grad else None for x in own)
        x, w, past, gain = ctx.saved_tensors
        g, follows = g.contiguous(), any(ctx.call[1:])
        if Past.closed:
            dz = slope(g, x, w, past, gain, *ctx.call, False)[0] if follows else g
            return *none, dz * w[-1], None, None, None
        dz, dw, dgain = slope(g, x, w, past, gain, *ctx.call, True)
        dz = dz if follows else g
        dx, dpast = token(dz, w, ctx.needs_input_grad[6])
        return *none, dx, dw, dpast if ctx.needs_input_grad[6] else None, None if gain is None else dgain
