"""The operators of the block language that torch has no function for.

Values are (B, T, *axes): batch, token, then the value's own axes; operators act on the last one.  All are made of
differentiable torch functions, so that derivatives of any order exist.  Those that look back take and return what they
remember, and mark it with `past`.

    B batch, T tokens, D width, H heads, C taps of a convolution
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.history import Past, past
from runtime.ops.inputs import seen
from runtime.ops.one import Reading, affine, alone
from runtime.precision import HALVES, exact, full, wide

EPS = 1e-5  # added to the biased variance by rmsnorm and layernorm
QUINTIC = (3.4445, -4.7750, 2.0315)
CUBIC = (1.5, -0.5, 0.0)


def rmsnorm(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-5) * gain over the last axis; gain (D,)."""
    if gain is None or x.dtype in HALVES:  # which torch sums in float32
        return torch.rms_norm(x, x.shape[-1:], gain, EPS)
    if Reading.token and x.numel() == x.shape[-1]:  # torch's own is ten operations and more
        row, D = x.view(-1), x.shape[-1]  # x sqrt(D) / sqrt(|x|^2 + D eps): what is made of the gain is made once
        return (x * (gain * D**0.5)).mul_(torch.dot(row, row).add_(D * EPS).rsqrt_())
    explicit = torch.is_grad_enabled() and x.device.type == "cpu" and not Reading.token
    if explicit and x.dtype == gain.dtype:
        return RmsNorm.apply(x, gain)
    return torch.rms_norm(x, x.shape[-1:], gain, EPS)


class RmsNorm(torch.autograd.Function):
    """y = x s gain and s = (mean(x^2) + eps)^-1/2; with p = g x, dx = s g gain - x s^3 (p . gain) / D, dgain = sum p s.

    On a processor torch has no function for it and differentiates its parts one by one: 2.5 times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        return (x * scale).mul_(gain)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None]:
        x, gain, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1] and not Past.closed  # a token's own error wants no gradient of a weight
        with exact(x):
            if torch.is_grad_enabled():  # to be differentiated again: nothing in place
                scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
                along = (g * x * gain).sum(-1, keepdim=True) * scale.pow(3) / x.shape[-1]
                return g * gain * scale - x * along, (g * x * scale).sum_to_size(gain.shape) if wanted else None
            p = (g * x).reshape(-1, x.shape[-1])
            along = (p @ gain).view_as(scale).mul_(scale.pow(3)).div_(x.shape[-1])
            dgain = scale.reshape(-1) @ p if wanted else None
            return (g * gain).mul_(scale).addcmul_(x, along, value=-1), dgain


def layernorm(x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5) * gain + bias over the last axis, with the biased variance; gain and bias (D,)."""
    return torch.layer_norm(x, x.shape[-1:], gain, bias, EPS)


def exact_layernorm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """`layernorm` with derivatives of every order, for the equations of forms: their errors are derivatives already,
    and the third of F.layer_norm is wrong, since its second holds mean and deviation constant."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPS) * gain + bias


class L2norm(torch.autograd.Function):
    """y = x scale and scale = 1 / max(|x|, eps), from which alone every derivative follows: nothing else is kept."""

    eps = 1e-6

    @staticmethod
    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(L2norm.eps).reciprocal_()
        return x * scale, scale

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y, scale = L2norm.value(x)
        ctx.save_for_backward(y, scale)
        ctx.set_materialize_grads(False)
        return y, scale

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, g_scale: Tensor | None) -> Tensor | None:
        y, scale = ctx.saved_tensors
        if g is None:
            return None if g_scale is None else y * (-g_scale * scale.square() * (scale < 1 / L2norm.eps))
        along = (y * g).sum(-1, keepdim=True)
        if g_scale is not None:
            along = along + g_scale * scale
        along = along * scale * (scale < 1 / L2norm.eps)
        return (g * scale).addcmul_(y, along, value=-1) if not torch.is_grad_enabled() else g * scale - y * along


def l2norm(x: Tensor) -> Tensor:
    """x / max(|x|, 1e-6) over the last axis."""
    if Reading.token:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(L2norm.eps)
    return unit_and_scale(x)[0]


def unit_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / max(|x|, 1e-6) over the last axis, and what x was multiplied by."""
    return L2norm.apply(x) if torch.is_grad_enabled() else L2norm.value(x)


def l2norm_pull(x: Tensor, d: Tensor) -> Tensor:
    """Error at x from the error d at l2norm(x)."""
    return scaled_pull(*unit_and_scale(x), d)


def scaled_pull(y: Tensor, scale: Tensor, d: Tensor) -> Tensor:
    """Error at x from the error d at y = l2norm(x) = scale x: (d - y (y . d)) scale where |x| > 1e-6, d scale
    elsewhere."""
    along = (y * d).sum(-1, keepdim=True) * (scale < 1 / L2norm.eps)
    return (d - y * along) * scale


