"""Models under torch.inference_mode(): a token's own error needs a graph, and inference tensors cannot be in one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def outside_inference(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method; called in inference mode it runs outside, without gradients, on copies of what was made inside.

    What it returns are ordinary tensors, so that a state can be fed back in either mode."""

    @wraps(method)
    def outside(*arguments: Any, **named: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return method(*arguments, **named)
        with torch.inference_mode(False), torch.no_grad():
            return method(*map(ordinary, arguments), **{name: ordinary(value) for name, value in named.items()})

    return outside


def ordinary(value: Any) -> Any:
    """Without inference tensors: a tensor, or a state of them."""
    if isinstance(value, dict):
        return {name: ordinary(inside) for name, inside in value.items()}
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
