"""Equations of a block as they grow: any operator of the language, applied to values whose shapes it takes.

    block = Equations(choose, sizes, {"h": (8,)}, names)
    block.line()                       one more line, with an operator drawn from nlc.operators
    block.fit((2, 4))                  an expression of that shape, from values that are there
    block.joined((8,))                 one of the last shape, into which every value flows that nothing else uses

Numbers stay tame: what a function would blow up is bounded before it (TAME), so that two ways of computing a program
can differ only where one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from nlc.operators import OPERATORS, REQUIRED, Kind, Operator, Option, Shape, ShapeError, pieces
from tests.fuzz.choices import Choose

LARGEST = 24  # numbers in a value
RANK = 3
TRIES = 12  # draws of an operator that takes the values there are

# What an operator is given in place of a value, where a large or a small value would lead out of what floats can tell.
TAME: Mapping[str, Sequence[str]] = {
    "exp": ("tanh({})",), "log": ("abs({}) + 1",), "sqrt": ("{} ** 2 + 1",), "poly": ("tanh({})",),
    "div": ("{}", "(abs({}) + 1)"), "pow": ("(abs(tanh({})) + 0.5)", "tanh({})"), "norm": ("{} + 0.01",),
    "newton_schulz": ("{} + 0.1",),
}  # fmt: skip
EXPONENTS = ("2", "3", "0.5", "-1")
BOUNDED = ("tanh", "sigmoid", "softmax", "l2norm", "rmsnorm", "layernorm")
BLIND = ("prev",)  # passes no gradient along a token's own path
NAMED = 25  # percent of operators with weights that say name=


@dataclass
class Equations:
    """The lines of one kind of block, and the shapes of what they have assigned."""

    choose: Choose
    sizes: Mapping[str, int]
    values: dict[str, Shape]
    names: Iterator[str]
    lines: list[str] = field(default_factory=list)
    loose: dict[str, Shape] = field(default_factory=dict)  # values that must still flow into what leaves
    used: set[str] = field(default_factory=set)  # operators
    shared: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # weights by name=, and what they are

    # ---- lines ----------------------------------------------------------------------------------------------------

    def assign(self, expression: str, shape: Shape, name: str = "") -> str:
        """A line `name = expression`; the value has to flow on."""
        name = name or next(self.names)
        self.lines.append(f"{name} = {expression}")
        self.values[name] = self.loose[name] = shape
        return name

    def line(self) -> None:
        """A line with one operator, or a recursion through the previous token."""
        if self.choose.chance(12):
            self.recursion()
            return
        for _ in range(TRIES):
            made = self.operator(OPERATORS[self.choose.among(sorted(OPERATORS))])
            if made is not None:
                expression, shapes = made
                targets = [next(self.names) for _ in shapes]
                self.lines.append(f"{', '.join(targets)} = {expression}")
                made_now = dict(zip(targets, shapes, strict=True))
                self.values |= made_now
                self.loose |= made_now
                return

    def recursion(self) -> None:
        """h = tanh(linear(a) + w linear(prev(h))): a register breaks the cycle."""
        a = self.choose.among([n for n, s in self.values.items() if s[-1:] > (1,)] or list(self.values))
        name = next(self.names)
        if self.values[a][-1:] <= (1,):  # linear drops an axis of one
            self.assign(f"tanh({a} + 0.5 * prev({name}))", self.values[a], name)
            return
        inside = self.choose.among([f"0.5 * linear(prev({name}))", f"0.5 * prev({name})", f"prev(0.5 * {name})"])
        self.used |= {"prev", "linear", "tanh"}
        self.loose.pop(a, None)
        self.assign(f"tanh(linear({a}) + {inside})", self.values[a], name)

    def operator(self, op: Operator) -> tuple[str, list[Shape]] | None:
        """A call of an operator, and the shapes it gives; None where the values drawn do not fit."""
        if op.symbol in (",", "()"):
            return None  # an item is written as a target of a split; what the compiler alone makes, not at all
        if op.name == "matmul" and self.choose.chance(70):
            return self.product()
        if op.name == "pow" and self.choose.chance(70):
            return self.power()
        least, most = op.operands
        count = least if most == least else self.choose.whole(least, min(3, most or 3))
        operands = [self.choose.among(list(self.values)) for _ in range(count)]
        inputs = tuple(self.values[name] for name in operands)
        options = {o.name: self.option(op, o, inputs) for o in op.options}
        if options.get("single") and options["start"] is None:
            options["start"] = 0
        try:
            shape = op.shape(inputs, dict(options))
            op.weights(inputs, options)
            parts = list(pieces(inputs[0], options["n"])) if op.name == "split" else []
        except (ShapeError, IndexError):
            return None
        if len(shape) > RANK or prod(shape) > LARGEST or 0 in shape or (op.name == "split" and len(parts) < 2):
            return None
        self.used.add(op.name)
        if op.gradient and op.name not in BLIND:
            for name in operands:
                self.loose.pop(name, None)
        given = [t.format(name) for t, name in zip(_tame(op, count), operands, strict=True)]
        text = self.called(op, given, options, inputs)
        return text, [(*shape[:-1], n) for n in parts] or [shape]

    def product(self) -> tuple[str, list[Shape]] | None:
        """A matrix times a vector of its width, with as many axes in front."""
        vectors = {n: s for n, s in self.values.items() if s[-1:] > (1,) and len(s) < RANK and prod(s) <= 12}
        if not vectors:
            return None
        name = self.choose.among(list(vectors))
        shape = vectors[name]
        self.loose.pop(name, None)
        self.used.add("matmul")
        rows = self.choose.whole(2, 3)
        matrix = self.choose.among([f"param({self.shown((*shape[:-1], rows, shape[-1]))})", f"outer({name}, {name})"])
        return f"{matrix} @ {name}", [(*shape[:-1], rows) if matrix.startswith("param") else shape]

    def power(self) -> tuple[str, list[Shape]]:
        """A power whose exponent is a number."""
        self.used.add("pow")
        name = self.choose.among(list(self.values))
        self.loose.pop(name, None)
        return f"{TAME['pow'][0].format(name)} ** {self.choose.among(EXPONENTS)}", [self.values[name]]

    def called(self, op: Operator, given: list[str], options: dict[str, Any], inputs: tuple[Shape, ...]) -> str:
        """The text of a call, options at their default sometimes left out, by place or by name."""
        match op.name:
            case "neg":
                return f"-{given[0]}"
            case "slice":
                start, stop = options["start"], options["stop"]
                inside = f"{start}" if options["single"] else f"{_or_nothing(start)}:{_or_nothing(stop)}"
                return f"{given[0]}[{inside}]"
        if op.symbol:
            return f"{given[0]} {op.symbol} {given[1]}"
        words = list(given)
        by_name = False
        for option in op.options:
            value = options[option.name]
            default = self.sizes.get(option.default, 0) if isinstance(option.default, str) else option.default
            if value is None or (option.default is not REQUIRED and value == default and self.choose.chance(60)):
                by_name = True  # what follows a gap is named
                continue
            by_name = by_name or (op.name != "split" and self.choose.chance(50)) or option.name in ("bias", "start")
            words.append(f"{option.name}={self.shown(value)}" if by_name else self.shown(value))
        if op.suffixes(options) and self.choose.chance(NAMED):
            words.append(f"name={self.weight_name(op.name, op.weights(inputs, options))}")
        return f"{op.name}({', '.join(words)})"

    def weight_name(self, *what: Any) -> str:
        """A new name, or one that means the same weights already."""
        same = [name for name, other in self.shared.items() if other == what]
        name = self.choose.among([f"w{len(self.shared)}", *same])
        self.shared[name] = what
        return name

    def shown(self, value: Any) -> str:
        """A value as it is written; a number that is a size sometimes by that size's name."""
        match value:
            case bool():
                return "true" if value else "false"
            case tuple():
                return f"[{', '.join(self.shown(v) for v in value)}]"
            case int():
                names = [n for n, s in self.sizes.items() if s == value]
                return self.choose.among(names) if names and self.choose.chance(40) else str(value)
        return str(value)

    def option(self, op: Operator, option: Option, inputs: tuple[Shape, ...]) -> Any:
        """A value of an option's kind that may fit."""
        last = inputs[0][-1] if inputs and inputs[0] else 1
        choose, default = self.choose, option.default
        if isinstance(default, str) and default in self.sizes:
            default = self.sizes[default]
        if option.default is not REQUIRED and not isinstance(option.default, str) and choose.chance(30):
            return default
        match option.kind:
            case Kind.SIZE if op.name == "slice":
                return choose.whole(-last, last)
            case Kind.SIZE if option.name == "n" and op.name == "heads":
                return choose.among(
                    [n for n in (default, 2, 1, 3, last) if isinstance(n, int) and last % n == 0] or [1]
                )
            case Kind.SIZE:
                return choose.whole(1, 4) if option.name != "out" else choose.whole(1, 6)
            case Kind.SIZES:
                cut = choose.whole(1, max(1, last - 1))
                return choose.among([(cut, last - cut), 2, 3]) if last > 1 else 1
            case Kind.NUMBER | Kind.POSITIVE:
                return float(choose.whole(1, 3)) if default is None or default < 10 else choose.among([default, 50.0])
            case Kind.SHARE:
                return choose.among([0.0, 0.3])
            case Kind.BOOLEAN:
                return choose.chance(50)
            case Kind.SHAPE:
                shape = choose.among([s for s in self.values.values() if s] or [(2,)])
                return tuple(shape[-2:])
            case Kind.START:
                return choose.among(["normal", "zeros", "identity", 0.5])
        raise NotImplementedError(f"options of the kind {option.kind}: say here how to draw one")

    # ---- expressions ----------------------------------------------------------------------------------------------

    def fit(self, shape: Shape, weights: bool = True, among: Sequence[str] | None = None) -> str:
        """An expression of that shape, of a value drawn from those assigned so far.  `weights`: it may have some.

        The value is used up: it flows into whatever the expression flows into."""
        expression, name = self.fitted(shape, weights, among)
        self.loose.pop(name, None)
        return expression

    def fitted(self, shape: Shape, weights: bool = True, among: Sequence[str] | None = None) -> tuple[str, str]:
        known = {n: self.values[n] for n in (among or self.values)}
        if not weights:  # nothing but means over the axes there are too many of
            known = {n: s for n, s in known.items() if s[: len(shape)] == shape}
        same = [n for n, s in known.items() if s == shape]
        if same and (not weights or self.choose.chance(40)):
            name = self.choose.among(same)
            return (f"linear({name})" if weights and shape[-1:] > (1,) and self.choose.chance(50) else name), name
        name = self.choose.among([n for n, s in known.items() if s] or list(known))
        return self.turned(name, known[name], shape, weights), name

    def turned(self, name: str, given: Shape, shape: Shape, weights: bool = True) -> str:
        """The value in another shape: by `linear` and the operators of axes; without weights by what reduces."""
        if given == shape:
            return name
        if not weights:
            return self.reduced(name, given, shape)
        if not shape:
            flat = f"linear({name}, out=1)" if len(given) == 1 else self.reduced(name, given, ())
            return flat if given else name
        if not given:
            return f"{name} * param({self.shown(tuple(shape))})"
        if given[:-1] == shape[:-1] and shape[-1] > 1:
            return f"linear({name}, out={self.shown(shape[-1])})"
        if given[:-1] == shape and self.choose.chance(70):
            return f"linear({name}, out=1)"
        flat = name
        for _ in given[1:]:
            flat = f"merge({flat})"
        flat = f"linear({flat}, out={self.shown(prod(shape))})" if prod(shape) > 1 else f"linear({flat}, out=1)"
        for axis in shape[:-1]:
            flat = f"heads({flat}, {self.shown(axis)})"
        return flat

    def reduced(self, name: str, given: Shape, to: Shape) -> str:
        for _ in given[len(to) :]:
            name = f"{self.choose.among(['mean', 'sum', 'max'])}({name})"
        return name

    def bounded(self, shape: Shape, weights: bool = True) -> str:
        """An expression whose entries are at most about 1."""
        return f"{self.choose.among(['tanh', 'sigmoid'])}({self.fit(shape, weights)})"

    def joined(self, shape: Shape) -> str:
        """A sum of that shape which every value flows into that nothing else uses."""
        terms = []
        for name, given in [*self.loose.items()]:
            if not given:
                terms.append(f"tanh({name}) * param({self.shown(tuple(shape))})" if shape else f"tanh({name})")
            else:
                terms.append(self.turned(f"tanh({name})" if self.choose.chance(30) else name, given, shape))
        self.loose.clear()
        return " + ".join(terms) or "0"


def _tame(op: Operator, count: int) -> Sequence[str]:
    guards = TAME.get(op.name, ())
    return guards if len(guards) == count else ["{}"] * count


def _or_nothing(bound: int | None) -> str:
    return "" if bound is None else str(bound)
