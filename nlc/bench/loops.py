"""What the generated HOPE cell is measured against: the same, written in PyTorch by hand.

loop            a token at a time.  Fair: all boxes, heads and sequences are one batched rank-one update (`lerp`,
                `baddbmm`), reads are batched products, what is fixed within a chunk is computed once per chunk, and
                there is no Python loop over heads
loop of rows    goes further than the equations say: of each box that is read through a read-out it carries that row
generic         a chunk at a time, by the form for any linear memory: all boxes concatenated, one triangular system

    M_t = a M_{t-1} + (1 - a) M_0 - e (M_{t-1} k + M_{t'} (k - v)) k^T          t' the first token of the chunk

Source: arXiv 2512.24695, eqs. 83-90.
B batch, T tokens, H heads, K width, C tokens of a chunk; stacked boxes (B H, R, K).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from runtime.ops import l2norm

BOXES = ("key", "value", "eta", "alpha", "memory")
Weights = Mapping[str, Tensor]


def stack(p: Weights, batch: int) -> Tensor:
    """Five boxes of K rows at their start."""
    return torch.cat([flat(p[f"{box}.start"], batch) for box in BOXES], 1)


def flat(x: Tensor, batch: int) -> Tensor:
    return x.expand(batch, *x.shape).flatten(0, 1)


def read_rows(p: Weights, batch: int) -> Callable[[Tensor], Tensor]:
    """The rows that make keys, values, rate and retention: two boxes, and one row of each of two others."""
    w_rate, w_keep, K = flat(p["rate.linear"], batch), flat(p["retain.linear"], batch), p["key.start"].shape[-1]
    return lambda S: torch.cat((S[:, : 2 * K], w_rate @ S[:, 2 * K : 3 * K], w_keep @ S[:, 3 * K : 4 * K]), 1)


def loop(p: Weights, u: Tensor, q: Tensor, chunk: int) -> Tensor:
    """Five boxes of K rows, one rank-one update per token; u, q (B, T, H, K)."""
    return walk(stack(p, len(u)), read_rows(p, len(u)), u, q, chunk)


def loop_of_rows(p: Weights, u: Tensor, q: Tensor, chunk: int) -> Tensor:
    """Three boxes of K rows and one row of each of the other two."""
    eta, alpha = p["rate.linear"] @ p["eta.start"], p["retain.linear"] @ p["alpha.start"]
    parts = (p["key.start"], p["value.start"], eta, alpha, p["memory.start"])
    K = q.shape[-1]
    return walk(torch.cat([flat(x, len(u)) for x in parts], 1), lambda S: S[:, : 2 * K + 2], u, q, chunk)


def walk(start: Tensor, rows: Callable[[Tensor], Tensor], u: Tensor, q: Tensor, chunk: int) -> Tensor:
    B, T, H, K = u.shape
    S, outs = start, []
    for t in range(T):
        if t % chunk == 0:
            held, read = S, rows(S).mT
        z = u[:, t].flatten(0, 1).unsqueeze(1) @ read
        k, v = l2norm(z[..., :K]), l2norm(z[..., K : 2 * K])
        e, a = z[..., 2 * K : 2 * K + 1].sigmoid(), (z[..., 2 * K + 1 :] + 4).sigmoid()
        outs.append(q[:, t].flatten(0, 1).unsqueeze(1) @ held[:, -K:].mT)
        row = S @ k.mT + held @ (k - v).mT
        S = torch.baddbmm(torch.lerp(start, S, a), e * row, k, alpha=-1)
    return torch.cat(outs, 1).view(B, H, T, K).transpose(1, 2)


def generic(p: Weights, u: Tensor, q: Tensor, chunk: int) -> Tensor:
    """With b, c the running sums of log a before and after a token, p = exp b, r = exp(c_C - c), D_ts = exp(b_t - c_s):

    (I + e K K^T * D) U = e ((p K + K - V) S^T + (1 - p) K S_0^T),   S' = exp(c_C) S + (1 - exp(c_C)) S_0 - U^T (r K)
    """
    (B, T, H, K), rows = u.shape, read_rows(p, len(u))
    S = start = stack(p, B)
    outs, one = [], torch.eye(chunk, dtype=u.dtype)
    for x, y in zip(*(torch.split(z.transpose(1, 2).flatten(0, 1), chunk, 1) for z in (u, q)), strict=True):
        outs.append(y @ S[:, -K:].mT)
        z = x @ rows(S).mT
        k, v, e = l2norm(z[..., :K]), l2norm(z[..., K : 2 * K]), z[..., 2 * K : 2 * K + 1].sigmoid()
        log_keep = torch.nn.functional.logsigmoid(z[..., 2 * K + 1 :] + 4)
        c = log_keep.cumsum(1)
        before = c - log_keep
        D = (before - c.mT).exp().tril(-1)
        at = before.exp() * k
        right = e * ((at + k - v) @ S.mT + (k - at) @ start.mT)
        C = x.shape[1]
        U = torch.linalg.solve_triangular(one[:C, :C] + e * (k @ k.mT * D), right, upper=False, unitriangular=True)
        S = torch.lerp(start, S, c[:, -1:].exp()) - U.mT @ ((c[:, -1:] - c).exp() * k)
    return torch.cat(outs, 1).view(B, H, T, K).transpose(1, 2)
