"""Monte Carlo arithmetic: what an answer owes to the rounding of the operations it is made of, not to what they mean.

with Rounded(seed): ...      every sum, product and function of floating-point numbers, forward and backward, comes out
                             off by 1e-15 of itself, at random

Two right programs may add up in different orders.  A difference between them that random rounding brings about in one
of them as well says nothing.  Source: Parker, Monte Carlo Arithmetic, 1997.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIT = 1e-15  # a few units in the last place of float64
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
        found = func(*args, **(kwargs or {}))
        if func.is_view or func.overloadpacket.__name__.rstrip("_") in EXACT:
            return found
        for x in found if isinstance(found, tuple | list) else (found,):
            if isinstance(x, Tensor) and x.is_floating_point() and has_memory(x):
                x.mul_(1 + UNIT * (x != x.round()) * torch.randn(x.shape, generator=self.draw, dtype=x.dtype))
        return found


def has_memory(x: Tensor) -> bool:
    """Not so of shapes without numbers, nor of the zeros that stand for the gradient of what does not depend."""
    return x.device.type != "meta" and not x._is_zerotensor()
