"""What a box answers, y = W P_c q, for all chunks at once, and its gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from runtime.kernels.tiles import SIZES, load_rows, load_tokens, product, store_rows, store_tokens


@triton.jit(do_not_specialize=SIZES)
def read_kernel(
    q_BTHK, W_HBRK, P_NHBKK, y_BTHR,
    T, H, B, per,
    R: tl.constexpr, BR: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    g = tl.program_id(1)
    token = (g % B).to(tl.int64) * T * H + g // B + n.to(tl.int64) * C * H
    count = T - n * C
    P = load_rows(P_NHBKK + (n.to(tl.int64) * H * B + g) * (K * K), K, K, BK, BK)
    W = load_rows(W_HBRK + (g // per).to(tl.int64) * (R * K), R, K, BR, BK)
    Y = product(load_tokens(q_BTHK + token * K, count, H, K, C, BK), tl.trans(P), DT, IP)
    store_tokens(y_BTHR + token * R, product(Y, tl.trans(W), DT, IP), count, H, R, C, BR)


@triton.jit(do_not_specialize=SIZES)
def read_gradient_kernel(
    q_BTHK, W_HBRK, P_NHBKK, dy_BTHR, dq_BTHK, dP_NHBKK, dW_SHBRK,
    T, N, H, B, per, share,
    R: tl.constexpr, BR: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, C: tl.constexpr,
    DT: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """share: chunks of one program, over which it sums the gradient of W."""
    part = tl.program_id(0)
    g = tl.program_id(1)
    W = W_HBRK + (g // per).to(tl.int64) * (R * K)
    dW = tl.zeros([BR, BK], tl.float32)
    for i in range(tl.minimum(share, N - part * share)):
        n = part * share + i
        token = (g % B).to(tl.int64) * T * H + g // B + n.to(tl.int64) * C * H
        count = T - n * C
        state = (n.to(tl.int64) * H * B + g) * (K * K)
        P = load_rows(P_NHBKK + state, K, K, BK, BK).to(DT)
        q = load_tokens(q_BTHK + token * K, count, H, K, C, BK).to(DT)
        dy = load_tokens(dy_BTHR + token * R, count, H, R, C, BR).to(DT)
        dW += product(tl.trans(dy), product(q, tl.trans(P), DT, IP), DT, IP)
        dY = product(dy, load_rows(W, R, K, BR, BK), DT, IP).to(DT)
        store_tokens(dq_BTHK + token * K, product(dY, P, DT, IP), count, H, K, C, BK)
        store_rows(dP_NHBKK + state, product(tl.trans(dY), q, DT, IP), K, K, BK, BK)
    store_rows(dW_SHBRK + (part.to(tl.int64) * H * B + g) * (R * K), dW, R, K, BR, BK)
