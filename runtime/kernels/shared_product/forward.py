"""Forward: one program for each head and sequence, chunk after chunk; only the P of every chunk is stored."""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.shared_product.chunk import (
    factors,
    identity,
    keep_of,
    load_row,
    rate_of,
    unit,
)
from runtime.kernels.tiles import (
    SIZES,
    decay_before,
    invert,
    load_rows,
    load_tokens,
    prefetch_tokens,
    product,
    store_rows,
)


@triton.jit
def flow(
    Y, W, given_rate, given_keep, H, count, rate_scale, rate_shift, keep_shift,
    K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    KEY: tl.constexpr, VALUE: tl.constexpr, RATE: tl.constexpr, KEEP: tl.constexpr,
    UNIT_VALUE: tl.constexpr, RATE_KIND: tl.constexpr, KEEP_KIND: tl.constexpr, DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Key, value, rate, log retention and the two norms' factors of C tokens; from `count` on they write nothing.

    W: the rows that are read; given_rate, given_keep: at the chunk's first token
    """
    s = tl.arange(0, C)
    k, k_scale = unit(product(Y, tl.trans(load_rows(W + KEY * K, K, K, BK, BK)), DT, IP))
    v = product(Y, tl.trans(load_rows(W + VALUE * K, K, K, BK, BK)), DT, IP)
    v_scale = k_scale
    if UNIT_VALUE:
        v, v_scale = unit(v)
    if RATE_KIND == 0:
        e = tl.load(given_rate + s * H, mask=s < count, other=0.0).to(tl.float32)
    else:
        e = rate_of(tl.sum(Y * load_row(W, RATE, K, BK).to(tl.float32)[None, :], 1), rate_scale, rate_shift, RATE_KIND)
    l = tl.zeros_like(e)
    if KEEP_KIND == 1:
        l = tl.maximum(tl.load(given_keep + s * H, mask=s < count, other=0.0).to(tl.float32), -30.0)
    elif KEEP_KIND == 2:
        l = keep_of(tl.sum(Y * load_row(W, KEEP, K, BK).to(tl.float32)[None, :], 1), keep_shift)
    return k, v, tl.where(s < count, e, 0.0), tl.where(s < count, l, 0.0), k_scale, v_scale


@triton.jit
def written(
    P, k, v, e, l,
    C: tl.constexpr, ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, TO_START: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr, HT: tl.constexpr, TP: tl.constexpr,
):  # fmt: skip
    """L^T and -diag(r) K, operands of products in DT already; (I + N)^-1, K K^T * D and gamma.

    The triangular system is formed in HT and its right-hand sides, which may be tiny, are multiplied in TP.  Where keys
    repeat and rates are near 1, a token's row is what is left of the difference of two before it: to round those to
    bfloat16 is to write the rounding, at every token alike.
    """
    c = tl.cumsum(l, 0)
    total = tl.sum(l, 0)
    at_state, at_start = factors(l, tl.exp(c - l), ERASE, L2, KEPT)
    L = product(e[:, None] * (at_state[:, None] * k - v), tl.trans(P), DT, IP)
    if TO_START:
        L += (e * at_start)[:, None] * k
    k_lost = (k * -tl.exp(total - c)[:, None]).to(DT)
    gram = tl.zeros([C, C], tl.float32)
    inverse = L
    if ERASE:
        gram = product(k, tl.trans(k), HT, IP) * decay_before(c - l, c, C)
        inverse = invert(e[:, None] * gram, C, HT, IP)
        L = product(inverse, L, tl.float32, TP)
    return L.to(DT), k_lost, inverse, gram, tl.exp(total)


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x_BTHK, W_HBRK, given_rate, given_keep, P_NHBKK,
    T, N, H, B, per, rate_scale, rate_shift, keep_shift,
    R: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    C: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, RATE: tl.constexpr, KEEP: tl.constexpr,
    ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, TO_START: tl.constexpr,
    UNIT_VALUE: tl.constexpr, RATE_KIND: tl.constexpr, KEEP_KIND: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr, HT: tl.constexpr, TP: tl.constexpr,
    FRESH: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """per: sequences that share rows of W; all of them, or each its own.  FRESH: the first P is the identity, and else
    given.  AHEAD: the cache the next x is brought to."""
    g = tl.program_id(0)
    token = (g % B).to(tl.int64) * T * H + g // B
    W = W_HBRK + (g // per).to(tl.int64) * (R * K)
    at = P_NHBKK + g.to(tl.int64) * (K * K)
    if FRESH:
        P = identity(K, BK)
        store_rows(at, P, K, K, BK, BK)
        tl.debug_barrier()
    else:
        P = load_rows(at, K, K, BK, BK)
    for n in range(N):
        count = T - n * C
        Y = product(load_tokens(x_BTHK + token * K, count, H, K, C, BK), tl.trans(P), DT, IP)
        k, v, e, l, _, _ = flow(
            Y, W, given_rate + token, given_keep + token, H, count, rate_scale, rate_shift, keep_shift,
            K, BK, C, KEY, VALUE, RATE, KEEP, UNIT_VALUE, RATE_KIND, KEEP_KIND, DT, IP,
        )  # fmt: skip
        L, k_lost, _, _, gamma = written(P, k, v, e, l, C, ERASE, L2, KEPT, TO_START, DT, IP, HT, TP)
        if AHEAD > 0 and n < N - 2:  # the last may be unfinished
            prefetch_tokens(x_BTHK + (token + C * H) * K, H, K, C, AHEAD)
        P = load_rows(at, K, K, BK, BK)  # again, rather than hold it: the inverse takes the registers
        P = gamma * P + product(tl.trans(L), k_lost, DT, IP)
        if TO_START:
            P += (1.0 - gamma) * identity(K, BK)
        at += (H * B).to(tl.int64) * (K * K)
        store_rows(at, P, K, K, BK, BK)
        tl.debug_barrier()  # another thread may load what this one stores
        token += C * H
