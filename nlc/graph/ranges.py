"""The interval a value lies in, whatever inputs and weights are.

    range_of(graph, id)                     of a sigmoid: (0, 1), both ends open
    range_of(graph, id).never_negative      proved; False says only that nothing is known

Interval arithmetic over the operators of the language.  Inputs, weights and reads of memories may be anything.  Bounds
are those of real numbers: in floating point an open end may be reached (sigmoid(-1000) is 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp, inf, isnan, log, log1p, sqrt, tanh
from typing import NamedTuple

from nlc.graph.graph import Graph
from nlc.graph.nodes import Number, Op

LARGE = 1e300  # a lower bound for what overflows


class End(NamedTuple):
    """One end of an interval; an open one is approached, never reached."""

    at: float
    open: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of the real numbers."""

    low: End
    high: End

    @property
    def never_negative(self) -> bool:
        return self.low.at >= 0

    @property
    def positive(self) -> bool:
        return self.low.at > 0 or self.low == (0, True)

    @property
    def point(self) -> float | None:
        """The only value, where there is just one."""
        return self.low.at if self.low.at == self.high.at else None


def span(low: float, high: float) -> Range:
    """From low to high; infinite ends are open."""
    return Range(End(low, low == -inf), End(high, high == inf))


ANY = span(-inf, inf)
NEVER_NEGATIVE = span(0, inf)
ZERO = span(0, 0)
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
MOVED = {
    "heads",
    "merge",
    "fold",
    "unfold",
    "transpose",
    "split",
    "item",
    "slice",
    "stop",
    "mean",
}  # no value that was not there
SINKS = {"silu": -0.2785, "gelu": -0.17}  # the least they reach


def range_of(graph: Graph, id: str) -> Range:
    """The interval of a value, once pass shapes has run."""
    return _Ranges(graph).of(id)


class _Ranges:
    """The intervals found so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, Range] = {}

    def of(self, id: str) -> Range:
        if id not in self.known:
            self.known[id] = ANY  # what a recursion through prev sees of itself
            node = self.graph[id]
            found = ANY
            if isinstance(node, Number):
                found = span(node.value, node.value)
            elif isinstance(node, Op):
                found = self._operator(node)
            self.known[id] = ANY if isnan(found.low.at) or isnan(found.high.at) else found
        return self.known[id]

    def _operator(self, node: Op) -> Range:
        op, options, given = node.op, dict(node.options), [self.of(i) for i in node.inputs]
        if op in COMPARISONS or op == "eye":
            return span(0, 1)
        if op in MOVED or (op in ("min", "max") and len(given) == 1):
            return given[0]
        if op in POINTWISE:
            return POINTWISE[op](given[0])
        if op in SINKS:
            return Range(End(0 if given[0].never_negative else SINKS[op]), _highest([given[0].high, End(0)]))
        match op:
            case "add":
                return _add(*given)
            case "sub":
                return _add(given[0], _neg(given[1]))
            case "mul" if self._same(*node.inputs):
                return _power(given[0], 2)
            case "mul" | "outer":
                return _mul(*given)
            case "div":
                return _divide(*given)
            case "pow":
                return _power(given[0], given[1].point)
            case "matmul":
                return self._total(_mul(*given), node)
            case "sum" | "trace":
                return self._total(given[0], node)
            case "max":
                return _neg(_least([_neg(x) for x in given]))
            case "min":
                return _least(given)
            case "where":
                return _union(given[1:])
            case "concat":
                return _union(given)
            case "prev":
                return _union([given[0], ZERO])
            case "dropout":
                return _union([_mul(given[0], span(*(1 / (1 - options["p"]),) * 2)), ZERO])
            case "poly":
                return NEVER_NEGATIVE if given[0].never_negative else ANY
            case "l2norm":
                return span(0 if given[0].never_negative else -1, 1)
            case "norm":
                return NEVER_NEGATIVE
            case "softmax":
                return Range(End(0, True), End(1))
            case "index":
                return span(0, options["size"] - 1)
        return ANY

    def _total(self, one: Range, node: Op) -> Range:
        """The sum of as many as the first operand's last axis has."""
        count = float((self.graph[node.inputs[0]].shape or (1,))[-1])
        return _mul(one, span(count, count))

    def _same(self, a: str, b: str) -> bool:
        """Both are the same computation, so they have the same value."""
        if a == b:
            return True
        x, y = self.graph[a], self.graph[b]
        if isinstance(x, Number) and isinstance(y, Number):
            return x.value == y.value
        if not isinstance(x, Op) or not isinstance(y, Op) or x.op in ("dropout", "prev"):
            return False
        alike = (x.op, x.options, x.weights, len(x.inputs)) == (y.op, y.options, y.weights, len(y.inputs))
        return alike and all(self._same(i, j) for i, j in zip(x.inputs, y.inputs, strict=True))