def exact_l2norm(x: Tensor) -> Tensor:
    """`l2norm` in functions of torch alone, for objectives, whose slope torch.func takes: it refuses `L2norm`."""
    return x * x.square().sum(-1, keepdim=True).clamp_min(L2norm.eps**2).rsqrt()


def linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x (+ bias), one weight per index of the axes before the last.

    x (B, T, *leading, in); W (*leading, out, in); bias (*leading, out).  Returns (B, T, *leading, out).
    """
    if W.dim() == 2 and x.dim() == 3 and alone(x):
        return affine(x, W, bias)
    seen(W, x)
    if W.dim() == 2:
        return wide(F.linear(x, W, bias))
    if W.shape[-2] == 1:
        y = (x * W[..., 0, :]).sum(-1, keepdim=True)
    else:
        flat = wide(torch.einsum("bthi,hoi->btho", x.flatten(2, -2), W.flatten(0, -3)))
        y = flat.unflatten(2, W.shape[:-2])
    return y if bias is None else y + bias


def readout(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(x, out=1)`: the axis of width 1 is dropped.  W (*leading, 1, in), bias (*leading)."""
    with exact(x):  # a rate or a retention, more often than not, and no work to speak of
        y = linear(x, W).squeeze(-1)
    return y if bias is None else y + bias


