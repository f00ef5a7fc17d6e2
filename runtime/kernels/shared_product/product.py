"""Whole chunks of a shared product on a GPU: `Product` of runtime.ops.shared with kernels in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runtime.kernels.shared_product.form import Form
from runtime.kernels.shared_product.launch import backward, forward, read, read_backward
from runtime.ops.history import Past


class KernelProduct(torch.autograd.Function):
    """apply(form, scales, low, P (H, B, K, K) or None, W (H, 1 or B, R, K), x (B, T, H, K), rate, keep (B, T, H) or
    None) -> P at the first token of every chunk (N, H, B, K, K), and after the last.  None: P is the identity."""

    @staticmethod
    def forward(
        ctx: Any,
        form: Form,
        scales: list[float],
        low: bool,
        P: Tensor | None,
        W: Tensor,
        x: Tensor,
        rate: Tensor | None,
        keep: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.x_type = x.dtype
        operand = torch.bfloat16 if low else torch.float32
        W, x = (y.to(operand).contiguous() for y in (W, x))
        rate, keep = (y if y is None else y.contiguous() for y in (rate, keep))
        ctx.call, ctx.identity = (list(form), scales, low), P is None
        Ps = forward(x, W, P, rate, keep, *ctx.call)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(W, x, rate, keep, Ps)
        return Ps[:-1], Ps[-1].clone()

    @staticmethod
    def backward(ctx: Any, given: Tensor | None, last: Tensor | None) -> tuple[Any, ...]:
        if Past.closed:  # states are what a token's own error stops at
            return (None,) * 8
        if torch.is_grad_enabled():
            raise RuntimeError("shared_product has no second derivative outside own_errors; use memory() for one")
        W, x, rate, keep, Ps = ctx.saved_tensors
        given = None if given is None else given.contiguous()
        dP, dW, dx, drate, dkeep = backward(x, W, rate, keep, Ps, given, last, *ctx.call)
        return (
            *(None,) * 3,
            None if ctx.identity else dP,
            dW,
            dx.to(ctx.x_type),
            None if rate is None else drate.to(rate.dtype),
            None if keep is None else dkeep.to(keep.dtype),
        )


class KernelRead(torch.autograd.Function):
    """apply(chunk, low, ordinary, q (B, T, H, K), P (N, H, B, K, K), W (H, 1 or B, R, K)) -> W P_c q (B, T, H, R).

    P and W are of earlier tokens: a token's own error stops there.
    ordinary(q, P, W): the same by ordinary operations, for derivatives of higher order.
    """

    @staticmethod
    def forward(ctx: Any, chunk: int, low: bool, ordinary: Any, q: Tensor, P: Tensor, W: Tensor) -> Tensor:
        ctx.call, ctx.ordinary = (chunk, low), ordinary
        ctx.save_for_backward(q, P, W)
        return read(q.contiguous(), P, W.contiguous(), chunk, low)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        q, P, W = ctx.saved_tensors
        if torch.is_grad_enabled():
            own = [x.view_as(x) for x in (q, P, W)]
            wanted = [x for x in own if x.requires_grad]
            found = iter(torch.autograd.grad(ctx.ordinary(*own), wanted, dy, create_graph=True, allow_unused=True))
            return (None, None, None, *(next(found) if x.requires_grad else None for x in own))
        dq, dP, dW = read_backward(dy.contiguous(), q.contiguous(), P, W.contiguous(), *ctx.call)
        return (None, None, None, dq, None, None) if Past.closed else (None, None, None, dq, dP, dW)
