"""A short causal convolution with the activation, heads and norm that follow it: on a GPU one kernel for all.

Of a value of D channels, eager operations read and write some eighty bytes forward for each number: a copy behind what
is remembered, a pass for every tap, the activation, the norm.  A kernel reads four and writes four.

    B batch, T tokens, D channels, H heads, K = D / H, C taps
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.kernels.convolution.choose import chosen
from runtime.ops.basic import causal_conv, l2norm, rmsnorm

ACTS, NORMS = ("", "silu"), ("", "l2norm", "rmsnorm")  # as the kernels number them


def convolution(
    x: Tensor,
    w: Tensor,
    history: Tensor,
    act: str = "",
    heads: int = 0,
    norm: str = "",
    gain: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """norm(heads(act(causal_conv(x)))), and the history for the next call.

    x (B, T, D); w (C, D); history (B, C - 1, D), zeros when fresh.  act: of ACTS.  heads: 0 leaves the channels in one
    axis.  norm: of NORMS, over the last axis; gain (K,) of rmsnorm.  Returns (B, T, D) or (B, T, H, K).
    """
    width = x.shape[-1] // (heads or 1) if norm else 0
    if not chosen(x, w, width):
        y, history = causal_conv(x, w, history)
        return followed(y, act, heads, norm, gain), history
    from runtime.kernels.convolution.function import KernelConvolution

    call = (heads or 1, ACTS.index(act), NORMS.index(norm))
    ordinary = partial(flat, act=act, heads=heads, norm=norm)
    y = KernelConvolution.apply(ordinary, *call, x.contiguous(), w.contiguous(), history.contiguous(), gain)
    return (y.unflatten(-1, (heads, -1)) if heads else y), remembered(x, history)


def followed(y: Tensor, act: str, heads: int, norm: str, gain: Tensor | None) -> Tensor:
    y = F.silu(y) if act else y
    y = y.unflatten(-1, (heads, -1)) if heads else y
    if norm == "l2norm":
        return l2norm(y)
    return rmsnorm(y, gain) if norm else y


def flat(x: Tensor, w: Tensor, history: Tensor, gain: Tensor | None, act: str, heads: int, norm: str) -> Tensor:
    """The value alone, (B, T, D)."""
    y = followed(causal_conv(x, w, history)[0], act, heads, norm, gain)
    return y.flatten(2) if heads else y


def remembered(x: Tensor, history: Tensor) -> Tensor:
    """The last C - 1 tokens."""
    past = history.shape[1]
    return x[:, x.shape[1] - past :] if x.shape[1] >= past else torch.cat((history, x), 1)[:, x.shape[1] :]
