"""How a memory's update rule is called: on stacks of matrices, a bias or vector as one column, a number as 1 x 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Rule = Callable[..., tuple[Tensor, dict[str, Tensor]]]


def stepped(
    rule: Rule,
    vector: bool,
    state: Mapping[str, Tensor],
    *,
    grad: Tensor,
    weight: Tensor,
    kept: Tensor,
    start: Tensor,
    lr: Tensor | float,
    retain: Tensor | None = None,
    gram: Tensor | None = None,
    count: Tensor | None = None,
    params: Mapping[str, Tensor] | None = None,
    vectors: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Delta of one part, and the rule's states of it after the step; what `state` lacks is zero.

    grad, weight, kept (the state after retention), start, states: (..., O, I), or (..., O) where the part is a `vector`
    lr: a number, one a head or one for all.  params: likewise, or a vector (..., I) of each head
    retain: a number likewise, or one a key channel (..., I); None keeps all
    gram (..., I, I) of the layer's inputs, 0 where it has none; count (B,)
    vectors: of one pair, k, v and the layer's x (..., I), error (..., O); a bias or vector has the input 1
    """

    def matrix(x: Tensor) -> Tensor:
        return x.unsqueeze(-1) if vector else x

    def number(x: Tensor | float) -> Tensor:
        x = x if isinstance(x, Tensor) else grad.new_full((), x)  # made on the device, where a copy would wait
        return x[..., None, None] if x.dim() else x

    g, axes = matrix(grad), 1 if vector else 2
    if gram is None:
        gram = g.new_zeros(()).expand(g.shape[-1], g.shape[-1])  # takes no memory

    def given(x: Tensor) -> Tensor:
        return x.unsqueeze(-1) if x.dim() > grad.dim() - axes else number(x)

    share = number(1.0) if retain is None else number(retain)
    if retain is not None and retain.dim() > grad.dim() - axes:  # one a key channel
        share = retain.unsqueeze(-1 if vector else -2)
    delta, after = rule(
        grad=g,
        weight=matrix(weight),
        kept=matrix(kept),
        start=matrix(start),
        lr=number(lr),
        retain=share,
        gram=gram,
        count=None if count is None else count.to(g.dtype).view(-1, *(1,) * (g.dim() - 1)),
        state=Zeros(g, {name: matrix(x) if x.dim() == grad.dim() else x for name, x in state.items()}),
        **{name: x.unsqueeze(-1) for name, x in (vectors or {}).items()},
        **{name: given(x) for name, x in (params or {}).items()},
    )
    if not vector:
        return delta, after
    own = {name: x.squeeze(-1) if x.shape == g.shape else x for name, x in after.items()}  # not its memories
    return delta.squeeze(-1), own


class Zeros(dict[str, Tensor]):
    """The states of a rule; those it has not kept yet are 0."""

    def __init__(self, like: Tensor, known: Mapping[str, Tensor]) -> None:
        super().__init__(known)
        self.like = like

    def __missing__(self, name: str) -> Tensor:
        return torch.zeros_like(self.like)
