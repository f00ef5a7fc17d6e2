"""A linear memory on a GPU: whole chunks of `runtime.ops.memories.closed` with kernels in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.kernels.linear_memory.form import READS, Form
from runtime.kernels.linear_memory.launch import backward, forward, read, read_backward


@dataclass(frozen=True)
class Written:
    """A memory after its writes: Ms before every chunk (N, B, H, V, K), `last`, the rows of all tokens (G, N, C, V)."""

    form: Form
    low: bool
    k: Tensor
    operand: Tensor  # k as the kernels take it
    keep: Tensor | None
    Ms: Tensor
    last: Tensor
    U: Tensor

    @classmethod
    def by_kernels(
        cls, form: Form, low: bool, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None, M: Tensor
    ) -> Written:
        """k (B, T, H, K), v (B, T, H, V); rate, keep (B, T, H); M (B, H, V, K).  low: products of bfloat16."""
        operand = as_operand(k, low)
        Ms, last, U = KernelWrite.apply(form, low, operand, k, v, rate, keep, M)
        return cls(form, low, k, operand, keep, Ms, last, U)

    def read(self, q: Tensor, when: str) -> Tensor:
        """(B, T, H, K) to (B, T, H, V)."""
        call = (self.form, READS.index(when), self.low, self.operand)
        return KernelRead.apply(*call, q, self.k, self.keep, self.Ms, self.U)

    @torch.no_grad()
    def first_sequence(self) -> Written:
        H = self.k.shape[2]
        keep = None if self.keep is None else self.keep[:1]
        Ms = self.Ms[:, :1].contiguous()
        return Written(self.form, self.low, self.k[:1], self.operand[:1], keep, Ms, self.last[:1], self.U[:H])


def as_operand(x: Tensor, low: bool) -> Tensor:
    return x.detach().to(torch.bfloat16 if low else torch.float32).contiguous()


class KernelWrite(torch.autograd.Function):
    """apply(form, low, operand, k, v, rate, keep or None, M) -> M before every chunk, after the last, rows U."""

    @staticmethod
    def forward(
        ctx: Any,
        form: Form,
        low: bool,
        operand: Tensor,
        k: Tensor,
        v: Tensor,
        rate: Tensor,
        keep: Tensor | None,
        M: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.call = (list(form), low)
        v, rate, keep = as_operand(v, low), rate.contiguous(), keep if keep is None else keep.contiguous()
        Ms, U = forward(operand, v, rate, keep, M, *ctx.call)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(operand, v, rate, keep, Ms, U)
        return Ms[:-1], Ms[-1].clone(), U

    @staticmethod
    def backward(ctx: Any, given_M: Tensor | None, last: Tensor | None, given_U: Tensor | None) -> tuple[Any, ...]:
        first_order()
        k, v, rate, keep, Ms, U = ctx.saved_tensors
        given = (x if x is None else x.contiguous() for x in (given_M, given_U))
        dk, dv, drate, dkeep, dM = backward(k, v, rate, keep, Ms, U, *given, last, *ctx.call)
        return None, None, None, dk, dv, drate, None if keep is None else dkeep, dM


class KernelRead(torch.autograd.Function):
    """apply(form, when, low, operand, q, k, keep or None, Ms, U) -> what q reads, (B, T, H, V)."""

    @staticmethod
    def forward(
        ctx: Any,
        form: Form,
        when: int,
        low: bool,
        operand: Tensor,
        q: Tensor,
        k: Tensor,
        keep: Tensor | None,
        Ms: Tensor,
        U: Tensor,
    ) -> Tensor:
        ctx.call = (list(form), when, low)
        q, keep = as_operand(q, low), keep if keep is None else keep.contiguous()
        ctx.save_for_backward(q, operand, keep, Ms, U)
        return read(q, operand, keep, Ms, U, *ctx.call)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        first_order()
        dq, dk, dkeep, dMs, dU = read_backward(dy.contiguous(), *ctx.saved_tensors, *ctx.call)
        inside, keep = ctx.call[1] > 0, ctx.saved_tensors[2]
        kept = inside and keep is not None
        return *(None,) * 4, dq, dk if inside else None, dkeep if kept else None, dMs, dU if inside else None


def first_order() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("the kernels of a linear memory have no second derivative; compile for the cpu to have one")
