"""Every operator of the block language: its arguments, its shape rule, the weights it makes, what it costs.  No torch here.

    OPERATORS["linear"].shape(((256,),), {"out": 64, "bias": False}) == (64,)
    OPERATORS["linear"].weights(((256,),), {"out": 64, "bias": False}) == (Made("", (64, 256), NORMAL, None, decay=True),)

Shapes are the axes after batch and token.  Operators act on the last axis; in front of it stand head-like axes.  Operands of an
element-by-element operator align from the left: equal shapes, or one the beginning of the other (`[heads]` scales the rows
of `[heads, head]`), or a number.  `split` is the one operator with several results: its shape is that of its input, and each
`item` picks one piece.  Comparisons give 1 or 0.

A new operator is added here, in nlc/interpret/operators.py and in runtime/ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

Shape = tuple[int, ...]
Options = Mapping[str, Any]


class Kind(Enum):
    """What may be written for an option."""

    SIZE = "size"  # a whole number, or an expression of sizes
    NUMBER = "number"
    BOOLEAN = "boolean"
    SHAPE = "shape"  # a list of sizes, or one
    SIZES = "sizes"  # a count of equal pieces, or the list of their sizes
    START = "start"  # a number, or normal | zeros | identity


REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Option:
    """A static argument.  `default` may be the name of a size; None means: decided by the shapes."""

    name: str
    kind: Kind
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Made:
    """A weight an operator makes.  `suffix` follows the operator's name ("" for its main weight); scale None is fan-in^-1/2."""

    suffix: str
    shape: Shape
    init: str  # normal | constant | identity
    scale: float | None
    decay: bool = False