# ---- ends


def _lowest(ends: Iterable[End]) -> End:
    return min(ends, key=lambda e: (e.at, e.open))


def _highest(ends: Iterable[End]) -> End:
    return max(ends, key=lambda e: (e.at, not e.open))


def _union(given: list[Range]) -> Range:
    return Range(_lowest(x.low for x in given), _highest(x.high for x in given))


def _least(given: list[Range]) -> Range:
    """The smallest of several values: it stays below every upper end."""
    return Range(_lowest(x.low for x in given), min((x.high for x in given), key=lambda e: (e.at, not e.open)))


# ---- arithmetic


def _neg(x: Range) -> Range:
    return Range(End(-x.high.at, x.high.open), End(-x.low.at, x.low.open))


def _add(a: Range, b: Range) -> Range:
    low, high = (
        End(a.low.at + b.low.at, a.low.open or b.low.open),
        End(a.high.at + b.high.at, a.high.open or b.high.open),
    )
    return Range(low, high)


def _mul(a: Range, b: Range) -> Range:
    corners = [_corner(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Range(_lowest(corners), _highest(corners))


def _corner(a: End, b: End) -> End:
    """The product of two ends; a zero that is reached makes the product zero, whatever the other is."""
    if End(0) in (a, b):
        return End(0)
    return End(0, True) if 0 in (a.at, b.at) else End(a.at * b.at, a.open or b.open)


def _divide(a: Range, b: Range) -> Range:
    """By what has one sign; a division by zero itself gives no number at all."""
    if b.high.at <= 0:
        a, b = _neg(a), _neg(b)
    if not b.never_negative:
        return ANY
    low = End(1 / b.high.at if b.high.at else inf, b.high.open)
    return _mul(a, Range(low, End(1 / b.low.at, b.low.open) if b.low.at else End(inf, True)))


def _power(base: Range, exponent: float | None) -> Range:
    """The exponent None: not known."""
    sign = Range(End(0, base.positive), End(inf, True))
    if exponent is None or exponent < 0:
        even = exponent is not None and exponent % 2 == 0
        return sign if base.never_negative else Range(End(0, True), End(inf, True)) if even else ANY
    if exponent % 2 == 0:
        base = _abs(base)
    elif not base.never_negative:
        return ANY
    return _rising(lambda x: x**exponent)(base)


# ---- functions of one value


def _rising(function: Callable[[float], float]) -> Callable[[Range], Range]:
    """The interval's image under a function that rises everywhere."""

    def image(x: Range) -> Range:
        ends = []
        for end in (x.low, x.high):
            try:
                at = function(end.at)
            except OverflowError:
                at = inf
            ends.append(End(at, end.open or abs(at) == inf))
        low = ends[0] if ends[0].at < inf else End(LARGE)
        return Range(low, ends[1])

    return image


def _abs(x: Range) -> Range:
    if x.never_negative:
        return x
    flipped = _neg(x)
    return flipped if flipped.never_negative else Range(End(0), _highest([x.high, flipped.high]))


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def _softplus(x: float) -> float:
    return x if x > 700 else log1p(exp(x))


def _sqrt(x: float) -> float:
    return sqrt(max(x, 0.0))


def _log(x: float) -> float:
    return log(x) if x > 0 else -inf


POINTWISE: dict[str, Callable[[Range], Range]] = {
    "exp": _rising(exp), "sigmoid": _rising(_sigmoid), "tanh": _rising(tanh), "softplus": _rising(_softplus),
    "sqrt": _rising(_sqrt), "log": _rising(_log), "neg": _neg, "abs": _abs,
    "relu": lambda x: _neg(_least([_neg(x), ZERO])),
    "sign": lambda x: Range(End(1 if x.positive else 0 if x.never_negative else -1), End(1)),
}  # fmt: skip
