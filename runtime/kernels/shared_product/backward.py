"""Backward in three kernels: all chunks at once, then last chunk to first, then all chunks at once.

`prepare_kernel` makes again what a chunk's gradient needs, from its P; `chain_kernel` carries the gradient of P to the
beginning and leaves the gradients of the reads; `spread_kernel` takes those to the queries and the rows that are read.

What one leaves to the next is `work`, eight tiles a chunk, and `numbers`, eight a token: rate, log retention, its
running sum c, r, what multiplies e K in B and in B_0, the factors of the norms of key and value.
"""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.shared_product.chunk import factors, identity, load_row, rate_gradient, store_row, unit_gradient
from runtime.kernels.shared_product.forward import flow, written
from runtime.kernels.tiles import (
    SIZES,
    decay_before,
    load_rows,
    load_tokens,
    prefetch,
    prefetch_tokens,
    product,
    store_rows,
)

KEYS, VALUES, LS, MS, YS = (tl.constexpr(i) for i in range(5))  # tiles of `work`: MS is R^T after the chain
DKEYS, DVALUES, DYS = (tl.constexpr(i) for i in range(5, 8))  # gradients of z_key, z_value and Y


@triton.jit
def tile(work, AT: tl.constexpr, C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr):
    return load_rows(work + AT * C * K, C, K, C, BK)


@triton.jit
def leave(work, AT: tl.constexpr, value, C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr):
    store_rows(work + AT * C * K, value, C, K, C, BK)


