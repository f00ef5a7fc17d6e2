"""The operators that launch the kernels: `nlc::convolution` and its backward.

They are opaque to autograd (function.py joins them) and transparent to `torch.compile`.

    B batch, T tokens, D channels, H heads, K = D / H, C taps
"""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from runtime.kernels.convolution.backward import slope_kernel, token_kernel
from runtime.kernels.convolution.configurations import CHANNELS, WARPS, tokens
from runtime.kernels.convolution.forward import forward_kernel
from runtime.kernels.operator import Built, operator


@cache
def built(kernel: str, D: int, K: int, taps: int, act: int, norm: int, more: int = 0) -> Built:
    """K: channels of a program.  more: of slope, whether gradients of weights are wanted; of token, of the past."""
    BK = int(triton.next_power_of_2(K))
    sizes = {"BK": BK, "BT": tokens(BK), "TAPS": taps}
    match kernel:
        case "forward":
            fixed = {"D": D, "K": K, **sizes, "ACT": act, "NORM": norm}
        case "slope":
            fixed = {"D": D, "K": K, **sizes, "ACT": act, "NORM": norm, "WEIGHTS": more}
        case _:
            fixed = {"D": D, **sizes, "PAST": more, "BP": int(triton.next_power_of_2(taps - 1))}
    return Built(fixed, WARPS)


def grid(built: Built, B: int, T: int) -> tuple[int, int, int]:
    sizes = built.constants
    return -(-T // sizes["BT"]), -(-sizes["D"] // sizes.get("K", sizes["BK"])), B


@operator("nlc::convolution")
def forward(x: Tensor, w: Tensor, past: Tensor, gain: Tensor | None, heads: int, act: int, norm: int) -> Tensor:
    """norm(act(convolution)) of every head, (B, T, D): x (B, T, D), w (C, D), past (B, C - 1, D), gain (K).

    act, norm: of rows.ACTS and rows.NORMS
    """
    B, T, D = x.shape
    y = torch.empty_like(x)
    one = built("forward", D, D // heads if norm else CHANNELS, len(w), act, norm)
    one.launch(forward_kernel, grid(one, B, T), x, w, past, w if gain is None else gain, y, T)
    return y


@operator("nlc::convolution_slope")
def slope(
    g: Tensor, x: Tensor, w: Tensor, past: Tensor, gain: Tensor | None, heads: int, act: int, norm: int, weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of what the taps gave (B, T, D), of the taps and of the gain, from that of the result.

    The first is empty where nothing follows the taps: it is g.  weights: the last two are wanted, and else empty
    """
    B, T, D = x.shape
    K = D // heads if norm else CHANNELS
    one = built("slope", D, K, len(w), act, norm, int(weights))
    size = grid(one, B, T)
    dz = torch.empty(x.shape if act or norm else 0, dtype=torch.float32, device=x.device)
    dw = torch.empty(B * size[0] if weights else 0, len(w), D, dtype=torch.float32, device=x.device)
    dgain = torch.empty(B * size[0] if weights and norm == 2 else 0, D, dtype=torch.float32, device=x.device)
    one.launch(slope_kernel, size, x, w, past, w if gain is None else gain, g, dz, dw, dgain, T)
    of_gain = dgain.view(-1, K).sum(0) if norm == 2 else dgain.sum(0)
    return dz, dw.sum(0), of_gain


@operator("nlc::convolution_token")
def token(dz: Tensor, w: Tensor, past: bool) -> tuple[Tensor, Tensor]:
    """Gradients of x (B, T, D) and, where wanted, of the past (B, C - 1, D)."""
    B, T, D = dz.shape
    dx = torch.empty_like(dz)
    dpast = torch.empty(B if past else 0, len(w) - 1, D, dtype=torch.float32, device=dz.device)
    one = built("token", D, CHANNELS, len(w), 0, 0, int(past))
    one.launch(token_kernel, grid(one, B, T), dz, w, dx, dpast, T)
    return dx, dpast
