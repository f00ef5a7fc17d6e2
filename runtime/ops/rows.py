"""Rows times a weight, x W^T, whose gradient of W lies in memory as W does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runtime.ops.history import Past
from runtime.precision import mixed


def by_weight(x: Tensor, W: Tensor) -> Tensor:
    """x W^T: (..., n, I) by (..., O, I), leading axes alike.

    Of a product of stacks autograd makes the gradient of W^T; seen as W's it lies across, and adding it to another one
    that does not takes as long as three to seven such products of 16 rows (1024 x 256, in float32).
    """
    alike = x.dtype == W.dtype and x.shape[:-2] == W.shape[:-2]
    if not (alike and W.requires_grad and W.stride(-1) == 1) or mixed(x):
        return x @ W.mT
    return ByWeight.apply(x, W, W.is_leaf or Past.made(W))


class ByWeight(torch.autograd.Function):
    """apply(x, W, past) -> x W^T.  past: no token's own error is asked for behind W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, past: bool) -> Tensor:
        ctx.save_for_backward(x, W)
        ctx.past = past
        return x @ W.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Of any order: ordinary operations."""
        x, W = ctx.saved_tensors
        on_x, on_W = ctx.needs_input_grad[:2]
        on_W = on_W and not (ctx.past and Past.closed)
        return g @ W if on_x else None, g.mT @ x if on_W else None, None
