"""Mixed precision: under torch.autocast the operands of large matrix products are bfloat16, all else is float32.

    with autocast("bfloat16", "cuda"):
        loss, state = model.loss(tokens, targets)

`runtime.ops` sees to it: a product gives its result back in float32 (`wide`), so that norms, gates, logarithms of
retention and the residual stream never are anything less; memories with a recurrence run as a whole in float32
(`full`), triangular systems included, since their products are their state.  Weights, states, sums of a period,
gradients and what rules remember are float32.  float16 is treated alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

DEVICES = ("cpu", "cuda")
HALVES = (torch.bfloat16, torch.float16)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
F = TypeVar("F", bound=Callable[..., Any])


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """How a forward pass of `run.precision` is computed: bfloat16 by autocast; the others are the weights' own type."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def mixed(x: Tensor) -> bool:
    """Whether operations on `x` are under autocast."""
    return x.device.type in DEVICES and torch.is_autocast_enabled(x.device.type)


def wide(x: Tensor) -> Tensor:
    """A product's result in float32, where autocast made it less."""
    return x.float() if x.dtype in HALVES and mixed(x) else x


def half(x: Tensor) -> Tensor:
    """What a product under autocast makes of `x`."""
    return x.to(torch.get_autocast_dtype(x.device.type)) if x.dtype == torch.float32 else x


def exact(x: Tensor) -> AbstractContextManager[Any]:
    """In here, operations on the device of `x` keep the type of what they are given."""
    return torch.autocast(x.device.type, enabled=False) if mixed(x) else nullcontext()


def same(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """The mode that operations on `x` are in now, for a backward pass to be in it again."""
    kind = x.device.type
    if kind not in DEVICES:
        return nullcontext
    return partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def full(function: F) -> F:
    """A function that, under autocast, runs without it and gets its tensors in float32."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        kinds = [kind for kind in DEVICES if torch.is_autocast_enabled(kind)]
        if not kinds:
            return function(*arguments, **options)
        with ExitStack() as off:
            for kind in kinds:
                off.enter_context(torch.autocast(kind, enabled=False))
            return function(*widened(arguments), **widened(options))

    return call  # type: ignore[return-value]


def widened(tree: Any) -> Any:
    """Every half-precision tensor of nested tuples, lists and mappings in float32."""
    if isinstance(tree, Tensor):
        return tree.float() if tree.dtype in HALVES else tree
    if isinstance(tree, dict):
        return {name: widened(x) for name, x in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(widened(x) for x in tree)
    return tree


def in_float32(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A hook before a module's forward: what a caller's autocast made of its inputs is float32 again."""
    return (given, widened(named)) if any(isinstance(x, Tensor) and mixed(x) for x in named.values()) else None
