"""One chunk's transition of every self-generated matrix memory that shares keys, rates and retention, and its gradient.

With box-independent rows (c_t = 1: l2; c_t = a_t: l2 at the kept state; c_t = 0: dot;  x = 1: erase, x = 0: none)

    M_t = M_{t-1} (a_t I - x e_t k_t k_t^T) - e_t (M_{t'} (c_t k_t - v_t) [+ (1 - c_t) M_0 k_t]) k_t^T [+ (1 - a_t) M_0]

has the solution M_t = M_{t'} Phi_t [+ M_0 Psi_t], neither factor depending on the memory:

    U = (I + N)^-1 diag(e) [x p K + c K - V,  x (1 - p) K + (1 - c) K],     N = x diag(e) (K K^T * D)
    Phi = gamma I - U_1^T diag(r) K,     Psi = (1 - gamma) I - U_2^T diag(r) K

with D_ts = exp(b_t - c_s), p = exp(b), r = exp(c_C - c), gamma = exp(c_C) of the running sums b (before) and c (after a token) of log
retention.  Source: arXiv 2512.24695, eqs. 84-90; the product form is derived in docs/.  Rows are tokens; tensors (..., C, K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.linear import FLOOR


@dataclass(frozen=True)
class Kind:
    """erase: rule dgd, else gd.  l2: else dot.  kept: the gradient sees the state after retention.  to_start: towards M_0."""

    erase: bool
    l2: bool
    kept: bool
    to_start: bool


@dataclass(frozen=True)
class Transition:
    """A chunk's rows and products; see the module for the letters.  H: the rows U solves for, before rate and inverse."""

    k: Tensor
    rate: Tensor  # (..., C, 1), like p, r, a
    a: Tensor
    p: Tensor
    r: Tensor
    gamma: Tensor  # (..., 1, 1)
    D: Tensor
    N: Tensor
    H: Tensor
    U: Tensor
    k_left: Tensor  # diag(r) K

    def product(self) -> Tensor:
        """[Phi; Psi] stacked, or Phi."""
        PhiPsi = -(self.U.mT @ self.k_left)
        K = self.k.shape[-1]
        PhiPsi.diagonal(dim1=-2, dim2=-1)[..., :K].add_(self.gamma.squeeze(-1))
        if PhiPsi.shape[-2] > K:
            PhiPsi[..., K:, :].diagonal(dim1=-2, dim2=-1).add_(1 - self.gamma.squeeze(-1))
        return PhiPsi


def transition(kind: Kind, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None) -> Transition:
    """k, v (..., C, K), rate and log retention (..., C); not recorded by autograd."""
    keep = torch.zeros_like(rate) if keep is None else keep.clamp(min=FLOOR)
    c = keep.cumsum(-1)
    b = c - keep
    last = c[..., -1:]
    e, a, p = rate.unsqueeze(-1), keep.exp().unsqueeze(-1), b.exp().unsqueeze(-1)
    r = (last - c).exp().unsqueeze(-1)
    D = torch.sub(b.unsqueeze(-1), c.unsqueeze(-2)).exp_().tril_(-1)
    N = (k @ k.mT).mul_(D).mul_(e)

    at_state = (p if kind.erase else 0) + ((a if kind.kept else 1) if kind.l2 else 0)
    H = at_state * k - v
    if kind.to_start:
        at_start = (1 - p if kind.erase else 0) + (1 - a if kind.kept and kind.l2 else 0)
        H = torch.cat((H, at_start * k), -1)
    U = e * H
    if kind.erase:
        U = torch.linalg.solve_triangular(N, U, upper=False, unitriangular=True)
    return Transition(k, e, a, p, r, last.unsqueeze(-1).exp(), D, N, H, U, r * k)


def reflect(kind: Kind, t: Transition) -> Tensor:
    """W = (I + N)^-T diag(r) K, what carries a gradient of the products back to the rows."""
    if not kind.erase:
        return t.k_left
    return torch.linalg.solve_triangular(t.N.mT, t.k_left, upper=True, unitriangular=True)


def gradient(kind: Kind, t: Transition, W: Tensor, dPhiPsi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of k, v, rate and log retention from the gradient of [Phi; Psi]: (..., C, K) twice, (..., C) twice.

    dB = -W dPhiPsi^T, dN = -dB U^T, and onwards by the chain rule through the letters of the module.
    """
    K = t.k.shape[-1]
    dB = -(W @ dPhiPsi.mT)  # of e H
    dk_left = -(t.U @ dPhiPsi)
    dH = t.rate * dB
    drate = (dB * t.H).sum(-1)
    dv = -dH[..., :K]

    inner = (t.k * dH[..., :K]).sum(-1)  # of what multiplies k in H
    at_state = (t.p if kind.erase else 0) + ((t.a if kind.kept else 1) if kind.l2 else 0)
    dk = at_state * dH[..., :K] + t.r * dk_left
    dgamma = dPhiPsi.diagonal(dim1=-2, dim2=-1).sum(-1)
    if kind.to_start:
        dgamma = dgamma - dPhiPsi[..., K:, :].diagonal(dim1=-2, dim2=-1).sum(-1)
        at_start = (1 - t.p if kind.erase else 0) + (1 - t.a if kind.kept and kind.l2 else 0)
        if kind.erase or kind.kept:
            dk = dk + at_start * dH[..., K:]
        inner = inner - (t.k * dH[..., K:]).sum(-1)

    rho = t.r.squeeze(-1) * (dk_left * t.k).sum(-1)
    dc = -rho
    dc[..., -1] += rho.sum(-1) + (t.gamma.squeeze(-1) * dgamma.unsqueeze(-1)).squeeze(-1)
    db = torch.zeros_like(dc)
    if kind.erase:
        dN = -(dB @ t.U.mT)
        E = dN * t.N
        rows = E.sum(-1)
        drate = drate + rows / t.rate.squeeze(-1)
        dA = dN * t.D * t.rate
        dk = dk + (dA + dA.mT) @ t.k
        db = rows + t.p.squeeze(-1) * inner
        dc = dc - E.sum(-2)
    dkeep = (dc + db).flip(-1).cumsum(-1).flip(-1) - db
    if kind.kept and kind.l2:
        dkeep = dkeep + t.a.squeeze(-1) * inner
    return dk, dv, drate, dkeep
