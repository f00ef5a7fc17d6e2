"""A gated norm on a GPU: the kernels, joined to autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runtime.kernels.gated_norm.launch import backward, forward


class KernelGatedNorm(torch.autograd.Function):
    """apply(ordinary, act, x (..., K), gain (K), z (..., K)) -> rmsnorm(x) * gain * act(z).

    All are dense.  ordinary(x, gain, z): the same by ordinary operations, for derivatives of higher order.
    """

    @staticmethod
    def forward(ctx: Any, ordinary: Callable[..., Tensor], act: int, x: Tensor, gain: Tensor, z: Tensor) -> Tensor:
        ctx.ordinary, ctx.act = ordinary, act
        ctx.save_for_backward(x, gain, z)
        return forward(x, gain, z, act)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, gain, z = ctx.saved_tensors
        if torch.is_grad_enabled():
            own = [y.view_as(y) for y in (x, gain, z)]
            wanted = [y for y in own if y.requires_grad]
            found = iter(torch.autograd.grad(ctx.ordinary(*own), wanted, g, create_graph=True, allow_unused=True))
            return None, None, *(next(found) if y.requires_grad else None for y in own)
        return None, None, *backward(g.contiguous(), x, gain, z, ctx.act)
