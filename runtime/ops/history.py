"""What a token reads of earlier tokens, and the error of a token along its own computation.

A level with `objective: loss` inside a sequence learns from each token's own error: the derivative of that token's loss
along the token's own computation, at the parameters in force.  What the token read of earlier tokens (states,
histories) is a constant of that derivative, yet the outer gradient does go through it.  `past` marks such readings;
`own_errors` runs a backward pass that stops at every mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from runtime.ops.inputs import unseen
from runtime.ops.saving import Saving
from runtime.precision import exact


class Past(torch.autograd.Function):
    """The identity: open to the outer gradient, closed while `own_errors` runs."""

    closed = False

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor | None) -> Tensor | None:
        return None if Past.closed else grad

    @staticmethod
    def made(x: Tensor) -> bool:
        """Whether `x` is marked."""
        return type(x.grad_fn).__name__ == "PastBackward"


def past(x: Tensor) -> Tensor:
    """Mark `x` as read of earlier tokens: the same value, through which a token's own error does not pass."""
    return Past.apply(x) if x.requires_grad else x


def own_errors(loss: Tensor, outputs: Sequence[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Derivative of each token's loss along its own computation, with respect to `outputs`.

    error_i = d loss_i / d output_i with every reading of earlier tokens held constant, so the derivative of the *sum*
    of the losses gives every token its own.  One backward pass over token-wise work; the graph is left for the outer
    gradient.
    `create_graph`: the errors themselves can be differentiated, history included (`meta: full`); otherwise they are
        constants.

    loss: a scalar, the sum of the tokens' losses in nats.  An output that no loss reaches gets zeros.
    """
    wanted = [x for x in outputs if x.requires_grad]
    Past.closed = True
    try:
        # every step backward in the type of its step forward
        with exact(loss), unseen(), Saving() if create_graph else nullcontext():
            found = torch.autograd.grad(loss, wanted, retain_graph=True, create_graph=create_graph, allow_unused=True)
    finally:
        Past.closed = False
    errors = iter(found)
    given = [next(errors) if x.requires_grad else None for x in outputs]
    return tuple(torch.zeros_like(x) if e is None else e for x, e in zip(outputs, given, strict=True))
