"""What the kernels of every recurrence do with tiles: dense matrices, a head's tokens, products, triangular inverses.

Tiles are (C tokens, K) with K padded to BK, in float32; the operands of a product are cast to DT.  IP is the precision
of products of float32 operands.  HT is the type of the operands of the triangular inverse, float16 or float32: numbers
near 1, which float16 rounds as TF32 does, but for half the bytes and without moving them between threads.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Integers that a kernel takes are no constants: Triton would make one of any 1, and compile again for it.
SIZES = ("T", "N", "H", "B", "G", "per", "share")


@triton.jit
def product(a, b, DT: tl.constexpr, IP: tl.constexpr):
    return tl.dot(a.to(DT), b.to(DT), input_precision=IP)


@triton.jit
def load_rows(matrix, ROWS: tl.constexpr, K: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr):
    """A dense (ROWS, K) matrix, padded with zeros to (BR, BK)."""
    i = tl.arange(0, BR)[:, None]
    j = tl.arange(0, BK)[None, :]
    if ROWS == BR and K == BK:
        return tl.load(matrix + i * K + j)
    else:
        return tl.load(matrix + i * K + j, mask=(i < ROWS) & (j < K), other=0.0)


@triton.jit
def store_rows(matrix, value, ROWS: tl.constexpr, K: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr):
    i = tl.arange(0, BR)[:, None]
    j = tl.arange(0, BK)[None, :]
    if ROWS == BR and K == BK:
        tl.store(matrix + i * K + j, value)
    else:
        tl.store(matrix + i * K + j, value, mask=(i < ROWS) & (j < K))


@triton.jit
def load_tokens(x, count, H, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr):
    """One head's tokens, (C, BK), of (T, H, K); zeros from `count` on."""
    s = tl.arange(0, C)[:, None]
    j = tl.arange(0, BK)[None, :]
    return tl.load(x + s * (H * K) + j, mask=(s < count) & (j < K), other=0.0)


@triton.jit
def store_tokens(y, value, count, H, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr):
    s = tl.arange(0, C)[:, None]
    j = tl.arange(0, BK)[None, :]
    tl.store(y + s * (H * K) + j, value, mask=(s < count) & (j < K))


@triton.jit
def prefetch(x, COUNT: tl.constexpr, PADDED: tl.constexpr, CACHE: tl.constexpr):
    """Bring COUNT numbers from x on to the L1 or L2 cache, a line of 128 bytes at a time; PADDED: a power of two."""
    LINE: tl.constexpr = 1024 // x.dtype.element_ty.primitive_bitwidth
    fetch(x + tl.minimum(tl.arange(0, PADDED // LINE) * LINE, COUNT - 1), CACHE)


@triton.jit
def prefetch_tokens(x, H, K: tl.constexpr, C: tl.constexpr, CACHE: tl.constexpr):
    """The same of one head's C tokens of (T, H, K)."""
    LINE: tl.constexpr = 1024 // x.dtype.element_ty.primitive_bitwidth
    for first in tl.static_range(0, K, LINE):
        fetch(x + tl.arange(0, C) * (H * K) + first, CACHE)


@triton.jit
def fetch(lines, CACHE: tl.constexpr):
    if CACHE == 1:
        tl.inline_asm_elementwise(
            "prefetch.global.L1 [$1]; mov.u32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
        )
    else:
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def invert(N, C: tl.constexpr, HT: tl.constexpr, IP: tl.constexpr):
    """(I + N)^-1 of a strictly lower triangular N (C, C): blocks of two at once, then ever larger ones merged.

    [[A, 0], [N21, D]]^-1 = [[A^-1, 0], [-D^-1 N21 A^-1, D^-1]].  A power series over C instead loses everything where
    keys repeat and rates are near 1.
    """
    i = tl.arange(0, C)[:, None]
    j = tl.arange(0, C)[None, :]
    X = tl.where(i == j, 1.0, 0.0) - tl.where(i // 2 == j // 2, N, 0.0)
    for level in tl.static_range(1, 6):
        if (1 << level) < C:
            border = (i >> (level + 1) == j >> (level + 1)) & (i >> level != j >> level)
            X -= product(product(X, tl.where(border, N, 0.0), HT, IP), X, HT, IP)
    return X


@triton.jit
def decay_before(b, c, C: tl.constexpr):
    """D_ts = exp(b_t - c_s) for s < t, else 0."""
    i = tl.arange(0, C)[:, None]
    j = tl.arange(0, C)[None, :]
    return tl.exp(tl.where(i > j, b[:, None] - c[None, :], float("-inf")))
