"""What a memory answers at any token, for all chunks at once, and its gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.linear_memory.chunk import decay_through, load, load_tokens, numbers, of_log, store, store_tokens
from runtime.kernels.tiles import SIZES, decay_before, product


@triton.jit
def reach(keep, count, H, C: tl.constexpr, KEEPS: tl.constexpr, AFTER: tl.constexpr):
    """How much of the chunk's first state, and of every row written since, a token's read finds."""
    l = numbers(keep, count, H, C) if KEEPS else tl.zeros([C], tl.float32)
    c = tl.cumsum(l, 0)
    if AFTER:
        return tl.exp(c), decay_through(c, C)
    else:
        return tl.exp(c - l), decay_before(c - l, c, C)


@triton.jit(do_not_specialize=SIZES)
def read_kernel(
    q_BTHK, k_BTHK, keep_BTH, M_NGVK, U_GNCV, y_BTHV,
    T, N, H, G,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    KEEPS: tl.constexpr, INSIDE: tl.constexpr, AFTER: tl.constexpr, WHOLE: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """y = diag(share) Q M^T + (Q K^T * D) (-U).  INSIDE: what the chunk wrote is read as well as its first state."""
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g // H).to(tl.int64) * T * H + g % H + n.to(tl.int64) * C * H
    chunk = g.to(tl.int64) * N + n
    state = (n.to(tl.int64) * G + g) * (V * K)
    count = T - n * C
    q = load_tokens(q_BTHK + token * K, H * K, count, K, C, BK, WHOLE)
    if INSIDE:
        share, D = reach(keep_BTH + token, count, H, C, KEEPS, AFTER)
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE)
        on_rows = (product(q, tl.trans(k), DT, IP) * -D).to(DT)
    for at in tl.static_range(0, V, BV):
        y = product(q, tl.trans(load(M_NGVK + state + at * K, K, V - at, K, BV, BK, WHOLE)), DT, IP)
        if INSIDE:
            y *= share[:, None]
            U = load(U_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE)
            y += product(on_rows, U, DT, IP)
        store_tokens(y_BTHV + token * V + at, y, H * V, count, V - at, C, BV, WHOLE)


@triton.jit(do_not_specialize=SIZES)
def read_gradient_kernel(
    q_BTHK, k_BTHK, keep_BTH, M_NGVK, U_GNCV, dy_BTHV, dq_BTHK, dk_BTHK, dkeep_BTH, dM_NGVK, dU_GNCV,
    T, N, H, G,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    KEEPS: tl.constexpr, INSIDE: tl.constexpr, AFTER: tl.constexpr, WHOLE: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g // H).to(tl.int64) * T * H + g % H + n.to(tl.int64) * C * H
    chunk = g.to(tl.int64) * N + n
    state = (n.to(tl.int64) * G + g) * (V * K)
    count = T - n * C
    dq = tl.zeros([C, BK], tl.float32)
    share = tl.zeros([C], tl.float32) + 1.0
    if INSIDE:
        share, D = reach(keep_BTH + token, count, H, C, KEEPS, AFTER)
        dscores = tl.zeros([C, C], tl.float32)
        q = load_tokens(q_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(DT)
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(DT)
        scores = (product(q, tl.trans(k), DT, IP) * -D).to(DT)
    for at in tl.static_range(0, V, BV):
        dy = load_tokens(dy_BTHV + token * V + at, H * V, count, V - at, C, BV, WHOLE).to(tl.float32)
        if INSIDE:
            dU = product(tl.trans(scores), dy, DT, IP)
            store(dU_GNCV + chunk * (C * V) + at, dU, V, C, V - at, C, BV, WHOLE)
            U = load(U_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE)
            dscores += product(dy, tl.trans(U), DT, IP)
        dy = (dy * share[:, None]).to(DT)
        M = load(M_NGVK + state + at * K, K, V - at, K, BV, BK, WHOLE)
        dq += product(dy, M, DT, IP)
        q = load_tokens(q_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(DT)
        dM = product(tl.trans(dy), q, DT, IP)
        store(dM_NGVK + state + at * K, dM, K, V - at, K, BV, BK, WHOLE)
    if INSIDE:
        q = load_tokens(q_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(DT)
        if KEEPS:
            on_share = tl.sum(dq * q.to(tl.float32), 1)
            on_decay = dscores * scores.to(tl.float32)
            by_row = tl.sum(on_decay, 1)
            dc = -tl.sum(on_decay, 0)
            if AFTER:
                dl = of_log(dc + on_share + by_row, tl.zeros_like(dc), C)
            else:
                dl = of_log(dc, on_share + by_row, C)
            s = tl.arange(0, C)
            tl.store(dkeep_BTH + token + s * H, dl, mask=s < count)
        _, D = reach(keep_BTH + token, count, H, C, KEEPS, AFTER)  # again, rather than hold it
        dgram = (dscores * -D).to(DT)
        store_tokens(dk_BTHK + token * K, product(tl.trans(dgram), q, DT, IP), H * K, count, K, C, BK, WHOLE)
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(DT)
        dq += product(dgram, k, DT, IP)
    store_tokens(dq_BTHK + token * K, dq, H * K, count, K, C, BK, WHOLE)