def heads(x: Tensor, n: int) -> Tensor:
    """[n * h] -> [n, h]."""
    return x.view(*x.shape[:-1], n, x.shape[-1] // n)


def merge(x: Tensor) -> Tensor:
    """[n, h] -> [n * h]."""
    return x.flatten(-2)


def align(x: Tensor, axes: int) -> Tensor:
    """Append axes of size 1 until `x` has `axes` of them after batch and token: shapes align from the left."""
    return x[(..., *(None,) * (axes + 2 - x.dim()))]


def causal_conv(x: Tensor, w: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution: y_t = sum_j w_j x_{t - C + 1 + j}.

    x (B, T, *axes); w (C, D), tap C - 1 meets the current token; history (B, C - 1, *axes), zeros when fresh.
    Returns y and the history for the next call.  A token's own error passes the last tap only.
    """
    seen = torch.cat((history, x), 1)
    convolve = CausalConv.apply if torch.is_grad_enabled() else CausalConv.value
    return convolve(seen, w), seen.narrow(1, x.shape[1], history.shape[1])


class CausalConv(torch.autograd.Function):
    """y_t = sum_j w_j seen_{t + j}, in one pass a tap either way.  apply(seen (B, C - 1 + T, *axes), w) -> y."""

    @staticmethod
    def value(seen: Tensor, w: Tensor) -> Tensor:
        T = seen.shape[1] - len(w) + 1
        if T == 1 and seen.dim() == 3:
            return (w * seen).sum(1, keepdim=True)
        y = w[0] * seen[:, :T]
        for j in range(1, len(w)):
            y.addcmul_(w[j], seen[:, j : j + T])
        return y

    @staticmethod
    def forward(ctx: Any, seen: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(seen, w)
        return CausalConv.value(seen, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None]:
        seen, w = ctx.saved_tensors
        last, T = len(w) - 1, g.shape[1]
        taps = range(last if Past.closed else 0, len(w))
        if torch.is_grad_enabled():  # to be differentiated again: nothing in place
            along = [(0, 0)] * (g.dim() - 2)
            padded = [F.pad(g * w[j], [n for pair in (*along, (j, last - j)) for n in pair]) for j in taps]
            to_seen = torch.stack(padded).sum(0)
        else:
            to_seen = torch.zeros_like(seen)
            for j in taps:
                to_seen[:, j : j + T].addcmul_(g, w[j])
        if Past.closed:  # a token's own error wants no gradient of a weight
            return to_seen, None
        return to_seen, torch.stack([(g * seen[:, j : j + T]).sum_to_size(w[j].shape) for j in taps])


def previous(x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """`prev(v)`: y_t = x_{t-1}.  history (B, 1, *axes), zeros when fresh.  Returns y and the history for the next
    call."""
    seen = torch.cat((history, x), 1)
    return past(seen[:, :-1]), seen[:, -1:]


def rope(x: Tensor, position: int = 0, base: float = 10000.0) -> Tensor:
    """Rotary position: the pair (x_i, x_{i + D/2}) turns by the angle t base^(-2 i / D).

    Source: arXiv 2104.09864, eq. 34, with pairs half a width apart.  x (B, T, *axes, D), D even; `position` is the
    number of tokens of the sequence before the first of these.  Raises ValueError if D is odd.
    """
    T, D = x.shape[1], x.shape[-1]
    if D % 2:
        raise ValueError(f"rope turns pairs: the last axis must be even, not {D}")
    t = torch.arange(position, position + T, dtype=torch.float64, device=x.device)
    frequency = base ** (-torch.arange(0, D, 2, dtype=torch.float64, device=x.device) / D)
    angle = torch.outer(t, frequency).view(T, *(1,) * (x.dim() - 3), D // 2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def poly(x: Tensor, degree: int) -> Tensor:
    """concat(x, x^2, ..., x^degree) along the last axis."""
    return torch.cat([x**n for n in range(1, degree + 1)], -1)


def root(x: Tensor) -> Tensor:
    """Square root of an update rule, whose derivative at 0 is taken as 0: of what no gradient has reached yet."""
    none = x == 0
    return torch.where(none, 1, x).sqrt().masked_fill(none, 0)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """[.., n], [.., m] -> [.., n, m]."""
    a, b = a.unsqueeze(-1), b.unsqueeze(-2)
    ones = (1,) * abs(a.dim() - b.dim())  # axes in front align from the left
    if a.dim() < b.dim():
        a = a.reshape(*a.shape[:-2], *ones, *a.shape[-2:])
    elif ones:
        b = b.reshape(*b.shape[:-2], *ones, *b.shape[-2:])
    return a * b


def apply_matrix(A: Tensor, b: Tensor) -> Tensor:
    """A @ b of the language where b is a vector: [.., n, m], [.., m] -> [.., n]."""
    return wide(A @ b.unsqueeze(-1)).squeeze(-1)


def trace(x: Tensor) -> Tensor:
    """[.., n, n] -> [..]."""
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)


def norm(x: Tensor, p: float = 2.0, dim: int = -1, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p) over an axis, which is dropped.

    In units of the largest |x|: torch's gradient divides by norm^(p-1), which is 0 long before the norm is.
    """
    if p == 2:
        return torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    unit = x.detach().abs().amax(dim, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    found = torch.linalg.vector_norm(x / unit, p, dim=dim, keepdim=True) * unit
    return found if keepdim else found.squeeze(dim)


@full
def newton_schulz(G: Tensor, steps: int = 5, coefficients: tuple[float, float, float] = QUINTIC) -> Tensor:
    """Push the singular values of a matrix towards 1: X <- a X + (b A + c A^2) X with A = X X^T, X_0 = G / (|G|_F +
    1e-7).

    G (.., n, m); one that is tall is multiplied from the right, with A = X^T X, which is the same of its transpose.
    Source: the reference mathematics, section 5 (Muon).
    """
    return iterated(unit(G), steps, coefficients)


def newton_schulz_bfloat16(G: Tensor, steps: int = 5) -> Tensor:
    """`newton_schulz` with its products in bfloat16, for weights that are trained so."""
    return iterated(unit(G).bfloat16(), steps, QUINTIC).to(G.dtype)


def unit(G: Tensor) -> Tensor:
    """G / (|G|_F + 1e-7), for every matrix of a stack."""
    return G / (torch.linalg.vector_norm(G, dim=(-2, -1), keepdim=True) + 1e-7)


def iterated(X: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """X <- a X + (b A + c A^2) X with A = X X^T, for every matrix of a stack (.., n, m); A on the smaller side."""
    a, b, c = coefficients
    stack = X.shape
    X = X.reshape(-1, *stack[-2:])
    tall = stack[-2] > stack[-1]
    for _ in range(steps):
        A = torch.bmm(X.mT, X) if tall else torch.bmm(X, X.mT)
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)
        X = torch.baddbmm(X, X, B, beta=a) if tall else torch.baddbmm(X, B, X, beta=a)
    return X.reshape(stack)


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z).  F.softplus is z from 20 on, where it is off by 2e-9: more than float64 rounds, and a step."""
    return F.softplus(z, threshold=40.0)


def layernorm_pull(x: Tensor, d: Tensor) -> Tensor:
    """Error at x from the error d at layernorm(x) without gain; not to be differentiated."""
    _, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
    wanted = [True, False, False]
    return torch.ops.aten.native_layer_norm_backward(d, x, x.shape[-1:], mean, scale, None, None, wanted)[0]  # type: ignore[no-any-return]


def rmsnorm_pull(x: Tensor, d: Tensor) -> Tensor:
    """Error at x from the error d at rmsnorm(x) without gain."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
    y = x * scale
    return scale * (d - y * (y * d).mean(-1, keepdim=True))


def gelu(z: Tensor) -> Tensor:
    """The exact GELU, z Phi(z)."""
    return F.gelu(z.mT).mT if few(z) else F.gelu(z)


def gelu_pull(z: Tensor, d: Tensor) -> Tensor:
    """Error at z from the error d at the exact GELU of it: d (Phi(z) + z phi(z)), in one pass."""
    return torch.ops.aten.gelu_backward(d.mT, z.mT).mT if few(z) else torch.ops.aten.gelu_backward(d, z)


def few(z: Tensor) -> bool:
    """Whether oneDNN, which torch gives a GELU of float32 numbers that lie in their order, takes longer to begin than
    to end.  Seen with its last axes across, the same numbers go by torch's own loops."""
    return z.is_cpu and z.dtype == torch.float32 and z.dim() > 1 and z.numel() <= 1 << 14 and not Reading.token


def silu_pull(z: Tensor, d: Tensor) -> Tensor:
    """Error at z from the error d at z sigmoid(z).  torch's own in one pass has no derivative."""
    s = torch.sigmoid(z)
    return d * (s * (1 + z * (1 - s)))
