"""What kernels do with rows of numbers: activations, norms over a row, and their gradients.  Tiles (rows, BK), float32.

ACT is a place in ACTS, NORM one in NORMS.
"""

from __future__ import annotations

import triton
import triton.language as tl

ACTS = ("", "silu", "sigmoid", "gelu")
NORMS = ("", "l2norm", "rmsnorm")


@triton.jit
def activated(z, ACT: tl.constexpr):
    if ACT == 1:
        return z * tl.sigmoid(z)
    elif ACT == 2:
        return tl.sigmoid(z)
    elif ACT == 3:
        return 0.5 * z * (1.0 + tl.math.erf(z * 0.7071067811865476))
    else:
        return z


@triton.jit
def activation_slope(z, ACT: tl.constexpr):
    if ACT == 1:
        s = tl.sigmoid(z)
        return s * (1.0 + z * (1.0 - s))
    elif ACT == 2:
        s = tl.sigmoid(z)
        return s * (1.0 - s)
    elif ACT == 3:
        density = 0.3989422804014327 * tl.exp(-0.5 * z * z)
        return 0.5 * (1.0 + tl.math.erf(z * 0.7071067811865476)) + z * density
    else:
        return tl.zeros_like(z) + 1.0


@triton.jit
def norm_scale(a, K: tl.constexpr, NORM: tl.constexpr):
    """What a norm multiplies every row by: 1 / max(|a|, 1e-6), or 1 / sqrt(mean(a^2) + 1e-5)."""
    squares = tl.sum(a * a, 1)
    if NORM == 1:
        return 1.0 / tl.maximum(tl.sqrt(squares), 1e-6)
    else:
        return 1.0 / tl.sqrt(squares / K + 1e-5)


@triton.jit
def norm_gradient(g, a, scale, K: tl.constexpr, NORM: tl.constexpr):
    """Of a, from that of a * scale."""
    along = tl.sum(g * a, 1) * scale * scale
    if NORM == 1:
        along = tl.where(scale < 1e6, along, 0.0)
    else:
        along = along / K
    return (g - a * along[:, None]) * scale[:, None]
