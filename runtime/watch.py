"""Which operation first made a number that is not finite, and the line of the generated model it belongs to.

A watch is a mode of torch: every function called while it is on comes by.  An infinity may be meant (a mask, an
exponential in a quotient): it counts where something that is not a number comes of it, or nothing else is found.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MEANT = {"masked_fill", "masked_fill_", "where", "full", "full_like", "new_full", "fill_", "tensor", "pad"}
SAID = re.compile(r"\s*# .*\S:\d+$")  # a comment that ends with the place in the spec
UNWRITTEN = {"empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided"}


@dataclass(frozen=True, slots=True)
class Line:
    """A statement of the generated model: of which layer (None: none), and the equation of the spec above it."""

    layer: int | None
    function: str
    number: int
    statement: str
    equation: str  # x = slow(mid(fast(x)))  hope.yaml:50

    def mentions(self, place: str) -> bool:
        """Whether the statement reads or writes this memory."""
        level, _, name = place.rpartition(".")
        method = "write_" + "".join(c if c.isalnum() else "_" for c in place)
        shared = f'f"{level}.{{' in self.statement and bool(name)
        return shared or self.function == method or f'"{place}"' in self.statement or f'"{place}.' in self.statement


@dataclass(frozen=True, slots=True)
class Origin:
    operation: str
    line: Line | None


class Watch(TorchFunctionMode):
    """`with Watch(model) as watch: model.loss(...)`; then `watch.origin`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.code = Code(model)
        self.infinite: Origin | None = None
        self.nan: Origin | None = None

    @property
    def origin(self) -> Origin | None:
        return self.nan or self.infinite

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.nan is not None:
            return func(*args, **kwargs)
        given = list(tensors([args, {k: x for k, x in kwargs.items() if k != "out"}]))
        was = [kinds(x) for x in given]
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        self._note(name, kinds_of(was), kinds_of(kinds(x) for x in tensors([out, *given[:1]])))
        return out

    def _note(self, name: str, before: tuple[bool, bool], after: tuple[bool, bool]) -> None:
        """`before`, `after`: whether a function was given, and gave, something not a number, and an infinity."""
        if name in UNWRITTEN:
            return
        if after[0] and not before[0]:
            here = Origin(name, self.code.line(sys._getframe(2)))
            self.nan = self.infinite if before[1] and self.infinite is not None else here
        elif after[1] and not any(before) and name not in MEANT and self.infinite is None:
            self.infinite = Origin(name, self.code.line(sys._getframe(2)))


def tensors(tree: Any) -> Iterator[Tensor]:
    """Those of floating point in nested arguments."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors(item)


def kinds(x: Tensor) -> tuple[bool, bool]:
    with torch._C.DisableTorchFunction():
        return bool(x.isnan().any()), bool(x.isinf().any())


def kinds_of(found: Iterable[tuple[bool, bool]]) -> tuple[bool, bool]:
    pairs = list(found)
    return any(a for a, _ in pairs), any(b for _, b in pairs)


class Code:
    """The text of a model's module, and the way from a frame to the statement that runs in it."""

    def __init__(self, model: nn.Module) -> None:
        method = getattr(type(model), "run", None) or getattr(type(model), "nats", None) or type(model).forward
        self.file: str = method.__code__.co_filename
        self.layers = {id(block): i for i, block in enumerate(getattr(model, "blocks", ()))}

    def line(self, frame: FrameType | None) -> Line | None:
        """The statement of the model that a frame is called from: the innermost of a layer's, or of any."""
        found: FrameType | None = None
        while frame is not None:
            if frame.f_code.co_filename == self.file:
                layer = self.layers.get(id(frame.f_locals.get("self")))
                if layer is not None:
                    return self.at(frame.f_lineno, frame.f_code.co_name, layer)
                found = found or frame
            frame = frame.f_back
        return None if found is None else self.at(found.f_lineno, found.f_code.co_name, None)

    def at(self, number: int, function: str, layer: int | None) -> Line:
        lines = linecache.getlines(self.file)
        first, last = statement(tuple(lines), number)
        text = " ".join(line.strip() for line in lines[first - 1 : last])
        above = next((x.strip() for x in reversed(lines[: first - 1]) if SAID.match(x)), "")
        return Line(layer, function, number, text, " ".join(above.removeprefix("# ").split()))


def statement(lines: tuple[str, ...], number: int) -> tuple[int, int]:
    """First and last line of the smallest statement around a line."""
    try:
        nodes = [n for n in ast.walk(ast.parse("".join(lines))) if isinstance(n, ast.stmt)]
    except SyntaxError:
        return number, number
    around = [(n.lineno, n.end_lineno or n.lineno) for n in nodes if n.lineno <= number <= (n.end_lineno or n.lineno)]
    return min(around, key=lambda span: span[1] - span[0], default=(number, number))
