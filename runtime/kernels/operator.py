"""Functions that launch kernels, as operators.

`torch.compile` needs an operator, which it sees through to the kernels.  An ordinary call needs none: the dispatcher,
and what it wraps around a Python function, would take longer than some kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch._library.triton import set_wrap_triton_enabled
from torch.library import triton_op

P = ParamSpec("P")
R = TypeVar("R")


def operator(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function of tensors that launches kernels by `wrap_triton` the operator `name`; it changes no argument."""

    def made(launch: Callable[P, R]) -> Callable[P, R]:
        traced: Callable[P, R] = triton_op(name, mutates_args=())(launch)

        @wraps(launch)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return traced(*args, **kwargs)
            with set_wrap_triton_enabled(False):  # as inside of the operator
                return launch(*args, **kwargs)

        return called

    return made
