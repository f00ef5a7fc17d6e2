"""Forward: all chunks at once, then chunk after chunk, for each head, sequence and BV rows of the state.

`prepare_kernel` solves the chunks' systems for whatever state they begin with; `chain_kernel` carries the state and
leaves the rows that each token wrote.
"""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.linear_memory.chunk import factors, load, load_tokens, numbers, store
from runtime.kernels.tiles import SIZES, decay_before, invert, product


@triton.jit(do_not_specialize=SIZES)
def prepare_kernel(
    k_BTHK, v_BTHV, rate_BTH, keep_BTH, seen_GNCK, lost_GNCK, kept_GN, known_GNCV, inverse_GNCC,
    T, N, H,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    ERASE: tl.constexpr, L2: tl.constexpr, KEPT: tl.constexpr, HELD: tl.constexpr, KEEPS: tl.constexpr,
    SYSTEM: tl.constexpr, BACK: tl.constexpr, WHOLE: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr, HT: tl.constexpr,
):  # fmt: skip
    """seen = (I + N)^-1 diag(e w) K, known = (I + N)^-1 diag(e) V, lost = -diag(r) K, kept = gamma.

    SYSTEM: N is not 0.  BACK: for the backward pass, which asks for the inverse in place of `known`.
    """
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g // H).to(tl.int64) * T * H + g % H + n.to(tl.int64) * C * H
    chunk = g.to(tl.int64) * N + n
    count = T - n * C
    k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE).to(tl.float32)
    e = numbers(rate_BTH + token, count, H, C)
    l = numbers(keep_BTH + token, count, H, C) if KEEPS else tl.zeros_like(e)
    c = tl.cumsum(l, 0)
    total = tl.sum(l, 0)
    store(lost_GNCK + chunk * (C * K), k * -tl.exp(total - c)[:, None], K, C, K, C, BK, WHOLE)
    tl.store(kept_GN + chunk, tl.exp(total))
    if SYSTEM:
        before, first = factors(l, ERASE, L2, KEPT, HELD)
        gram = product(k, tl.trans(k), DT, IP) * decay_before(c - l, c, C)
        inverse = invert((e * before)[:, None] * gram, C, HT, IP).to(DT)
        at_state = e * (before * tl.exp(c - l) + first)
        k = load_tokens(k_BTHK + token * K, H * K, count, K, C, BK, WHOLE)  # again, rather than hold it
        seen = product(inverse, k.to(tl.float32) * at_state[:, None], DT, IP)
        store(seen_GNCK + chunk * (C * K), seen, K, C, K, C, BK, WHOLE)
        if BACK:
            store(inverse_GNCC + chunk * (C * C), inverse, C, C, C, C, C, True)
    elif L2:
        _, first = factors(l, ERASE, L2, KEPT, HELD)
        store(seen_GNCK + chunk * (C * K), k * (e * first)[:, None], K, C, K, C, BK, WHOLE)
    if not BACK:
        for at in tl.static_range(0, V, BV):
            known = load_tokens(v_BTHV + token * V + at, H * V, count, V - at, C, BV, WHOLE).to(tl.float32) * e[:, None]
            if SYSTEM:
                known = product(inverse, known, DT, IP)
            store(known_GNCV + chunk * (C * V) + at, known, V, C, V - at, C, BV, WHOLE)


@triton.jit(do_not_specialize=SIZES)
def chain_kernel(
    seen_GNCK, lost_GNCK, kept_GN, known_GNCV, M_NGVK, U_GNCV,
    N, G,
    K: tl.constexpr, BK: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    BY_STATE: tl.constexpr, WHOLE: tl.constexpr, DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """U = seen M^T - known;  M' = gamma M + U^T lost.  The first of M_NGVK is given.  BY_STATE: writes look at M."""
    g = tl.program_id(0)
    at = tl.program_id(1) * BV
    M_VK = M_NGVK + g.to(tl.int64) * (V * K) + at * K
    chunk = g.to(tl.int64) * N
    M = load(M_VK, K, V - at, K, BV, BK, WHOLE)
    for _ in range(N):
        U = -load(known_GNCV + chunk * (C * V) + at, V, C, V - at, C, BV, WHOLE).to(tl.float32)
        if BY_STATE:
            U += product(load(seen_GNCK + chunk * (C * K), K, C, K, C, BK, WHOLE), tl.trans(M), DT, IP)
        U = U.to(DT)
        store(U_GNCV + chunk * (C * V) + at, U, V, C, V - at, C, BV, WHOLE)
        lost = load(lost_GNCK + chunk * (C * K), K, C, K, C, BK, WHOLE)
        M = tl.load(kept_GN + chunk) * M + product(tl.trans(U), lost, DT, IP)
        M_VK += G.to(tl.int64) * (V * K)
        store(M_VK, M, K, V - at, K, BV, BK, WHOLE)
        chunk += 1