@triton.jit(do_not_specialize=SIZES)
def prepare_kernel(
    x_BTHK, W_HBRK, given_rate, given_keep, P_NHBKK, work_GN8CK, gram_GNCC, numbers_GN8C,
    T, N, H, B, per, rate_scale, rate_shift, keep_shift,
    R: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    C: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, RATE: tl.constexpr, KEEP: tl.constexpr,
    ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, TO_START: tl.constexpr,
    UNIT_VALUE: tl.constexpr, RATE_KIND: tl.constexpr, KEEP_KIND: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr, HT: tl.constexpr, TP: tl.constexpr,
):  # fmt: skip
    """M = (I + N)^-T (-diag(r) K)."""
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g % B).to(tl.int64) * T * H + g // B + n.to(tl.int64) * C * H
    count = T - n * C
    P = load_rows(P_NHBKK + (n.to(tl.int64) * H * B + g) * (K * K), K, K, BK, BK)
    Y = product(load_tokens(x_BTHK + token * K, count, H, K, C, BK), tl.trans(P), DT, IP)
    k, v, e, l, k_scale, v_scale = flow(
        Y, W_HBRK + (g // per).to(tl.int64) * (R * K), given_rate + token, given_keep + token, H, count,
        rate_scale, rate_shift, keep_shift,
        K, BK, C, KEY, VALUE, RATE, KEEP, UNIT_VALUE, RATE_KIND, KEEP_KIND, DT, IP,
    )  # fmt: skip
    chunk = g.to(tl.int64) * N + n
    work = work_GN8CK + chunk * (8 * C * K)
    leave(work, YS, Y, C, K, BK)
    leave(work, KEYS, k, C, K, BK)
    leave(work, VALUES, v, C, K, BK)
    c = tl.cumsum(l, 0)
    at_state, at_start = factors(l, tl.exp(c - l), ERASE, L2, KEPT)
    numbers = numbers_GN8C + chunk * (8 * C) + tl.arange(0, C)
    tl.store(numbers, e)
    tl.store(numbers + C, l)
    tl.store(numbers + 2 * C, c)
    tl.store(numbers + 3 * C, tl.exp(tl.sum(l, 0) - c))
    tl.store(numbers + 4 * C, at_state)
    tl.store(numbers + 5 * C, at_start)
    tl.store(numbers + 6 * C, k_scale)
    tl.store(numbers + 7 * C, v_scale)
    L, M, inverse, gram, _ = written(P, k, v, e, l, C, ERASE, L2, KEPT, TO_START, DT, IP, HT, TP)
    if ERASE:
        M = product(tl.trans(inverse), M, tl.float32, TP)
        s = tl.arange(0, C)
        tl.store(gram_GNCC + chunk * (C * C) + s[:, None] * C + s[None, :], gram)
    leave(work, LS, L, C, K, BK)
    leave(work, MS, M, C, K, BK)


@triton.jit
def pull(
    work, gram_CC, numbers, P_KK, low,
    C: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    ERASE: tl.constexpr, TO_START: tl.constexpr, UNIT_VALUE: tl.constexpr, KEEPS: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """R^T and the gradients of the key, of rate and of log retention but for gamma's part (dc of the last token), from
    that of P after the chunk, an operand; that of the value's read is stored.

    runtime.ops.product.gradient, in an order that keeps few tiles alive: each is loaded where it is needed, and again
    rather than held.
    """
    e = tl.load(numbers)
    at_state, at_start = tl.load(numbers + 4 * C), tl.load(numbers + 5 * C)
    dk_lost = product(tile(work, LS, C, K, BK), low, DT, IP)
    dk = dk_lost * -tl.load(numbers + 3 * C)[:, None]
    rho = tl.sum(dk * tile(work, KEYS, C, K, BK).to(tl.float32), 1)
    Rt = product(tile(work, MS, C, K, BK), tl.trans(low), DT, IP)
    on_start = tl.zeros_like(e)
    if TO_START:
        on_start = tl.sum(Rt * tile(work, KEYS, C, K, BK).to(tl.float32), 1)
        dk += Rt * (e * at_start)[:, None]
    leave(work, MS, Rt, C, K, BK)
    tl.debug_barrier()
    later = tl.zeros_like(e)
    earlier = tl.zeros_like(e)
    de = tl.zeros_like(e)
    if ERASE:
        s = tl.arange(0, C)
        minus_dN = product(tile(work, MS, C, K, BK), tl.trans(tile(work, LS, C, K, BK)), DT, IP)
        on_gram = minus_dN * tl.load(gram_CC + s[:, None] * C + s[None, :]).to(tl.float32)
        by_row = tl.sum(on_gram, 1)
        de -= by_row
        later = e * by_row
        earlier = tl.sum(on_gram * e[:, None], 0)
        tl.debug_barrier()
        l, c = tl.load(numbers + C), tl.load(numbers + 2 * C)
        tl.store(gram_CC + s[:, None] * C + s[None, :], minus_dN * decay_before(c - l, c, C) * e[:, None])
        tl.debug_barrier()
        A = tl.load(gram_CC + s[:, None] * C + s[None, :])
        k = tile(work, KEYS, C, K, BK)
        dk -= product(A, k, DT, IP)
        dk -= product(tl.trans(A), k, DT, IP)
    dB = product(tile(work, MS, C, K, BK), load_rows(P_KK, K, K, BK, BK), DT, IP)
    v = tile(work, VALUES, C, K, BK).to(tl.float32)
    along = tl.sum(dB * v, 1)
    if UNIT_VALUE:  # unit_gradient of -e dB, whose sum along v is there already
        v_scale = tl.load(numbers + 7 * C)
        across = dB - v * tl.where(v_scale < 1e6, along, 0.0)[:, None]
        leave(work, DVALUES, across * (e * v_scale)[:, None], C, K, BK)
    else:
        leave(work, DVALUES, dB * e[:, None], C, K, BK)
    on_scale = tl.sum(dB * tile(work, KEYS, C, K, BK).to(tl.float32), 1)
    de += at_state * on_scale + at_start * on_start - along
    dk += dB * (e * at_state)[:, None]
    dc = tl.zeros_like(e)
    db = tl.zeros_like(e)
    if KEEPS:
        on_scale = (on_scale - on_start) * e
        dc = earlier - rho + tl.where(tl.arange(0, C) == C - 1, tl.sum(rho, 0), 0.0)
        if ERASE:
            db = tl.exp(tl.load(numbers + 2 * C) - tl.load(numbers + C)) * on_scale - later
    return dk, de, dc, db, on_scale


@triton.jit
def bring(
    x, P, work, gram, numbers, given, H,
    GIVEN: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr, ERASE: tl.constexpr, CACHE: tl.constexpr,
):  # fmt: skip
    """What a step of the chain loads, into a cache: it would otherwise wait for one after the other."""
    prefetch(work, 4 * C * K, 4 * C * BK, CACHE)
    prefetch(P, K * K, BK * BK, CACHE)
    prefetch(numbers, 8 * C, 8 * C, CACHE)
    prefetch_tokens(x, H, K, C, CACHE)
    if ERASE:
        prefetch(gram, C * C, C * C, CACHE)
    if GIVEN:
        prefetch(given, K * K, BK * BK, CACHE)


@triton.jit(do_not_specialize=SIZES)
def chain_kernel(
    x_BTHK, W_HBRK, P_NHBKK, work_GN8CK, gram_GNCC, numbers_GN8C, given_NHBKK, dP_HBKK, drate_BTH, dkeep_BTH,
    T, N, H, B, per, rate_scale,
    R: tl.constexpr, GIVEN: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    C: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, RATE: tl.constexpr, KEEP: tl.constexpr,
    ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, TO_START: tl.constexpr,
    UNIT_VALUE: tl.constexpr, RATE_KIND: tl.constexpr, KEEP_KIND: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """dP_HBKK holds the gradient of the P at hand: first of the last one, and then of the first.

    GIVEN: a gradient of every P comes in.  AHEAD: the cache to which the next chunk is brought."""
    g = tl.program_id(0)
    token = (g % B).to(tl.int64) * T * H + g // B + (N - 1).to(tl.int64) * C * H
    W = W_HBRK + (g // per).to(tl.int64) * (R * K)
    at = dP_HBKK + g.to(tl.int64) * (K * K)
    s = tl.arange(0, C)
    for back in range(N):
        n = N - 1 - back
        matrix = (n.to(tl.int64) * H * B + g) * (K * K)
        chunk = g.to(tl.int64) * N + n
        if AHEAD > 0 and n > 0:
            before, state = chunk - 1, matrix - (H * B).to(tl.int64) * (K * K)
            bring(
                x_BTHK + (token - C * H) * K, P_NHBKK + state, work_GN8CK + before * (8 * C * K),
                gram_GNCC + before * (C * C), numbers_GN8C + before * (8 * C), given_NHBKK + state,
                H, GIVEN, K, BK, C, ERASE, AHEAD,
            )  # fmt: skip
        work = work_GN8CK + chunk * (8 * C * K)
        gram = gram_GNCC + chunk * (C * C)
        numbers = numbers_GN8C + chunk * (8 * C) + s
        count = T - n * C
        dk, de, dc, db, on_scale = pull(
            work, gram, numbers, P_NHBKK + matrix, load_rows(at, K, K, BK, BK).to(DT),
            C, K, BK, ERASE, TO_START, UNIT_VALUE, KEEP_KIND > 0, DT, IP,
        )  # fmt: skip
        k = tile(work, KEYS, C, K, BK).to(tl.float32)
        leave(work, DKEYS, unit_gradient(dk, k, tl.load(numbers + 6 * C)), C, K, BK)
        tl.debug_barrier()  # what other threads stored is loaded from here on
        dz_key = tile(work, DKEYS, C, K, BK)
        dY = product(dz_key, load_rows(W + KEY * K, K, K, BK, BK), DT, IP)
        dz_value = tile(work, DVALUES, C, K, BK)
        dY -= product(dz_value, load_rows(W + VALUE * K, K, K, BK, BK), DT, IP)
        # P itself: its gradient, and gamma's
        e = tl.load(numbers)
        l = tl.load(numbers + C)
        gamma = tl.exp(tl.load(numbers_GN8C + chunk * (8 * C) + 3 * C - 1))
        dP = load_rows(at, K, K, BK, BK)
        if KEEP_KIND > 0:
            P = load_rows(P_NHBKK + matrix, K, K, BK, BK)
            weighed = dP * (P - identity(K, BK)) if TO_START else dP * P
            dgamma = tl.sum(tl.sum(weighed, 1), 0)
            dc += tl.where(s == C - 1, gamma * dgamma, 0.0)
            dl = tl.sum(tl.where(s[:, None] <= s[None, :], (dc + db)[None, :], 0.0), 1) - db
            if KEPT and L2:
                dl += tl.exp(l) * on_scale
            if KEEP_KIND == 2:
                dl *= 1.0 - tl.exp(l)
                dY += dl[:, None] * load_row(W, KEEP, K, BK).to(tl.float32)[None, :]
            tl.store(dkeep_BTH + token + s * H, dl, mask=s < count)
        if RATE_KIND > 0:
            de = rate_gradient(de, e, rate_scale, RATE_KIND)
            dY += de[:, None] * load_row(W, RATE, K, BK).to(tl.float32)[None, :]
        tl.store(drate_BTH + token + s * H, de, mask=s < count)
        leave(work, DYS, -dY, C, K, BK)
        at_state = tl.load(numbers + 4 * C)
        k = tile(work, KEYS, C, K, BK).to(tl.float32)
        right = e[:, None] * (at_state[:, None] * k - tile(work, VALUES, C, K, BK).to(tl.float32))
        dP = gamma * load_rows(at, K, K, BK, BK)
        dP += product(tl.trans(tile(work, MS, C, K, BK)), right, DT, IP)
        tl.debug_barrier()
        dY = tile(work, DYS, C, K, BK)
        dP -= product(tl.trans(dY), load_tokens(x_BTHK + token * K, count, H, K, C, BK), DT, IP)
        if GIVEN:
            dP += load_rows(given_NHBKK + matrix, K, K, BK, BK)
        tl.debug_barrier()  # all threads have loaded what is stored over
        store_rows(at, dP, K, K, BK, BK)
        tl.debug_barrier()
        token -= C * H


@triton.jit(do_not_specialize=SIZES)
def spread_kernel(
    P_NHBKK, work_GN8CK, drate_BTH, dkeep_BTH, dx_BTHK, dW_SHBRK,
    T, N, H, B, share,
    R: tl.constexpr, K: tl.constexpr, BK: tl.constexpr,
    C: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, RATE: tl.constexpr, KEEP: tl.constexpr,
    RATE_KIND: tl.constexpr, KEEP_KIND: tl.constexpr, DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """share: chunks of one program, over which it sums the gradient of the rows that are read."""
    part = tl.program_id(0)
    g = tl.program_id(1)
    s = tl.arange(0, C)
    j = tl.arange(0, BK)[None, :]
    dkey = tl.zeros([BK, BK], tl.float32)
    dvalue = tl.zeros([BK, BK], tl.float32)
    rate = tl.zeros([BK], tl.float32)
    keep = tl.zeros([BK], tl.float32)
    for i in range(tl.minimum(share, N - part * share)):
        n = part * share + i
        token = (g % B).to(tl.int64) * T * H + g // B + n.to(tl.int64) * C * H
        work = work_GN8CK + (g.to(tl.int64) * N + n) * (8 * C * K)
        there = s < T - n * C
        P = load_rows(P_NHBKK + (n.to(tl.int64) * H * B + g) * (K * K), K, K, BK, BK)
        dx = -product(tile(work, DYS, C, K, BK), P, DT, IP)
        tl.store(dx_BTHK + token * K + s[:, None] * (H * K) + j, dx, mask=there[:, None] & (j < K))
        Y = tile(work, YS, C, K, BK)
        dkey += product(tl.trans(tile(work, DKEYS, C, K, BK)), Y, DT, IP)
        dvalue -= product(tl.trans(tile(work, DVALUES, C, K, BK)), Y, DT, IP)
        if RATE_KIND > 0:
            de = tl.load(drate_BTH + token + s * H, mask=there, other=0.0)
            rate += tl.sum(de[:, None] * Y.to(tl.float32), 0)
        if KEEP_KIND == 2:
            dl = tl.load(dkeep_BTH + token + s * H, mask=there, other=0.0)
            keep += tl.sum(dl[:, None] * Y.to(tl.float32), 0)
    dW = dW_SHBRK + (part.to(tl.int64) * H * B + g) * (R * K)
    store_rows(dW + KEY * K, dkey, K, K, BK, BK)
    store_rows(dW + VALUE * K, dvalue, K, K, BK, BK)
    if RATE_KIND > 0:
        store_row(dW, rate, RATE, K, BK)
    if KEEP_KIND == 2:
        store_row(dW, keep, KEEP, K, BK)
