"""Where weights and registers lie while tokens are read one by one: together, in few pages."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from runtime.allocator import in_huge_pages
from runtime.ops.boundaries import unread
from runtime.ops.one import NEAR, by_columns
from runtime.state import State, over

DONE: WeakSet[nn.Module] = WeakSet()  # models that `lay` has seen
COPIES: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()  # a register that is still there -> its copy


@torch.no_grad()
def lay(model: nn.Module) -> None:
    """Put a model's weights together, once."""
    if model in DONE:
        return
    DONE.add(model)
    large = [weight for weight in model.parameters() if _large(weight)]
    for weight, copy in zip(large, laid([w.data for w in large]), strict=True):
        weight.data = copy


@torch.no_grad()
def registers(state: State) -> State:
    """The same state, what is large of it and read copied to one place; the given state is as it was.

    What no write has changed since the last time is there already.  Copies lie alike, wherever registers did."""
    read = (x for register in state.values() for name, x in register.items() if not unread(name))
    new = {id(x): x for x in read if _large(x) and x not in COPIES}
    COPIES.update(zip(new.values(), laid(list(new.values())), strict=True))
    return over(lambda x: COPIES.get(x, x), state)


def laid(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies in huge pages, each as a product with one row goes through it fastest."""
    columns = [by_columns(x) for x in tensors]
    copies = in_huge_pages([x.flatten(0, -2).t() if by else x for x, by in zip(tensors, columns, strict=True)])
    return [copy.t().view(x.shape) if by else copy for x, copy, by in zip(tensors, copies, columns, strict=True)]


def _large(x: Tensor) -> bool:
    return x.is_cpu and x.nbytes >= NEAR[0]
