"""Functions that launch kernels, as operators, and how a kernel is launched.

`torch.compile` needs an operator, which it sees through to the kernels.  An ordinary call needs none: the dispatcher,
and what it wraps around a Python function, would take longer than some kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor
from torch._library.triton import is_wrap_triton_enabled, set_wrap_triton_enabled
from torch.library import triton_op, wrap_triton

P = ParamSpec("P")
R = TypeVar("R")

ALIGNED = 16  # bytes: Triton compiles a kernel again for pointers that are no multiple of it
# A compiled kernel of these Tritons is called as its function is: with every argument and constant of the signature.
DIRECT = (3, 6) <= tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 7)


def operator(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function of tensors that calls `launch` the operator `name`; it changes no argument."""

    def made(function: Callable[P, R]) -> Callable[P, R]:
        traced: Callable[P, R] = triton_op(name, mutates_args=())(function)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return traced(*args, **kwargs)
            assert isinstance(args[0], Tensor)
            # as inside of the operator; Triton launches on the current device, wherever the tensors are
            with set_wrap_triton_enabled(False), torch.cuda.device_of(args[0]):
                return function(*args, **kwargs)

        return called

    return made


@dataclass(frozen=True, eq=False)
class Built:
    """What a kernel is compiled for: its constants, which follow all else in its signature, warps and stages.

    registers: of a thread, at most; 0: as many as there are.
    found: the compiled kernel, and its constants in order, by the device and the types of its tensors.
    """

    constants: dict[str, Any]
    warps: int
    stages: int = 1
    registers: int = 0
    found: dict[tuple[Any, ...], tuple[Any, list[Any]]] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, int]:
        """What the compiler is told."""
        most = {"maxnreg": self.registers} if self.registers else {}
        return {"num_warps": self.warps, "num_stages": self.stages, **most}

    def launch(self, kernel: Any, grid: tuple[int, int, int], *args: Tensor | float) -> None:
        """kernel[grid](*args): directly, where the same was launched before.

        Triton looks at every argument and constant to find what it has compiled, which takes longer than some kernels
        run.  It finds the same where constants, types and the alignment of pointers are the same: at sizes it is told
        not to look (tiles.SIZES), nor does it at floats.
        """
        tensors = [x for x in args if isinstance(x, Tensor)]
        key = (tensors[0].get_device(), *[x.dtype for x in tensors])
        again = launched(kernel) and not any(x.data_ptr() % ALIGNED for x in tensors)
        if again and key in self.found:
            compiled, constants = self.found[key]
            compiled[grid](*args, *constants)
            return
        compiled = wrap_triton(kernel)[grid](*args, **self.constants, **self.options)
        if again:
            self.found[key] = compiled, [self.constants[name] for name in kernel.arg_names[len(args) :]]


def launched(kernel: Any) -> bool:
    """Whether a call runs the kernel on a GPU, neither interpreted nor traced, as compiled kernels are called."""
    return DIRECT and isinstance(kernel, triton.runtime.JITFunction) and not is_wrap_triton_enabled()
