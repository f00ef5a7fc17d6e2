"""Memories inside a rule: maps that its level trains on the columns of two matrices, one step at each of its updates.

W <- W - lr sum_j d/dW L(M(k_j), v_j),   k_j and v_j the columns of `keys` and `values`

Heads (the leading axes) have each a memory of their own.  Source: arXiv 2512.24695, eqs. 50-51.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from nlc.graph.nodes import Memory, RuleMemory
from nlc.graph.remembered import memory_of
from nlc.interpret import forms
from nlc.interpret.operators import DTYPE

Parts = Mapping[str, Tensor]
Loss = Callable[..., Tensor]


def begun(memory: RuleMemory, like: Tensor) -> dict[str, Tensor]:
    """Its state before any update, for matrices `like` [..., rows, cols]."""
    found, node = {}, memory_of(memory, like.shape[-2], like.shape[-1])
    for name, shape in node.parts:
        last_of_residual = name == "W_out" and node.form.residual
        one = torch.zeros(shape, dtype=DTYPE)
        if memory.start == "identity" and not last_of_residual:
            one = torch.eye(*shape, dtype=DTYPE)
        found[f"{memory.name}_{name}"] = one.expand(*like.shape[:-2], *shape)
    return found


def written(memory: RuleMemory, parts: Parts, keys: Tensor, values: Tensor, lr: Any, like: Tensor, loss: Loss) -> Parts:
    """The state after one step."""
    node = memory_of(memory, like.shape[-2], like.shape[-1])

    def total(W: dict[str, Tensor]) -> Tensor:
        terms = []
        for at in heads(like):
            own = {name: x[at] for name, x in W.items()}
            k, v = keys[at].mT, values[at].mT  # a column is a row of these
            terms.append(loss(node.objective, forms.apply(node, own, k, {})[0], k, v, {}))
        return torch.stack(terms).sum()

    short = {name: parts[f"{memory.name}_{name}"] for name, _ in node.parts}
    grads = torch.func.grad(total)(short)
    rate = lr.reshape(*lr.shape, *(1,) * (like.dim() - lr.dim())) if isinstance(lr, Tensor) else lr
    return {f"{memory.name}_{name}": x - rate * grads[name] for name, x in short.items()}


def applied(memory: RuleMemory, parts: Parts, like: Tensor, x: Tensor) -> Tensor:
    """M of every column."""
    node: Memory = memory_of(memory, like.shape[-2], like.shape[-1])
    outs = []
    for at in heads(like):
        own = {name: parts[f"{memory.name}_{name}"][at] for name, _ in node.parts}
        outs.append(forms.apply(node, own, x[at].mT, {})[0].mT)
    return torch.stack(outs).reshape(*like.shape[:-2], *outs[0].shape)


def heads(like: Tensor) -> list[tuple[int, ...]]:
    return list(product(*(range(n) for n in like.shape[:-2])))
