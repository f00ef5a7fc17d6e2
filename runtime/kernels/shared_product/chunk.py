"""What every kernel does with one chunk: norms, gates and factors of its tokens.  The letters are README.md's."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_row(matrix, row, K: tl.constexpr, BK: tl.constexpr):
    j = tl.arange(0, BK)
    return tl.load(matrix + row * K + j, mask=j < K, other=0.0)


@triton.jit
def store_row(matrix, value, row, K: tl.constexpr, BK: tl.constexpr):
    j = tl.arange(0, BK)
    tl.store(matrix + row * K + j, value, mask=j < K)


@triton.jit
def identity(K: tl.constexpr, BK: tl.constexpr):
    i = tl.arange(0, BK)[:, None]
    return tl.where((i == tl.arange(0, BK)[None, :]) & (i < K), 1.0, 0.0)


@triton.jit
def unit(z):
    """z / max(|z|, 1e-6) of every row, and that factor."""
    scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(z * z, 1)), 1e-6)
    return z * scale[:, None], scale


@triton.jit
def unit_gradient(g, y, scale):
    along = tl.where(scale < 1e6, tl.sum(y * g, 1), 0.0)
    return (g - y * along[:, None]) * scale[:, None]


@triton.jit
def log1p_exp(x):
    """log(1 + e^x) for x <= 0, to the last digit: the rounding of 1 + w is divided out."""
    w = tl.exp(x)
    u = 1.0 + w
    d = u - 1.0
    return tl.where(d == 0.0, w, tl.log(u) * (w / tl.where(d == 0.0, 1.0, d)))


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p_exp(-tl.abs(x))


@triton.jit
def rate_of(z, scale, shift, KIND: tl.constexpr):
    if KIND == 1:
        return scale * tl.sigmoid(z + shift)
    else:
        return scale * softplus(z + shift)


@triton.jit
def rate_gradient(g, rate, scale, KIND: tl.constexpr):
    """Of the rate's argument, from the rate alone."""
    y = rate / scale
    if KIND == 1:
        return g * scale * y * (1.0 - y)
    else:
        return g * scale * (1.0 - tl.exp(-y))


@triton.jit
def keep_of(z, shift):
    """Log retention, no smaller than e^-30 keeps."""
    return tl.maximum(-softplus(-(z + shift)), -30.0)


@triton.jit
def factors(l, p, ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr):
    """What multiplies e K in B and B_0."""
    at_state = tl.zeros_like(l)
    at_start = tl.zeros_like(l)
    if ERASE:
        at_state += p
        at_start += 1.0 - p
    if L2:
        a = tl.exp(l)
        at_state += a if KEPT else 1.0
        at_start += (1.0 - a) if KEPT else 0.0
    return at_state, at_start
