"""Every operator of the block language: its arguments, shape rule, weights and cost.  No torch here.

    OPERATORS["linear"].shape(((256,),), {"out": 64, "bias": False}) == (64,)
    OPERATORS["linear"].weights(((256,),), {"out": 64, "bias": False}) == (Made("", (64, 256), NORMAL, None,
    decay=True),)

Shapes are the axes after batch and token.  Operators act on the last axis; in front of it stand head-like axes.
Operands of an element-by-element operator align from the left: equal shapes, or one the beginning of the other
(`[heads]` scales the rows of `[heads, head]`), or a number.  `split` is the one operator with several results: its
shape is that of its input, and each `item` picks one piece.  Comparisons give 1 or 0.

A new operator is added here, in nlc/interpret/operators.py and in runtime/ops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from nlc import operator_shapes as rule
from nlc.operator_shapes import Options, Shape, ShapeError, ShapeRule, meet, pieces, show

__all__ = [
    "BY_SYMBOL", "CALLABLE", "OPERATORS", "REQUIRED", "Kind", "Made", "Operator", "Option", "Shape", "ShapeError",
    "meet", "pieces", "show",
]  # fmt: skip


class Kind(Enum):
    """What may be written for an option."""

    SIZE = "size"  # a whole number, or an expression of sizes
    NUMBER = "number"
    POSITIVE = "positive"  # a number above 0
    SHARE = "share"  # a number from 0 to below 1
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
    """A weight an operator makes.  `suffix` follows the operator's name; it is "" for its main weight."""

    suffix: str
    shape: Shape
    init: str  # normal | constant | identity
    scale: float | None
    decay: bool = False


WeightRule = Callable[[tuple[Shape, ...], Options], tuple[Made, ...]]
Count = Callable[[tuple[Shape, ...], Options, Shape], int]


@dataclass(frozen=True, slots=True)
class Operator:
    """`operands` are the least and most values it takes (None: any number).  One with a `symbol` has no name to call.

    `flops` are per token, forward, a multiply and an add counted apart; `saved` is how many numbers a backward pass
    needs."""

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


def _conv_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return 2 * int(options["window"]) * prod(out)


def _matmul_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    return 2 * prod(out) * inputs[0][-1]


def _newton_schulz_flops(inputs: tuple[Shape, ...], options: Options, out: Shape) -> int:
    *leading, n, m = out
    n, m = min(n, m), max(n, m)
    return prod(leading) * int(options["steps"]) * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)


# ---- the table ------------------------------------------------------------------------------------------------

OPERATORS: dict[str, Operator] = {}


def _add(
    name: str, operands: int | tuple[int, int | None], shape: ShapeRule, doc: str, *options: Option, **more: Any
) -> None:
    span = (operands, operands) if isinstance(operands, int) else operands
    OPERATORS[name] = Operator(name, span, doc, shape, options, **more)


_O = Option
_main: Any = {"suffixes": lambda options: ("",)}
_main_and_bias: Any = {"suffixes": lambda options: ("", "_bias") if options.get("bias") else ("",)}
_free: Any = {"flops": _nothing, "saved": _nothing}  # moves numbers, computes nothing
_over_last = "of one value over its last axis, of several element by element"

# fmt: off
# weighted
_add("linear", 1, rule.linear, "W v (+ b), W [out, in]: one for each index of the leading axes; out=1 drops the axis",
     _O("out", Kind.SIZE, None), _O("bias", Kind.BOOLEAN, False),
     weights=_linear_weights, flops=_linear_flops, saved=_operands, **_main_and_bias)
_add("conv", 1, rule.conv, "causal depthwise convolution over the last `window` tokens; 0 before the first",
     _O("window", Kind.SIZE), weights=_conv_weights, flops=_conv_flops, saved=_operands, register=True, **_main)
_add("rmsnorm", 1, rule.rowwise("rmsnorm"), "v / sqrt(mean(v^2) + 1e-5), times a gain",
     weights=_gain, flops=_times(4), saved=_operands, **_main)
_add("layernorm", 1, rule.rowwise("layernorm"), "(v - mean) / sqrt(variance + 1e-5), times a gain, plus a bias",
     weights=_gain_and_bias, flops=_times(6), saved=_operands, suffixes=lambda options: ("", "_bias"))
_add("param", 0, rule.param, "a free weight; start is a number, normal, zeros or identity",
     _O("shape", Kind.SHAPE), _O("start", Kind.START, "normal"),
     weights=_param, **_free, **_main)

# element by element
for _name, _doc in {
    "silu": "v sigmoid(v)", "gelu": "v times the normal distribution function at v", "relu": "max(v, 0)",
    "sigmoid": "1 / (1 + exp(-v))", "tanh": "hyperbolic tangent", "softplus": "log(1 + exp(v))", "exp": "e^v",
    "log": "natural logarithm", "sqrt": "square root", "abs": "absolute value",
}.items():
    _add(_name, 1, rule.same, _doc)
