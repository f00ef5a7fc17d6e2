"""The shape rules of the operators: shapes of the operands and static arguments in, shape of the result out.

Shapes are the axes after batch and token.  A rule raises ShapeError; pass shapes gives it a place in the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

Shape = tuple[int, ...]
Options = Mapping[str, Any]
ShapeRule = Callable[[tuple[Shape, ...], Options], Shape]


class ShapeError(Exception):
    """Shapes that do not meet; pass shapes gives it a place.  args: what is wrong, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def show(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else "a number"


def meet(*shapes: Shape) -> Shape:
    """The common shape of operands that align from the left.  Raises ShapeError."""
    longest = max(shapes, key=len)
    for shape in shapes:
        if longest[: len(shape)] != shape:
            raise ShapeError(f"shapes do not meet: {show(shape)} and {show(longest)}", "shapes align from the left")
    return longest


def vector(shape: Shape, what: str) -> None:
    if not shape:
        hint = "linear to a width of 1 gives a number"
        raise ShapeError(f"{what} acts on the last axis, and a number has none", hint)


def same(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return inputs[0]


def elementwise(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return meet(*inputs)


def rowwise(name: str) -> ShapeRule:
    def rule(inputs: tuple[Shape, ...], options: Options) -> Shape:
        vector(inputs[0], name)
        return inputs[0]

    return rule


def reduce(name: str) -> ShapeRule:
    def rule(inputs: tuple[Shape, ...], options: Options) -> Shape:
        vector(inputs[0], name)
        return inputs[0][:-1]

    return rule


def extremum(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return reduce("min or max of one value")(inputs, options) if len(inputs) == 1 else meet(*inputs)


def linear(inputs: tuple[Shape, ...], options: Options) -> Shape:
    vector(inputs[0], "linear")
    out = options.get("out") or inputs[0][-1]
    return inputs[0][:-1] if out == 1 else (*inputs[0][:-1], out)


def conv(inputs: tuple[Shape, ...], options: Options) -> Shape:
    if len(inputs[0]) != 1:
        raise ShapeError(f"conv takes a vector, not {show(inputs[0])}", "convolve before heads()")
    if options["window"] < 1:
        raise ShapeError(f"a window of {options['window']} tokens", "1 is the token alone")
    return inputs[0]


def poly(inputs: tuple[Shape, ...], options: Options) -> Shape:
    vector(inputs[0], "poly")
    return (*inputs[0][:-1], inputs[0][-1] * options["degree"])


def rope(inputs: tuple[Shape, ...], options: Options) -> Shape:
    vector(inputs[0], "rope")
    if inputs[0][-1] % 2:
        raise ShapeError(f"rope turns pairs, and {show(inputs[0])} has an odd last axis")
    return inputs[0]


def heads(inputs: tuple[Shape, ...], options: Options) -> Shape:
    vector(inputs[0], "heads")
    *leading, width = inputs[0]
    n = options["n"]
    if n < 1 or width % n:
        raise ShapeError(f"{width} does not divide into {n} heads")
    return (*leading, n, width // n)


def merge(inputs: tuple[Shape, ...], options: Options) -> Shape:
    if len(inputs[0]) < 2:
        raise ShapeError(f"merge joins the last two axes, and {show(inputs[0])} has no two", "heads() made them?")
    return (*inputs[0][:-2], inputs[0][-2] * inputs[0][-1])


def matrix(name: str, inputs: tuple[Shape, ...]) -> Shape:
    if len(inputs[0]) < 2:
        raise ShapeError(f"{name} takes a matrix, not {show(inputs[0])}")
    return inputs[0]


def fold(inputs: tuple[Shape, ...], options: Options) -> Shape:
    axes = options["axes"]
    return (prod(inputs[0][:axes]), *inputs[0][axes:])


def unfold(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return (*options["sizes"], *inputs[0][1:])


def transpose(inputs: tuple[Shape, ...], options: Options) -> Shape:
    *leading, n, m = matrix("transpose", inputs)
    return (*leading, m, n)


def trace(inputs: tuple[Shape, ...], options: Options) -> Shape:
    *leading, n, m = matrix("trace", inputs)
    if n != m:
        raise ShapeError(f"trace takes a square matrix, not {show(inputs[0])}")
    return tuple(leading)


def newton_schulz(inputs: tuple[Shape, ...], options: Options) -> Shape:
    if options.get("steps", 0) > 100:
        raise ShapeError(f"newton_schulz of {options['steps']} steps", "at most 100; 5 are usual")
    return matrix("newton_schulz", inputs)


def outer(inputs: tuple[Shape, ...], options: Options) -> Shape:
    for shape in inputs:
        vector(shape, "outer")
    a, b = inputs
    return (*meet(a[:-1], b[:-1]), a[-1], b[-1])


def matmul(inputs: tuple[Shape, ...], options: Options) -> Shape:
    a, b = inputs
    if len(a) < 2 or not b:
        raise ShapeError(f"@ takes a matrix and a vector or matrix, not {show(a)} and {show(b)}")
    if len(b) == len(a) - 1:
        if b[-1] != a[-1] or b[:-1] != a[:-2]:
            raise ShapeError(
                f"shapes do not meet: {show(a)} @ {show(b)}", f"the vector must be {show((*a[:-2], a[-1]))}"
            )
        return (*a[:-2], a[-2])
    if len(b) != len(a) or b[:-2] != a[:-2] or a[-1] != b[-2]:
        raise ShapeError(f"shapes do not meet: {show(a)} @ {show(b)}")
    return (*a[:-1], b[-1])


def concat(inputs: tuple[Shape, ...], options: Options) -> Shape:
    for shape in inputs:
        vector(shape, "concat")
        if shape[:-1] != inputs[0][:-1]:
            raise ShapeError(
                f"shapes do not meet: {show(inputs[0])} and {show(shape)}", "only the last axes may differ"
            )
    return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


def pieces(shape: Shape, into: int | tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the pieces of a split.  Raises ShapeError."""
    vector(shape, "split")
    if isinstance(into, int):
        if into < 1 or shape[-1] % into:
            raise ShapeError(f"{shape[-1]} does not divide into {into} equal pieces")
        return (shape[-1] // into,) * into
    if sum(into) != shape[-1]:
        raise ShapeError(f"pieces of {' + '.join(map(str, into))} do not make up {shape[-1]}")
    return into


def split(inputs: tuple[Shape, ...], options: Options) -> Shape:
    pieces(inputs[0], options["n"])
    return inputs[0]


def item(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return (*inputs[0][:-1], options["size"])


def slice(inputs: tuple[Shape, ...], options: Options) -> Shape:
    """`start` and `stop` count from 0, from the end when negative; None is the end itself; `single` drops the axis."""
    vector(inputs[0], "a slice")
    width = inputs[0][-1]
    start, stop = options.get("start"), options.get("stop")
    for bound in (start, stop):
        if bound is not None and not -width <= bound <= width:
            raise ShapeError(f"{bound} lies outside a last axis of {width}")
    size = len(range(width)[start:stop])
    if size < 1:
        raise ShapeError(f"the slice of a last axis of {width} is empty")
    return inputs[0][:-1] if options.get("single") else (*inputs[0][:-1], size)


def index(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return (options["size"],)


def eye(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return (options["n"], options["n"])


def param(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return tuple(options["shape"])
