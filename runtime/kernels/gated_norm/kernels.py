"""y = norm(x) * act(z) over rows of K numbers, forward and backward: every program some rows, again and again."""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.rows import activated, activation_slope, norm_gradient, norm_scale
from runtime.kernels.tiles import SIZES


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x_NK, gain_K, z_NK, y_NK, N,
    K: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    j = tl.arange(0, BK)[None, :]
    gain = tl.load(gain_K + j, mask=j < K, other=0.0)
    for first in range(tl.program_id(0) * BN, N, tl.num_programs(0) * BN):
        row = first + tl.arange(0, BN)[:, None]
        at, there = row.to(tl.int64) * K + j, (row < N) & (j < K)
        x = tl.load(x_NK + at, mask=there, other=0.0)
        z = tl.load(z_NK + at, mask=there, other=0.0)
        tl.store(y_NK + at, x * norm_scale(x, K, 2)[:, None] * gain * activated(z, ACT), mask=there)


@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    x_NK, gain_K, z_NK, g_NK, dx_NK, dz_NK, dgain_GK, N,
    K: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """dgain_GK: a sum over the rows of every program."""
    j = tl.arange(0, BK)[None, :]
    gain = tl.load(gain_K + j, mask=j < K, other=0.0)
    dgain = tl.zeros([BN, BK], tl.float32)
    for first in range(tl.program_id(0) * BN, N, tl.num_programs(0) * BN):
        row = first + tl.arange(0, BN)[:, None]
        at, there = row.to(tl.int64) * K + j, (row < N) & (j < K)
        x = tl.load(x_NK + at, mask=there, other=0.0)
        z = tl.load(z_NK + at, mask=there, other=0.0)
        g = tl.load(g_NK + at, mask=there, other=0.0)
        scale = norm_scale(x, K, 2)
        normal = x * scale[:, None]
        tl.store(dz_NK + at, g * normal * gain * activation_slope(z, ACT), mask=there)
        g *= activated(z, ACT)
        dgain += g * normal
        tl.store(dx_NK + at, norm_gradient(g * gain, x, scale, K, 2), mask=there)
    j = tl.arange(0, BK)
    tl.store(dgain_GK + tl.program_id(0) * K + j, tl.sum(dgain, 0), mask=j < K)