class ShapeError(Exception):
    """Shapes that do not meet; pass shapes gives it a place.  args: what is wrong, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def show(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else "a number"


ShapeRule = Callable[[tuple[Shape, ...], Options], Shape]
WeightRule = Callable[[tuple[Shape, ...], Options], tuple[Made, ...]]
Count = Callable[[tuple[Shape, ...], Options, Shape], int]


@dataclass(frozen=True, slots=True)
class Operator:
    """`operands` are the least and most values it takes (None: any number).  `symbol` operators cannot be called by name.

    `flops` are per token, forward, a multiply and an add counted apart; `saved` is how many numbers of it a backward pass needs."""

    name: str
    operands: tuple[int, int | None]
    doc: str
    shape: ShapeRule
    options: tuple[Option, ...] = ()
    weights: WeightRule = lambda inputs, options: ()
    suffixes: Callable[[Options], tuple[str, ...]] = lambda options: ()
    flops: Count = lambda inputs, options, out: prod(out)
    saved: Count = lambda inputs, options, out: prod(out)
    symbol: str = ""
    register: bool = False  # remembers earlier tokens
    gradient: bool = True  # False where no derivative passes


# ---- shape rules ----------------------------------------------------------------------------------------------


def meet(*shapes: Shape) -> Shape:
    """The common shape of operands that align from the left.  Raises ShapeError."""
    longest = max(shapes, key=len)
    for shape in shapes:
        if longest[: len(shape)] != shape:
            raise ShapeError(f"shapes do not meet: {show(shape)} and {show(longest)}", "shapes align from the left")
    return longest


def _vector(shape: Shape, what: str) -> None:
    if not shape:
        raise ShapeError(f"{what} acts on the last axis, and a number has none")


def _same(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return inputs[0]


def _elementwise(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return meet(*inputs)


def _rowwise(name: str) -> ShapeRule:
    def rule(inputs: tuple[Shape, ...], options: Options) -> Shape:
        _vector(inputs[0], name)
        return inputs[0]

    return rule


def _reduce(name: str) -> ShapeRule:
    def rule(inputs: tuple[Shape, ...], options: Options) -> Shape:
        _vector(inputs[0], name)
        return inputs[0][:-1]

    return rule


def _extremum(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return _reduce("min or max of one value")(inputs, options) if len(inputs) == 1 else meet(*inputs)


def _linear(inputs: tuple[Shape, ...], options: Options) -> Shape:
    _vector(inputs[0], "linear")
    out = options.get("out") or inputs[0][-1]
    return inputs[0][:-1] if out == 1 else (*inputs[0][:-1], out)


def _conv(inputs: tuple[Shape, ...], options: Options) -> Shape:
    if len(inputs[0]) != 1:
        raise ShapeError(f"conv takes a vector, not {show(inputs[0])}", "convolve before heads()")
    if options["window"] < 1:
        raise ShapeError(f"a window of {options['window']} tokens", "1 is the token alone")
    return inputs[0]


def _rope(inputs: tuple[Shape, ...], options: Options) -> Shape:
    _vector(inputs[0], "rope")
    if inputs[0][-1] % 2:
        raise ShapeError(f"rope turns pairs, and {show(inputs[0])} has an odd last axis")
    return inputs[0]


def _heads(inputs: tuple[Shape, ...], options: Options) -> Shape:
    _vector(inputs[0], "heads")
    *leading, width = inputs[0]
    n = options["n"]
    if n < 1 or width % n:
        raise ShapeError(f"{width} does not divide into {n} heads")
    return (*leading, n, width // n)


def _merge(inputs: tuple[Shape, ...], options: Options) -> Shape:
    if len(inputs[0]) < 2:
        raise ShapeError(f"merge joins the last two axes, and {show(inputs[0])} has no two", "heads() made them?")
    return (*inputs[0][:-2], inputs[0][-2] * inputs[0][-1])


def _matrix(name: str, inputs: tuple[Shape, ...]) -> Shape:
    if len(inputs[0]) < 2:
        raise ShapeError(f"{name} takes a matrix, not {show(inputs[0])}")
    return inputs[0]


def _transpose(inputs: tuple[Shape, ...], options: Options) -> Shape:
    *leading, n, m = _matrix("transpose", inputs)
    return (*leading, m, n)


def _trace(inputs: tuple[Shape, ...], options: Options) -> Shape:
    *leading, n, m = _matrix("trace", inputs)
    if n != m:
        raise ShapeError(f"trace takes a square matrix, not {show(inputs[0])}")
    return tuple(leading)


def _newton_schulz(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return _matrix("newton_schulz", inputs)


def _outer(inputs: tuple[Shape, ...], options: Options) -> Shape:
    for shape in inputs:
        _vector(shape, "outer")
    a, b = inputs
    return (*meet(a[:-1], b[:-1]), a[-1], b[-1])


def _matmul(inputs: tuple[Shape, ...], options: Options) -> Shape:
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


def _concat(inputs: tuple[Shape, ...], options: Options) -> Shape:
    for shape in inputs:
        _vector(shape, "concat")
        if shape[:-1] != inputs[0][:-1]:
            raise ShapeError(
                f"shapes do not meet: {show(inputs[0])} and {show(shape)}", "only the last axes may differ"
            )
    return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


def pieces(shape: Shape, into: int | tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the pieces of a split.  Raises ShapeError."""
    _vector(shape, "split")
    if isinstance(into, int):
        if into < 1 or shape[-1] % into:
            raise ShapeError(f"{shape[-1]} does not divide into {into} equal pieces")
        return (shape[-1] // into,) * into
    if sum(into) != shape[-1]:
        raise ShapeError(f"pieces of {' + '.join(map(str, into))} do not make up {shape[-1]}")
    return into


def _split(inputs: tuple[Shape, ...], options: Options) -> Shape:
    pieces(inputs[0], options["n"])
    return inputs[0]


def _item(inputs: tuple[Shape, ...], options: Options) -> Shape:
    return (*inputs[0][:-1], options["size"])


def _slice(inputs: tuple[Shape, ...], options: Options) -> Shape:
    """`start` and `stop` count from 0, from the end when negative; None is the end itself; `single` drops the axis."""
    _vector(inputs[0], "a slice")
    width = inputs[0][-1]
    start, stop = options.get("start"), options.get("stop")
    for bound in (start, stop):
        if bound is not None and not -width <= bound <= width:
            raise ShapeError(f"{bound} lies outside a last axis of {width}")
    size = len(range(width)[start:stop])
    if size < 1:
        raise ShapeError(f"the slice of a last axis of {width} is empty")
    return inputs[0][:-1] if options.get("single") else (*inputs[0][:-1], size)


# ---- weight rules ---------------------------------------------------------------------------------------------


def _linear_weights(inputs: tuple[Shape, ...], options: Options) -> tuple[Made, ...]:
    *leading, width = inputs[0]
    out = options.get("out") or width
    matrix = Made("", (*leading, out, width), "normal", width**-0.5, decay=True)
    bias = Made("_bias", tuple(leading) if out == 1 else (*leading, out), "constant", 0.0)
    return (matrix, bias) if options.get("bias") else (matrix,)


def _conv_weights(inputs: tuple[Shape, ...], options: Options) -> tuple[Made, ...]:
    return (Made("", (options["window"], inputs[0][-1]), "normal", 0.5),)


def _gain(inputs: tuple[Shape, ...], options: Options) -> tuple[Made, ...]:
    return (Made("", inputs[0][-1:], "constant", 1.0),)


def _gain_and_bias(inputs: tuple[Shape, ...], options: Options) -> tuple[Made, ...]:
    return (*_gain(inputs, options), Made("_bias", inputs[0][-1:], "constant", 0.0))


def _param(inputs: tuple[Shape, ...], options: Options) -> tuple[Made, ...]:
    start, shape = options["start"], options["shape"]
    match start:
        case "normal":
            return (Made("", shape, "normal", (shape[-1] if shape else 1) ** -0.5),)
        case "identity":
            if len(shape) < 2:
                raise ShapeError(f"an identity start needs a matrix, not {show(shape)}")
            return (Made("", shape, "identity", 1.0),)
        case "zeros":
            return (Made("", shape, "constant", 0.0),)
    return (Made("", shape, "constant", float(start)),)


# ---- costs ----------------------------------------------------------------------------------------------------


def _times(n: int) -> Count:
    """n operations per number of the result."""
    return lambda inputs, options, out: n * prod(out)


def _per_input(n: int) -> Count:
    return lambda inputs, options, out: n * prod(inputs[0])


def _nothing(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return 0


def _operands(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return sum(prod(shape) for shape in inputs)


def _linear_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return 2 * prod(inputs[0]) * (options.get("out") or inputs[0][-1])


def _matmul_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return 2 * prod(out) * inputs[0][-1]


def _newton_schulz_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    *leading, n, m = out
    n, m = min(n, m), max(n, m)
    return prod(leading) * options["steps"] * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)


# ---- the table ------------------------------------------------------------------------------------------------

OPERATORS: dict[str, Operator] = {}


def _add(
    name: str, operands: int | tuple[int, int | None], shape: ShapeRule, doc: str, *options: Option, **more: Any
) -> None:
    span = (operands, operands) if isinstance(operands, int) else operands
    OPERATORS[name] = Operator(name, span, doc, shape, options, **more)


_O = Option
_main = {"suffixes": lambda options: ("",)}
_main_and_bias = {"suffixes": lambda options: ("", "_bias") if options.get("bias") else ("",)}

_add("linear", 1, _linear, "W v (+ b): one W per index of the leading axes; out=1 drops the axis",
     _O("out", Kind.SIZE, None), _O("bias", Kind.BOOLEAN, False),
     weights=_linear_weights, flops=_linear_flops, saved=_operands, **_main_and_bias)  # fmt: skip
_add("conv", 1, _conv, "causal depthwise convolution over the last `window` tokens", _O("window", Kind.SIZE),
     weights=_conv_weights, flops=lambda i, o, out: 2 * o["window"] * prod(out), saved=_operands, register=True, **_main)  # fmt: skip
_add("prev", 1, _same, "the value at the previous token, 0 at the first", flops=_nothing, saved=_nothing, register=True)
_add("rmsnorm", 1, _rowwise("rmsnorm"), "v / sqrt(mean(v^2) + 1e-5) times a learned gain",
     weights=_gain, flops=_times(4), saved=_operands, **_main)  # fmt: skip
_add("layernorm", 1, _rowwise("layernorm"), "(v - mean) / sqrt(variance + 1e-5) times a learned gain, plus a learned bias",
     weights=_gain_and_bias, flops=_times(6), saved=_operands, suffixes=lambda options: ("", "_bias"))  # fmt: skip
_add("l2norm", 1, _rowwise("l2norm"), "v / max(|v|, 1e-6)", flops=_times(3))
_add("softmax", 1, _rowwise("softmax"), "exp(v) / sum(exp(v)) over the last axis", flops=_times(4))
for _name, _doc in {
    "silu": "v sigmoid(v)", "gelu": "v times the normal distribution function at v", "relu": "max(v, 0)",
    "sigmoid": "1 / (1 + exp(-v))", "tanh": "hyperbolic tangent", "softplus": "log(1 + exp(v))", "exp": "e^v",
    "log": "natural logarithm", "sqrt": "square root", "abs": "absolute value",
}.items():  # fmt: skip
    _add(_name, 1, _same, _doc)
_add("sign", 1, _same, "-1, 0 or 1", saved=_nothing, gradient=False)
_add(
    "min",
    (1, None),
    _extremum,
    "the least: of one value over its last axis, of several element by element",
    flops=_operands,
)
_add(
    "max",
    (1, None),
    _extremum,
    "the greatest: of one value over its last axis, of several element by element",
    flops=_operands,
)
_add("where", 3, _elementwise, "where(condition, a, b): a where the condition is not 0, else b")
_add(
    "norm",
    1,
    _reduce("norm"),
    "(sum |v|^p)^(1/p) over the last axis",
    _O("p", Kind.NUMBER, 2.0),
    flops=_per_input(2),
    saved=_operands,
)
_add("rope", 1, _rope, "rotary position: turns the pairs (i, i + d/2) by position * base^(-2i/d)",
     _O("base", Kind.NUMBER, 10000.0), flops=_times(3), saved=_nothing, register=True)  # fmt: skip
_add("poly", 1, lambda i, o: (*_rowwise("poly")(i, o)[:-1], i[0][-1] * o["degree"]), "concat(v, v^2, ..., v^degree)",
     _O("degree", Kind.SIZE), saved=_operands)  # fmt: skip
_add(
    "index",
    0,
    lambda i, o: (o["size"],),
    "0, 1, ..., size - 1",
    _O("size", Kind.SIZE),
    flops=_nothing,
    saved=_nothing,
    gradient=False,
)
_add(
    "eye",
    0,
    lambda i, o: (o["n"], o["n"]),
    "the identity matrix",
    _O("n", Kind.SIZE),
    flops=_nothing,
    saved=_nothing,
    gradient=False,
)
_add("outer", 2, _outer, "a b^T", saved=_operands)
_add("transpose", 1, _transpose, "exchanges the last two axes", flops=_nothing, saved=_nothing)
_add("trace", 1, _trace, "sum of the diagonal of the last two axes", saved=_nothing)
_add("concat", (1, None), _concat, "joins values along the last axis", flops=_nothing, saved=_nothing)
_add("split", 1, _split, "n equal pieces of the last axis, or pieces of these sizes: a, b = split(v, 2)",
     _O("n", Kind.SIZES), flops=_nothing, saved=_nothing)  # fmt: skip
_add("heads", 1, _heads, "[n * h] -> [n, h]", _O("n", Kind.SIZE, "heads"), flops=_nothing, saved=_nothing)
_add("merge", 1, _merge, "[n, h] -> [n * h]", flops=_nothing, saved=_nothing)
_add("dropout", 1, _same, "in training, sets a share p to 0 and scales the rest up", _O("p", Kind.NUMBER))
_add("mean", 1, _reduce("mean"), "over the last axis", flops=_per_input(1), saved=_nothing)
_add("sum", 1, _reduce("sum"), "over the last axis", flops=_per_input(1), saved=_nothing)
_add("stop", 1, _same, "the value; no gradient passes", flops=_nothing, saved=_nothing, gradient=False)
_add("newton_schulz", 1, _newton_schulz, "the nearest orthogonal matrix, by `steps` quintic iterations",
     _O("steps", Kind.SIZE, 5), flops=_newton_schulz_flops, saved=lambda i, o, out: prod(out) * o["steps"])  # fmt: skip
_add("param", 0, lambda i, o: o["shape"], "a free weight", _O("shape", Kind.SHAPE), _O("start", Kind.START, "normal"),
     weights=_param, flops=_nothing, saved=_nothing, **_main)  # fmt: skip

for _name, _symbol, _doc in (("add", "+", "a + b"), ("sub", "-", "a - b")):
    _add(_name, 2, _elementwise, _doc, saved=_nothing, symbol=_symbol)
for _name, _symbol, _doc in (("mul", "*", "a b"), ("div", "/", "a / b"), ("pow", "**", "a^b")):
    _add(_name, 2, _elementwise, _doc, saved=_operands, symbol=_symbol)
for _name, _symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!=")):
    _add(_name, 2, _elementwise, f"1 where a {_symbol} b, else 0", saved=_nothing, symbol=_symbol, gradient=False)
_add("matmul", 2, _matmul, "matrix times vector, or matrix times matrix, over the last axes",
     flops=_matmul_flops, saved=_operands, symbol="@")  # fmt: skip
_add("neg", 1, _same, "-v", saved=_nothing, symbol="-")
_add("slice", 1, _slice, "v[start:stop] or v[i] of the last axis", _O("start", Kind.SIZE, None), _O("stop", Kind.SIZE, None),
     _O("single", Kind.BOOLEAN, False), flops=_nothing, saved=_nothing, symbol="[]")  # fmt: skip
_add("item", 1, _item, "one piece of a split: piece `index`, of `size` numbers", _O("index", Kind.SIZE), _O("size", Kind.SIZE, None),
     flops=_nothing, saved=_nothing, symbol=",")  # fmt: skip

BY_SYMBOL = {op.symbol: op.name for op in OPERATORS.values() if op.symbol and op.name not in ("neg", "slice", "item")}
CALLABLE = tuple(sorted(name for name, op in OPERATORS.items() if not op.symbol))  # the names a block may call
