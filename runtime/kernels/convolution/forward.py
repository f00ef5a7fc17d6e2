"""Forward: every program BT tokens of one head, or of BK channels where no norm binds them."""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.rows import activated, norm_scale
from runtime.kernels.tiles import SIZES


@triton.jit
def tap(x, past, first, T, D: tl.constexpr, channel, here, J: tl.constexpr, TAPS: tl.constexpr, BT: tl.constexpr):
    """What tap J meets at BT tokens from `first` on, those before the first in what is remembered.

    x, past: at the sequence's first token and the first of the remembered
    """
    t = tl.arange(0, BT) + J - (TAPS - 1)
    at = x + first.to(tl.int64) * D + t[:, None] * D + channel[None, :]
    inside = (first + t >= 0) & (first + t < T)
    rows = tl.load(at, mask=inside[:, None] & here[None, :], other=0.0)
    if first < TAPS - 1:
        before = first + t < 0
        at = past + (first + t + TAPS - 1)[:, None] * D + channel[None, :]
        rows += tl.load(at, mask=before[:, None] & here[None, :], other=0.0)
    return rows


@triton.jit
def convolved(x, past, w_CD, first, T, D: tl.constexpr, channel, here, TAPS: tl.constexpr, BT: tl.constexpr):
    """sum_j w_j x_{t - C + 1 + j}."""
    z = tap(x, past, first, T, D, channel, here, 0, TAPS, BT) * tl.load(w_CD + channel, mask=here, other=0.0)[None, :]
    for j in tl.static_range(1, TAPS):
        w = tl.load(w_CD + j * D + channel, mask=here, other=0.0)
        z += tap(x, past, first, T, D, channel, here, j, TAPS, BT) * w[None, :]
    return z


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x_BTD, w_CD, past_BCD, gain_K, y_BTD,
    T,
    D: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BT: tl.constexpr,
    TAPS: tl.constexpr, ACT: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """K: channels of a head, over which a norm goes."""
    first = tl.program_id(0) * BT
    b = tl.program_id(2).to(tl.int64)
    j = tl.arange(0, BK)
    channel = tl.program_id(1) * K + j
    here = (j < K) & (channel < D)
    z = convolved(x_BTD + b * T * D, past_BCD + b * (TAPS - 1) * D, w_CD, first, T, D, channel, here, TAPS, BT)
    y = activated(z, ACT)
    if NORM > 0:
        y *= norm_scale(y, K, NORM)[:, None]
    if NORM == 2:
        y *= tl.load(gain_K + j, mask=here, other=0.0)[None, :]
    t = tl.arange(0, BT)
    at = y_BTD + (b * T + first) * D + t[:, None] * D + channel[None, :]
    tl.store(at, y, mask=(first + t < T)[:, None] & here[None, :])
