"""One chunk's transition of every self-generated matrix memory that shares keys, rates and retention, and its gradient.

With box-independent rows (c_t = 1: l2; c_t = a_t: l2 at the kept state; c_t = 0: dot;  x = 1: erase, x = 0: none)

    M_t = M_{t-1} (a_t I - x e_t k_t k_t^T) - e_t (M_{t'} (c_t k_t - v_t) [+ (1 - c_t) M_0 k_t]) k_t^T [+ (1 - a_t) M_0]

has the solution M_t = M_{t'} Phi_t [+ M_0 Psi_t], neither factor depending on the memory:

    U = (I + N)^-1 diag(e) [x p K + c K - V,  x (1 - p) K + (1 - c) K],     N = x diag(e) (K K^T * D)
    Phi = gamma I - U_1^T diag(r) K,     Psi = (1 - gamma) I - U_2^T diag(r) K

with D_ts = exp(b_t - c_s), p = exp(b), r = exp(c_C - c), gamma = exp(c_C) of the running sums b (before) and c (after
a token) of log retention.  Source: arXiv 2512.24695, eqs. 84-90; put M_t' Phi_t + M_0 Psi_t for M_t, and the rows of
U for M_{t-1} k_t.  Rows are tokens; tensors (G, C, K), G any number of chunks, heads and sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.recurrence import FLOOR


@dataclass(frozen=True)
class Kind:
    """Which write it is.  erase: dgd, else gd.  l2: else dot.  kept: the gradient sees the state after retention.
    to_start: retention leads towards M_0, else towards nothing."""

    erase: bool
    l2: bool
    kept: bool
    to_start: bool


@dataclass(frozen=True)
class Transition:
    """A chunk's rows and products; the letters are the module's.  Scales are (G, C, 1): p, `at_state` and `at_start`,
    what multiplies K in the two halves of the right side, `loss` = -r."""

    k: Tensor
    v: Tensor
    rate: Tensor
    keep: Tensor | None  # log retention (G, C), floored
    a: Tensor | float
    p: Tensor | float
    gamma: Tensor | float  # (G, 1)
    D: Tensor | None
    gram: Tensor | None  # K K^T * D
    inverse: Tensor | None  # (I + N)^-1
    at_state: Tensor | float
    at_start: Tensor | float
    loss: Tensor | float
    k_lost: Tensor  # -diag(r) K
    U: Tensor
    U_start: Tensor | None
    Phi: Tensor
    Psi: Tensor | None


def transition(kind: Kind, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None) -> Transition:
    """k, v (G, C, K), rate and log retention (G, C), G any number of chunks; not recorded by autograd."""
    e = rate.unsqueeze(-1)
    c = b = None
    a: Tensor | float = 1.0
    p: Tensor | float = 1.0
    loss: Tensor | float = -1.0
    gamma: Tensor | float = 1.0
    if keep is not None:
        keep = keep.clamp(min=FLOOR)
        c = keep.cumsum(-1)
        b = c - keep
        a, p = keep.exp().unsqueeze(-1), b.exp().unsqueeze(-1)
        gamma = c[:, -1:].exp()
        loss = (c[:, -1:] - c).exp().neg_().unsqueeze(-1)
    D = gram = inverse = None
    if kind.erase:
        D = decay_before(b, c, k)
        gram = torch.bmm(k, k.mT).mul_(D)
        eye = torch.eye(k.shape[1], dtype=k.dtype, device=k.device).expand_as(gram)
        inverse = torch.linalg.solve_triangular(e * gram, eye, upper=False, unitriangular=True)

    gradient_at = a if kind.kept else 1.0
    at_state = (p if kind.erase else 0.0) + (gradient_at if kind.l2 else 0.0)
    at_start = (1 - p if kind.erase else 0.0) + (1 - gradient_at if kind.l2 else 0.0)
    k_lost = loss * k

    def rows(right: Tensor) -> Tensor:
        right.mul_(e)
        return right if inverse is None else torch.bmm(inverse, right)

    U = rows((at_state * k).sub_(v))
    Phi = torch.bmm(U.mT, k_lost)
    Phi.diagonal(dim1=-2, dim2=-1).add_(gamma)
    U_start = Psi = None
    if kind.to_start:
        U_start = rows(at_start * k)
        Psi = torch.bmm(U_start.mT, k_lost)
        Psi.diagonal(dim1=-2, dim2=-1).add_(1 - gamma)
    return Transition(
        k, v, e, keep, a, p, gamma, D, gram, inverse, at_state, at_start, loss, k_lost, U, U_start, Phi, Psi
    )


def decay_before(b: Tensor | None, c: Tensor | None, k: Tensor) -> Tensor:
    """D_ts = exp(b_t - c_s) for s < t, else 0: (G, C, C)."""
    if b is None or c is None:
        return k.new_ones(k.shape[0], k.shape[1], k.shape[1]).tril_(-1)
    return torch.sub(b.unsqueeze(-1), c.unsqueeze(-2)).exp_().tril_(-1)


def gradient(
    kind: Kind, t: Transition, dPhi: Tensor, dPsi: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of k, v (G, C, K), rate and log retention (G, C) from those of Phi and Psi.

    With B = e H the right side: dB = (I + N)^-T k_lost dPhi^T, dN = -dB U^T, and onwards by the chain rule.
    """
    W = t.k_lost if t.inverse is None else torch.bmm(t.inverse.mT, t.k_lost)
    e = t.rate
    dB = torch.bmm(W, dPhi.mT)
    dk_lost = torch.bmm(t.U, dPhi)
    on_k = (dB * t.k).sum(-1, keepdim=True)  # gradient of what multiplies k in the right side, but for the rate
    drate = t.at_state * on_k - (dB * t.v).sum(-1, keepdim=True)
    dv = dB * -e
    dk = dB * (e * t.at_state)
    dgamma = trace(dPhi)
    on_start = None
    if dPsi is not None and t.U_start is not None:
        dB_start = torch.bmm(W, dPsi.mT)
        dk_lost.baddbmm_(t.U_start, dPsi)
        on_start = (dB_start * t.k).sum(-1, keepdim=True)
        drate = drate + t.at_start * on_start
        dk.addcmul_(dB_start, e * t.at_start)
        dgamma = dgamma - trace(dPsi)
    dk.addcmul_(dk_lost, t.loss) if isinstance(t.loss, Tensor) else dk.sub_(dk_lost)
    later = earlier = None
    if t.gram is not None and t.D is not None:
        minus_dN = torch.bmm(dB, t.U.mT)
        if on_start is not None and t.U_start is not None:
            minus_dN.baddbmm_(dB_start, t.U_start.mT)
        E = minus_dN * t.gram
        rows = E.sum(-1, keepdim=True)
        drate = drate - rows
        later, earlier = e * rows, torch.bmm(E.mT, e).squeeze(-1)
        minus_dN.mul_(t.D).mul_(e)
        dk.baddbmm_(minus_dN, t.k, alpha=-1).baddbmm_(minus_dN.mT, t.k, alpha=-1)
    dkeep = None
    if t.keep is not None:
        on_scale = on_k if on_start is None else on_k - on_start
        dkeep = retention_gradient(kind, t, e * on_scale, dgamma, dk_lost, later, earlier)
    return dk, dv, drate.squeeze(-1), dkeep


def retention_gradient(
    kind: Kind,
    t: Transition,
    on_scale: Tensor,
    dgamma: Tensor,
    dk_lost: Tensor,
    later: Tensor | None,
    earlier: Tensor | None,
) -> Tensor:
    """Of log retention (G, C), through p, r, a, gamma and D: all are exponentials of its running sums b and c."""
    rho = (t.loss * (dk_lost * t.k).sum(-1, keepdim=True)).squeeze(-1)
    dc = -rho if earlier is None else earlier - rho
    dc[:, -1:] += rho.sum(-1, keepdim=True) + t.gamma * dgamma
    both, db = dc, None
    if kind.erase and later is not None:
        db = (t.p * on_scale - later).squeeze(-1)
        both = dc + db
    dkeep = both.flip(-1).cumsum(-1).flip(-1)
    if db is not None:
        dkeep = dkeep - db
    return dkeep + (t.a * on_scale).squeeze(-1) if kind.kept and kind.l2 else dkeep


def trace(x: Tensor) -> Tensor:
    """(G, K, K) to (G, 1)."""
    return x.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
