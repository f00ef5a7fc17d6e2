"""One chunk of every self-generated matrix memory that shares keys, rates and retention, and its gradient.

With box-independent rows (c_t = 1: l2; c_t = a_t: l2 at the kept state; c_t = 0: dot;  x = 1: erase, x = 0: none)

    M_t = M_{t-1} (a_t I - x e_t k_t k_t^T) - e_t (M_{t'} (c_t k_t - v_t) [+ (1 - c_t) M_0 k_t]) k_t^T [+ (1 - a_t) M_0]

multiplies every box by the same matrices from the right.  So M_{t'} = W P with one P for all of them (basis.py), M_0 =
W E, and a chunk takes P to

    P' = gamma P + (1 - gamma) E - L diag(r) K,     L = (P B^T + E B_0^T) (I + N)^-T
    B = diag(e) (x p K + c K - V),     B_0 = diag(e) (x (1 - p) K + (1 - c) K),     N = x diag(e) (K K^T * D)

with D_ts = exp(b_t - c_s) for s < t, p = exp(b), r = exp(c_C - c), gamma = exp(c_C) of the running sums b (before) and
c (after a token) of log retention.  Source: arXiv 2512.24695, eqs. 84-90; put W P_t for M_t, and the columns of L for
what each token is written with.  Rows are tokens; tensors (G, C, K), G any number of chunks, heads and sequences;
P (G, I, K), where E is the identity in its last K rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.recurrence import FLOOR
from runtime.ops.triangular import inverse_blocks, solve, solve_transposed


@dataclass(frozen=True)
class Kind:
    """Which write it is.  erase: dgd, else gd.  l2: else dot.  kept: the gradient sees the state after retention.
    to_start: retention leads towards M_0, else towards nothing."""

    erase: bool
    l2: bool
    kept: bool
    to_start: bool


@dataclass(frozen=True)
class Chunk:
    """What a chunk's tokens ask, whatever the memories hold; the letters are the module's.  Scales are (G, C, 1): p,
    `at_state` and `at_start`, what multiplies e K in B and B_0, `lost` = -r."""

    k: Tensor
    v: Tensor
    e: Tensor
    keep: Tensor | None  # log retention (G, C), floored
    a: Tensor | float
    p: Tensor | float
    gamma: Tensor | float  # (G, 1, 1)
    D: Tensor | None
    gram: Tensor | None  # K K^T * D
    N: Tensor | None
    inverses: Tensor | None  # of the blocks on the diagonal of I + N
    at_state: Tensor | float
    at_start: Tensor | float
    lost: Tensor | float
    k_lost: Tensor  # -diag(r) K
    B: Tensor
    B_start: Tensor | None


def chunk_of(
    kind: Kind, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None, inverses: Tensor | None = None
) -> Chunk:
    """k, v (G, C, K), rate and log retention (G, C), G any number of chunks; not recorded by autograd.

    inverses: of the blocks on the diagonal of I + N, where they are known
    """
    e = rate.unsqueeze(-1)
    c = b = None
    a: Tensor | float = 1.0
    p: Tensor | float = 1.0
    lost: Tensor | float = -1.0
    gamma: Tensor | float = 1.0
    if keep is not None:
        keep = keep.clamp(min=FLOOR)
        c = keep.cumsum(-1)
        b = c - keep
        p = b.exp().unsqueeze(-1)
        a = keep.exp().unsqueeze(-1) if kind.kept else a
        gamma = c[:, -1:, None].exp()
        lost = (c[:, -1:] - c).exp_().neg_().unsqueeze(-1)
    D = gram = N = None
    if kind.erase:
        D = decay_before(b, c, k)
        gram = torch.bmm(k, k.mT).mul_(D)
        N = e * gram
        inverses = inverse_blocks(N) if inverses is None else inverses

    at_state, at_start = (a, 1 - a) if kind.l2 else (0.0, 0.0)
    if kind.erase:
        at_state, at_start = p + at_state, at_start + 1 - p
    B = (k * (e * at_state)).addcmul_(v, e, value=-1)
    B_start = k * (e * at_start) if kind.to_start else None
    return Chunk(k, v, e, keep, a, p, gamma, D, gram, N, inverses, at_state, at_start, lost, lost * k, B, B_start)


def decay_before(b: Tensor | None, c: Tensor | None, k: Tensor) -> Tensor:
    """D_ts = exp(b_t - c_s) for s < t, else 0: (G, C, C)."""
    if b is None or c is None:
        return k.new_ones(k.shape[0], k.shape[1], k.shape[1]).tril_(-1)
    return torch.sub(b.unsqueeze(-1), c.unsqueeze(-2)).exp_().tril_(-1)


def written(t: Chunk, P: Tensor | None) -> Tensor:
    """L^T (G, C, I): what each token is written with.  No P is the identity, here and below: a product spared."""
    if P is None:
        L = t.B if t.B_start is None else t.B + t.B_start
    else:
        L = torch.bmm(t.B, P.mT)
        if t.B_start is not None:
            L[..., -t.k.shape[-1] :].add_(t.B_start)
    return L if t.N is None or t.inverses is None else solve(t.N, t.inverses, L)


def advance(t: Chunk, P: Tensor | None, L: Tensor, out: Tensor) -> None:
    """P after the chunk, into `out`."""
    if P is None:
        torch.bmm(L.mT, t.k_lost, out=out)
        diagonal(out).add_(1.0 if t.B_start is not None else gamma_of(t))
        return
    torch.mul(P, t.gamma, out=out)
    out.baddbmm_(L.mT, t.k_lost)
    if t.B_start is not None:
        diagonal(out).add_(1 - gamma_of(t))


def gradient(
    kind: Kind, t: Chunk, P: Tensor | None, L: Tensor, dP: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor | None], Tensor | None]:
    """(gradients of k, v (G, C, K), rate and log retention (G, C)), gradient of P, from that of P after the chunk.

    dL = -dP' K^T diag(r),  R = dL (I + N)^-1:   dB = R^T P,  dB_0 = R^T E,  dN = -R^T L,  dP = gamma dP' + R B
    and onwards by the chain rule.  L, transposed as `written` gives it, is what the chunk wrote.
    """
    K, e = t.k.shape[-1], t.e
    R = torch.bmm(t.k_lost, dP.mT)  # R^T, as L^T (G, C, I)
    if t.N is not None and t.inverses is not None:
        R = solve_transposed(t.N, t.inverses, R)
    dk_lost = torch.bmm(L, dP)
    dB = R if P is None else torch.bmm(R, P)
    work = torch.empty_like(t.k)
    on_k = dots(dB, t.k, work)  # gradient of what multiplies e k in B
    drate = t.at_state * on_k - dots(dB, t.v, work)
    dv = dB * -e
    dk = dB * (e * t.at_state) if P is None else dB.mul_(e * t.at_state)
    dgamma = None
    if t.keep is not None:
        dgamma = diagonal(dP).sum(-1, keepdim=True) if P is None else (dP * P).sum((-2, -1)).unsqueeze(-1)
    on_start = None
    if t.B_start is not None:
        dB_start = R[..., -K:]
        on_start = dots(dB_start, t.k, work)
        drate += t.at_start * on_start
        dk.addcmul_(dB_start, e * t.at_start)
        dgamma = None if dgamma is None else dgamma - diagonal(dP).sum(-1, keepdim=True)
    dk.addcmul_(dk_lost, t.lost) if isinstance(t.lost, Tensor) else dk.sub_(dk_lost)
    later = earlier = None
    if t.gram is not None and t.D is not None:
        minus_dN = torch.bmm(R, L.mT)
        on_gram = torch.mul(minus_dN, t.gram, out=work) if work.shape == minus_dN.shape else minus_dN * t.gram
        rows = on_gram.sum(-1, keepdim=True)
        drate -= rows
        later, earlier = e * rows, torch.bmm(e.mT, on_gram).squeeze(-2)
        minus_dN.mul_(t.D).mul_(e)
        dk.baddbmm_(minus_dN + minus_dN.mT, t.k, alpha=-1)
    dkeep = None
    if dgamma is not None:
        on_scale = on_k if on_start is None else on_k - on_start
        dkeep = retention_gradient(kind, t, e * on_scale, dgamma, dots(dk_lost, t.k, work), later, earlier)
    before = None if P is None else (dP * t.gamma).baddbmm_(R.mT, t.B)
    return (dk, dv, drate.squeeze(-1), dkeep), before


def dots(x: Tensor, y: Tensor, work: Tensor) -> Tensor:
    """Row by row, (G, C, 1); `work` is overwritten."""
    return torch.mul(x, y, out=work).sum(-1, keepdim=True)


def retention_gradient(
    kind: Kind,
    t: Chunk,
    on_scale: Tensor,
    dgamma: Tensor,
    on_lost: Tensor,
    later: Tensor | None,
    earlier: Tensor | None,
) -> Tensor:
    """Of log retention (G, C), through p, r, a, gamma and D: all are exponentials of its running sums b and c."""
    rho = (t.lost * on_lost).squeeze(-1)
    dc = -rho if earlier is None else earlier - rho
    dc[:, -1:].add_(rho.sum(-1, keepdim=True)).add_(gamma_of(t) * dgamma)
    both, db = dc, None
    if kind.erase and later is not None:
        db = (t.p * on_scale - later).squeeze(-1)
        both = dc + db
    dkeep = both.flip(-1).cumsum(-1).flip(-1)
    if db is not None:
        dkeep = dkeep - db
    return dkeep + (t.a * on_scale).squeeze(-1) if kind.kept and kind.l2 else dkeep


def gamma_of(t: Chunk) -> Tensor | float:
    return t.gamma.squeeze(-1) if isinstance(t.gamma, Tensor) else t.gamma


def diagonal(P: Tensor) -> Tensor:
    """Where E is 1: (G, K)."""
    return P[:, -P.shape[-1] :].diagonal(dim1=-2, dim2=-1)
