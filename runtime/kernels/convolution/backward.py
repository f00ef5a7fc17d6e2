"""Backward: to what the taps gave, with the gradients of taps and gain; then through the taps to tokens.

The gradient of a token is made of those of the tokens that its taps meet, of which some are another program's: so the
first kernel leaves dz, and the second goes on from there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.convolution.forward import convolved, tap
from runtime.kernels.rows import activated, activation_slope, norm_gradient, norm_scale
from runtime.kernels.tiles import SIZES


@triton.jit(do_not_specialize=SIZES)
def slope_kernel(
    x_BTD, w_CD, past_BCD, gain_K, g_BTD, dz_BTD, dw_BNCD, dgain_BND,
    T,
    D: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BT: tl.constexpr,
    TAPS: tl.constexpr, ACT: tl.constexpr, NORM: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """dw_BNCD, dgain_BND: a sum over the tokens of every program.  WEIGHTS: they are wanted."""
    n = tl.program_id(0)
    first = n * BT
    b = tl.program_id(2).to(tl.int64)
    j = tl.arange(0, BK)
    channel = tl.program_id(1) * K + j
    here = (j < K) & (channel < D)
    x, past = x_BTD + b * T * D, past_BCD + b * (TAPS - 1) * D
    t = tl.arange(0, BT)
    there = (first + t < T)[:, None] & here[None, :]
    at = (b * T + first) * D + t[:, None] * D + channel[None, :]
    dz = tl.load(g_BTD + at, mask=there, other=0.0)
    part = b * tl.num_programs(0) + n
    if ACT > 0 or NORM > 0:
        z = convolved(x, past, w_CD, first, T, D, channel, here, TAPS, BT)
        if NORM > 0:
            a = activated(z, ACT)
            scale = norm_scale(a, K, NORM)
            if NORM == 2:
                if WEIGHTS:
                    tl.store(dgain_BND + part * D + channel, tl.sum(dz * a * scale[:, None], 0), mask=here)
                dz *= tl.load(gain_K + j, mask=here, other=0.0)[None, :]
            dz = norm_gradient(dz, a, scale, K, NORM)
        dz *= activation_slope(z, ACT)
        tl.store(dz_BTD + at, dz, mask=there)
    if WEIGHTS:
        for i in tl.static_range(0, TAPS):
            dw = tl.sum(dz * tap(x, past, first, T, D, channel, here, i, TAPS, BT), 0)
            tl.store(dw_BNCD + (part * TAPS + i) * D + channel, dw, mask=here)


@triton.jit
def through_taps(dz, w_CD, first, T, D: tl.constexpr, channel, here, TAPS: tl.constexpr, BT: tl.constexpr):
    """sum_j w_j dz_{t + C - 1 - j} of BT tokens; dz: at the sequence's first token."""
    dx = tl.zeros([BT, channel.shape[0]], tl.float32)
    for j in tl.static_range(0, TAPS):
        t = first + tl.arange(0, BT) + (TAPS - 1 - j)
        at = dz + t.to(tl.int64)[:, None] * D + channel[None, :]
        w = tl.load(w_CD + j * D + channel, mask=here, other=0.0)
        dx += tl.load(at, mask=((t >= 0) & (t < T))[:, None] & here[None, :], other=0.0) * w[None, :]
    return dx


@triton.jit(do_not_specialize=SIZES)
def token_kernel(
    dz_BTD, w_CD, dx_BTD, dpast_BCD,
    T,
    D: tl.constexpr, BK: tl.constexpr, BT: tl.constexpr, TAPS: tl.constexpr, PAST: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """PAST: the gradient of what is remembered is wanted; BP: room for its tokens."""
    first = tl.program_id(0) * BT
    b = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BK + tl.arange(0, BK)
    here = channel < D
    dz = dz_BTD + b * T * D
    t = tl.arange(0, BT)
    at = dx_BTD + (b * T + first) * D + t[:, None] * D + channel[None, :]
    dx = through_taps(dz, w_CD, first, T, D, channel, here, TAPS, BT)
    tl.store(at, dx, mask=(first + t < T)[:, None] & here[None, :])
    if PAST and first == 0:
        i = tl.arange(0, BP)
        past = dpast_BCD + b * (TAPS - 1) * D + i[:, None] * D + channel[None, :]
        dpast = through_taps(dz, w_CD, 1 - TAPS, T, D, channel, here, TAPS, BP)
        tl.store(past, dpast, mask=(i < TAPS - 1)[:, None] & here[None, :])
