"""Rows times a weight, x W^T, whose gradient of W lies in memory as W does and is summed as it is made.

W = collected(W)
y, z = by_weight(x, W), by_weight(a, W)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runtime.ops.history import Past
from runtime.precision import mixed

ROWS = 64  # of a product that takes longer than the reading and writing of what it is added to


def by_weight(x: Tensor, W: Tensor) -> Tensor:
    """x W^T: (..., n, I) by (..., O, I), leading axes alike.

    Of a product of stacks autograd makes the gradient of W^T; seen as W's it lies across, and adding it to another one
    that does not takes as long as three to seven such products of 16 rows (1024 x 256, in float32).
    """
    alike = x.dtype == W.dtype and x.shape[:-2] == W.shape[:-2]
    if not (alike and W.requires_grad and W.stride(-1) == 1) or mixed(x):
        return x @ W.mT
    return ByWeight.apply(x, W, W.is_leaf or Past.made(W), products_of(W), False)


class ByWeight(torch.autograd.Function):
    """apply(x, W, past, products, back) -> x W^T, or x W where `back`.

    past: no token's own error is asked for behind W.  products: who sums the gradients of W, if anybody does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, past: bool, products: Products | None, back: bool) -> Tensor:
        ctx.save_for_backward(x, W)
        ctx.how = past, products, back
        return x @ W if back else x @ W.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Of any order: ordinary operations, and itself."""
        (x, W), (past, products, back) = ctx.saved_tensors, ctx.how
        on_x, on_W = ctx.needs_input_grad[:2]
        dx = ByWeight.apply(g, W, past, products, not back) if on_x else None
        if not on_W or (past and Past.closed):
            return dx, None, None, None, None
        e, a = (x, g) if back else (g, x)
        if products is None or torch.is_grad_enabled():
            return dx, e.mT @ a, None, None, None
        products.add(e, a)
        return dx, None, None, None, None


# ---- weights that collect their gradients ----------------------------------------------------------------------------


def collected(W: Tensor) -> Tensor:
    """W, whose gradient by `by_weight` is summed as it is made:  dW = dW' + sum over products of g^T x,  dW' all else.

    Autograd makes the gradient of every product, then adds it: of few rows most of the time goes by memory alone.
    """
    if not (W.requires_grad and torch.is_grad_enabled()) or products_of(W) is not None:
        return W
    return Collected.apply(W)


class Collected(torch.autograd.Function):
    """apply(W) -> W.  Products leave their factors with it; autograd calls it when there are no more."""

    @staticmethod
    def forward(ctx: Any, W: Tensor) -> Tensor:
        ctx.products = Products()
        ctx.set_materialize_grads(False)
        return W.view_as(W)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> Tensor | None:
        found: Tensor | None = ctx.products.upon(g)
        return found


def products_of(W: Tensor) -> Products | None:
    """Those that a weight collects, which may have been marked as read of earlier tokens since."""
    node: Any = W.grad_fn
    if Past.made(W):
        node = node.next_functions[0][0]
    return node.products if type(node).__name__ == "CollectedBackward" else None


class Products:
    """Gradients sum e^T a of one weight in one backward pass; those of a pass that asked for no sum are forgotten.

    e (..., n, O), a (..., n, I) with the weight's leading axes; they wait until they are worth a product and others
    come: the last are added to the rest of the gradient by their product, which spares a pass over both."""

    def __init__(self) -> None:
        self.run = -1  # the pass
        self.sum: Tensor | None = None
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, e: Tensor, a: Tensor) -> None:
        self._begin()
        if sum(e.shape[-2] for e, _ in self.waiting) >= ROWS:
            self.sum, self.waiting = multiplied(self.waiting, self.sum, own=True), []
        self.waiting.append((e.detach(), a.detach()))

    def add_share(self, d: Tensor, share: Tensor) -> None:
        """sum over the first axis of share d."""
        self._begin()
        for one, part in zip(d.unbind(0), share.unbind(0), strict=True):
            self.sum = part * one if self.sum is None else self.sum.addcmul_(one, part)

    def upon(self, g: Tensor | None) -> Tensor | None:
        """g and the sum, which is forgotten."""
        total, waiting = self.sum, self.waiting
        self.sum, self.waiting = None, []
        if self.run != torch._C._current_graph_task_id():
            return g
        if total is None:
            return multiplied(waiting, g) if waiting else g
        total = multiplied(waiting, total, own=True) if waiting else total
        return total if g is None else total.add_(g)

    def _begin(self) -> None:
        run = torch._C._current_graph_task_id()
        if run != self.run:
            self.run, self.sum, self.waiting = run, None, []


def multiplied(factors: list[tuple[Tensor, Tensor]], upon: Tensor | None, own: bool = False) -> Tensor | None:
    """upon + sum e^T a; `own`: written over it."""
    if not factors:
        return upon
    e, a = (torch.cat(xs, -2) if len(xs) > 1 else xs[0] for xs in zip(*factors, strict=True))
    if upon is None:
        return e.mT @ a
    stack, e, a = (x[None] if x.dim() == 2 else x.flatten(0, -3) for x in (upon, e, a))
    found = stack.baddbmm_(e.mT, a) if own else torch.baddbmm(stack, e.mT, a)
    return found.view_as(upon)
