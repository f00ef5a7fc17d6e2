"""Where weights and registers lie while tokens are read one by one: together, in few pages."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import Tensor, nn

from runtime.allocator import in_huge_pages
from runtime.ops.boundaries import unread
from runtime.ops.one import NEAR
from runtime.state import State, over

DONE: WeakSet[nn.Module] = WeakSet()  # models that `lay` has seen


@torch.no_grad()
def lay(model: nn.Module) -> None:
    """Put a model's weights together, once."""
    if model in DONE:
        return
    DONE.add(model)
    large = [weight for weight in model.parameters() if _large(weight)]
    for weight, copy in zip(large, in_huge_pages([w.data for w in large]), strict=True):
        weight.data = copy


@torch.no_grad()
def registers(state: State) -> State:
    """The same state, what is large of it and read copied to one place; the given state is as it was."""
    read = (x for register in state.values() for name, x in register.items() if not unread(name))
    large = {id(x): x for x in read if _large(x)}
    copies = dict(zip(large, in_huge_pages(list(large.values())), strict=True))
    return over(lambda x: copies.get(id(x), x), state)


def _large(x: Tensor) -> bool:
    return x.is_cpu and x.nbytes >= NEAR[0]