_add("sign", 1, rule.same, "-1, 0 or 1", saved=_nothing, gradient=False)
_add("min", (1, None), rule.extremum, f"the least: {_over_last}", flops=_operands)
_add("max", (1, None), rule.extremum, f"the greatest: {_over_last}", flops=_operands)
_add("where", 3, rule.elementwise, "a where c is not 0, else b")
_add("dropout", 1, rule.same, "in training, sets a share p to 0 and scales the rest up", _O("p", Kind.SHARE))
_add("stop", 1, rule.same, "the value; no gradient passes", gradient=False, **_free)

# over the last axis
_add("l2norm", 1, rule.rowwise("l2norm"), "v / max(|v|, 1e-6)", flops=_times(3))
_add("softmax", 1, rule.rowwise("softmax"), "exp(v) / sum(exp(v)) over the last axis", flops=_times(4))
_add("norm", 1, rule.reduce("norm"), "(sum |v|^p)^(1/p) over the last axis", _O("p", Kind.POSITIVE, 2.0),
     flops=_per_input(2), saved=_operands)
_add("mean", 1, rule.reduce("mean"), "the mean over the last axis", flops=_per_input(1), saved=_nothing)
_add("sum", 1, rule.reduce("sum"), "the sum over the last axis", flops=_per_input(1), saved=_nothing)
_add("poly", 1, rule.poly, "concat(v, v^2, ..., v^degree)", _O("degree", Kind.SIZE), saved=_operands)

# over tokens
_add("prev", 1, rule.same, "the value at the previous token, 0 at the first; a value may depend on itself through it",
     register=True, **_free)
_add("rope", 1, rule.rope, "rotary position: turns the pairs (i, i + d/2) by t base^(-2i/d), t tokens since the start",
     _O("base", Kind.POSITIVE, 10000.0), flops=_times(3), saved=_nothing, register=True)

# axes
_add("heads", 1, rule.heads, "[n * h] -> [n, h]", _O("n", Kind.SIZE, "heads"), **_free)
_add("merge", 1, rule.merge, "[n, h] -> [n * h]", **_free)
_add("concat", (1, None), rule.concat, "joins values along the last axis", **_free)
_add("split", 1, rule.split, "n equal pieces of the last axis, or pieces of these sizes: a, b = split(v, 2)",
     _O("n", Kind.SIZES), **_free)
_add("index", 0, rule.index, "0, 1, ..., size - 1", _O("size", Kind.SIZE), gradient=False, **_free)

# matrices
_add("eye", 0, rule.eye, "the identity matrix", _O("n", Kind.SIZE), gradient=False, **_free)
_add("outer", 2, rule.outer, "a b^T", saved=_operands)
_add("transpose", 1, rule.transpose, "exchanges the last two axes", **_free)
_add("trace", 1, rule.trace, "sum of the diagonal of the last two axes", saved=_nothing)
_add("newton_schulz", 1, rule.newton_schulz, "the nearest orthogonal matrix, by `steps` quintic iterations",
     _O("steps", Kind.SIZE, 5), flops=_newton_schulz_flops, saved=lambda i, o, out: prod(out) * int(o["steps"]))

# written with symbols
for _name, _symbol, _doc in (("add", "+", "the sum"), ("sub", "-", "the difference")):
    _add(_name, 2, rule.elementwise, _doc, saved=_nothing, symbol=_symbol)
for _name, _symbol, _doc in (("mul", "*", "the product"), ("div", "/", "the quotient"), ("pow", "**", "the power")):
    _add(_name, 2, rule.elementwise, _doc, saved=_operands, symbol=_symbol)
for _name, _symbol in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!=")):
    _add(_name, 2, rule.elementwise, f"1 where a {_symbol} b, else 0", saved=_nothing, symbol=_symbol, gradient=False)
_add("matmul", 2, rule.matmul, "matrix times vector, or matrix times matrix, over the last axes",
     flops=_matmul_flops, saved=_operands, symbol="@")
_add("neg", 1, rule.same, "the negative", saved=_nothing, symbol="-")
_add("slice", 1, rule.slice, "v[start:stop] or v[i] of the last axis", _O("start", Kind.SIZE, None),
     _O("stop", Kind.SIZE, None), _O("single", Kind.BOOLEAN, False), symbol="[]", **_free)
_add("item", 1, rule.item, "one piece of a split: piece `index`, of `size` numbers", _O("index", Kind.SIZE),
     _O("size", Kind.SIZE, None), symbol=",", **_free)
_add("fold", 1, rule.fold, "the first `axes` axes as one", _O("axes", Kind.SIZE), symbol="()", **_free)
_add("unfold", 1, rule.unfold, "the first axis as several", _O("sizes", Kind.SHAPE), symbol="()", **_free)
# fmt: on

NOT_WRITTEN = ("neg", "slice", "item", "fold", "unfold")  # as a symbol between two values
BY_SYMBOL = {op.symbol: op.name for op in OPERATORS.values() if op.symbol and op.name not in NOT_WRITTEN}
CALLABLE = tuple(sorted(name for name, op in OPERATORS.items() if not op.symbol))  # the names a block may call
