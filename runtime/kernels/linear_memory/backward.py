"""Backward: `prepare_kernel` again, then last chunk to first, then all chunks at once.

`pull_kernel` carries the gradient of the state to the beginning; `spread_kernel` takes it to keys, values, rates and
retentions.
"""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.linear_memory.chunk import factors, load, load_tokens, numbers, of_log, store, store_tokens
from runtime.kernels.tiles import SIZES, decay_before, product


@triton.jit(do_not_specialize=SIZES)
def pull_kernel(
    seen_GNCK, lost_GNCK, kept_GN, M_NGVK, given_M_NGVK, given_U_GNCV, dM_GVK, after_GNVK, dkept_JGN, dU_GNCV,
    N, G,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BY_STATE: tl.constexpr, KEEPS: tl.constexpr, GIVEN_M: tl.constexpr, GIVEN_U: tl.constexpr,
    WHOLE: tl.constexpr, DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """dU = given + lost dM'^T;  dM = gamma dM' + dU^T seen + given.

    dM_GVK holds the gradient of the last state, and then that of the first; after_GNVK that of the state after every
    chunk, dkept_JGN that of gamma by tile of BV rows.
    """
    g = tl.program_id(0)
    at = tl.program_id(1) * BV
    first = dM_GVK + g.to(tl.int64) * (V * K) + at * K
    dM = load(first, K, V - at, K, BV, BK, WHOLE)
    for back in range(N):
        n = N - 1 - back
        chunk = g.to(tl.int64) * N + n
        state = (n.to(tl.int64) * G + g) * (V * K) + at * K
        if KEEPS:
            M = load(M_NGVK + state, K, V - at, K, BV, BK, WHOLE)
            tl.store(dkept_JGN + (tl.program_id(1) * G + g).to(tl.int64) * N + n, tl.sum(tl.sum(dM * M, 1), 0))
        low = dM.to(DT)
        store(after_GNVK + chunk * (V * K) + at * K, low, K, V - at, K, BV, BK, WHOLE)
        dU = product(load(lost_GNCK + chunk * (C * K), K, C, K, C, BK, WHOLE), tl.trans(low), DT, IP)
        if GIVEN_U:
            dU += load(given_U_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE).to(tl.float32)
        dU = dU.to(DT)
        store(dU_GNCV + chunk * (C * V) + at, dU, V, C, V - at, C, BV, WHOLE)
        dM *= tl.load(kept_GN + chunk)
        if BY_STATE:
            dM += product(tl.trans(dU), load(seen_GNCK + chunk * (C * K), K, C, K, C, BK, WHOLE), DT, IP)
        if GIVEN_M:
            dM += load(given_M_NGVK + state, K, V - at, K, BV, BK, WHOLE)
    store(first, dM, K, V - at, K, BV, BK, WHOLE)


@triton.jit(do_not_specialize=SIZES)
def spread_kernel(
    k_BTHK, v_BTHV, rate_BTH, keep_BTH, M_NGVK, U_GNCV, inverse_GNCC, after_GNVK, dkept_JGN, dU_GNCV,
    dk_BTHK, dv_BTHV, drate_BTH, dkeep_BTH,
    T, N, H, G,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, HELD: tl.constexpr, KEEPS: tl.constexpr,
    SYSTEM: tl.constexpr, WHOLE: tl.constexpr, DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g // H).to(tl.int64) * T * H + g % H + n.to(tl.int64) * C * H
    chunk = g.to(tl.int64) * N + n
    state = (n.to(tl.int64) * G + g) * (V * K)
    count = T - n * C
    e = numbers(rate_BTH + token, count, H, C)
    l = numbers(keep_BTH + token, count, H, C) if KEEPS else tl.zeros_like(e)
    c = tl.cumsum(l, 0)
    total = tl.sum(l, 0)
    p = tl.exp(c - l)
    r = tl.exp(total - c)
    before, first = factors(l, ERASE, L2, KEPT, HELD)
    de = tl.zeros_like(e)
    on_read = tl.zeros_like(e)
    rho = tl.zeros_like(e)
    dgamma = 0.0
    dk = tl.zeros([C, BK], tl.float32)
    minus_dN = tl.zeros([C, C], tl.float32)
    for at in tl.static_range(0, V, BV):
        R = load(dU_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE)
        if SYSTEM:
            inverse = load(inverse_GNCC + chunk * (C * C), C, C, C, C, C, True)
            R = product(tl.trans(inverse), R, DT, IP)
        store_tokens(dv_BTHV + token * V + at, R * -e[:, None], H * V, count, V - at, C, BV, WHOLE)
        v = load_tokens(v_BTHV + token * V + at, H * V, count, V - at, C, BV, WHOLE).to(tl.float32)
        de -= tl.sum(R * v, 1)
        # What follows loads tiles again rather than hold them: a tile is a quarter of a thread's registers.
        R = R.to(DT)
        if SYSTEM:
            U = load(U_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE)
            minus_dN += product(R, tl.trans(U), DT, IP)
        if ERASE or L2:
            dread = product(R, load(M_NGVK + state + at * K, K, V - at, K, BV, BK, WHOLE), DT, IP)
            k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(tl.float32)
            on_read += tl.sum(dread * k, 1)
            dk += dread * (e * (before * p + first))[:, None]
        after = load(after_GNVK + chunk * (V * K) + at * K, K, V - at, K, BV, BK, WHOLE)
        U = load(U_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE)
        dlost = product(U, after, DT, IP)
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(tl.float32)
        rho -= tl.sum(dlost * k, 1)
        dk -= dlost * r[:, None]
        if KEEPS:
            dgamma += tl.load(dkept_JGN + (at // BV * G + g).to(tl.int64) * N + n)
    s = tl.arange(0, C)
    rho *= r
    dc = tl.where(s == C - 1, tl.sum(rho, 0) + tl.exp(total) * dgamma, 0.0) - rho
    de += (before * p + first) * on_read
    on_read *= e
    db = p * before * on_read
    dbefore = p * on_read
    dfirst = on_read
    if SYSTEM:
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE)
        minus_dN *= decay_before(c - l, c, C)
        on_gram = minus_dN * product(k, tl.trans(k), DT, IP)
        by_row = tl.sum(on_gram, 1)
        de -= before * by_row
        dbefore -= e * by_row
        db -= e * before * by_row
        dc += tl.sum(on_gram * (e * before)[:, None], 0)
        dgram = (minus_dN * (e * before)[:, None]).to(DT)
        dk -= product(dgram, k, DT, IP)
        dk -= product(tl.trans(dgram), k, DT, IP)
    store_tokens(dk_BTHK + token * K, dk, H * K, count, K, C, BK, WHOLE)
    tl.store(drate_BTH + token + s * H, de, mask=s < count)
    if KEEPS:
        dl = of_log(dc, db, C)
        if KEPT and L2:
            dl += tl.exp(l) * (dfirst if HELD else dbefore)
        tl.store(dkeep_BTH + token + s * H, dl, mask=s < count)
