"""Monte Carlo arithmetic: what an answer owes to the rounding of the operations it is made of, not to what they mean.

with Rounded(seed): ...      every sum, product and function of floating-point numbers, forward and backward, comes out
                             off by 1e-15 of itself, at random, and so do the factors of a matrix product and every
                             gradient that meets another at a value

Two right programs may add up in different orders.  A difference between them that random rounding brings about in one
of them as well says nothing.  Source: Parker, Monte Carlo Arithmetic, 1997.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mm", "bmm", "mv", "dot", "addmm", "baddbmm")
UNIT = 1e-15  # a few units in the last place of float64
SATURATED = ("erf", "sigmoid", "tanh")  # where they come out as 1, they are rounded
WHOLE = 2.0**52  # from here on every number of float64 is whole, and rounded like any other
EXACT = frozenset(
    "abs neg clone copy detach cat stack where masked_fill zeros zeros_like ones ones_like full full_like new_zeros "
    "new_ones scalar_tensor eye arange relu clamp sign max min amax amin maximum minimum gather index select_backward "
    "slice_backward index_put scatter embedding repeat flip tril triu constant_pad_nd lift_fresh _to_copy roll fill "
    "threshold_backward".split()
)  # operators that move numbers, choose among them, or make them


class Rounded(TorchDispatchMode):
    """While it is entered, operations round at random; views and whole numbers, such as exponents, stay as they are."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("add", "add_") and torch._C._current_graph_task_id() >= 0:  # inside a backward pass
            mine = args[0].mul_(self.factor(args[0])) if name == "add_" else self.off(args[0])
            args = [mine, *(self.off(x) for x in args[1:])]
        elif name in PRODUCTS:  # one operation that sums many products, each of which rounds
            args = [self.off(x) for x in args]
        found = func(*args, **(kwargs or {}))
        if func.is_view or name.rstrip("_") in EXACT:
            return found
        for x in found if isinstance(found, tuple | list) else (found,):
            if rounds(x):
                x.mul_(self.factor(x, args[0] if name in SATURATED else None))
        return found

    def off(self, x: Any) -> Any:
        return x * self.factor(x) if rounds(x) else x

    def factor(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        """What rounding makes of 1; of a whole number that may be exact, a count, it makes nothing else.

        `of`: what x is a saturated function of, exact at 0 alone: erf(-8) comes out as -1, and is not."""
        inexact = (x != x.round()) | (x.abs() >= WHOLE)
        if of is not None:
            inexact = inexact | (of != 0)
        return 1 + UNIT * inexact * torch.randn(x.shape, generator=self.draw, dtype=x.dtype)


def rounds(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and has_memory(x)


def has_memory(x: Tensor) -> bool:
    """Not so of shapes without numbers, nor of the zeros that stand for the gradient of what does not depend."""
    return x.device.type != "meta" and not x._is_zerotensor()
