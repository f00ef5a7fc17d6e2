"""The shapes of an update rule's program: every value is a matrix, a vector or a number of each matrix of a state.

    SEEN                                         what a rule sees
    shape_of(tree, shapes)                       () | (n,) | (n, m); raises Misfit, with the place of what does not fit
    fits_channels(rule, vector)                  Misfit, where retention by key channel meets what has no key channels

A rule is checked once for all sizes, at two that stand for any: ROWS by COLS, prime numbers that no rule writes.
With one pair, grad = outer(error, x): x is the layer's input and error that at its output; k and v are the pair itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nlc.constants import constant
from nlc.equations import Binary, Boolean, Call, Compare, Expr, Name, Number, Slice, Unary, names, to_text, walk
from nlc.operator_shapes import Shape, ShapeError, elementwise, meet, same, show
from nlc.operators import BY_SYMBOL, CALLABLE, OPERATORS, Kind
from nlc.source import Position

ROWS, COLS = 1009, 2003
SIZES = {"rows": ROWS, "cols": COLS}
SEEN: dict[str, Shape] = {
    "grad": (ROWS, COLS), "weight": (ROWS, COLS), "start": (ROWS, COLS), "delta": (ROWS, COLS), "gram": (COLS, COLS),
    "k": (COLS,), "v": (ROWS,), "x": (COLS,), "error": (ROWS,),
    "lr": (), "retain": (), "count": (), "rows": (), "cols": (),
}  # fmt: skip
ROW = (1, COLS)  # retention by key channel: M diag(retain), each column its own
REFUSED = ("split", "heads", "merge", "dropout", "rope")  # axes that a matrix does not have, and chance
WHOLE = frozenset(  # what looks at a whole matrix, or at a part of one
    "@ [] transpose newton_schulz norm sum mean outer trace eye index l2norm softmax poly concat".split()
)


class Misfit(Exception):
    """A program that cannot be run: where, what and a hint."""

    def __init__(self, at: Position, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = at, message, hint


def operators() -> tuple[str, ...]:
    """What a rule may call: operators without weights, and without memory of earlier tokens."""
    usable = [name for name in CALLABLE if not OPERATORS[name].suffixes({}) and not OPERATORS[name].register]
    return tuple(name for name in usable if name not in REFUSED)


class Program(Protocol):
    """A level of a rule, of a spec or of a graph."""

    @property
    def do(self) -> tuple[Any, ...]: ...

    @property
    def memories(self) -> tuple[Any, ...]: ...


class Rule(Protocol):
    """A rule of a graph."""

    @property
    def params(self) -> tuple[Any, ...]: ...

    @property
    def levels(self) -> tuple[Any, ...]: ...


def entrywise(levels: Sequence[Program]) -> bool:
    """Whether a rule treats every entry of a weight alike: no product, no sum, no size."""
    program = [part for level in levels for line in level.do for part in walk(line.value)]
    used = {part.func for part in program if isinstance(part, Call)}
    used |= {part.op for part in program if isinstance(part, Binary)}
    used |= {"[]" for part in program if isinstance(part, Slice) and not isinstance(part.value, Name)}
    if any(level.memories for level in levels):
        return False
    extremes = any(isinstance(p, Call) and p.func in ("min", "max") and len(p.args) == 1 for p in program)
    read = {part.id for part in program if isinstance(part, Name)}
    return not extremes and not used & WHOLE and not read & {"rows", "cols", "gram", "k", "v", "x", "error"}


def shape_of(tree: Expr, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of an expression; names are those of `shapes`.  Raises Misfit."""
    match tree:
        case Name(id=name, at=at):
            if name not in shapes:
                raise Misfit(at, f"'{name}' is a list of numbers", f"take one: {name}[0]; or all: a, b = {name}")
            return shapes[name]
        case Number() | Boolean():
            return ()
        case Slice(value=Name(id=name), single=True) if name not in shapes:
            return ()  # one of a list of numbers
        case Slice(value=value, start=start, stop=stop, single=single, at=at):
            bounds = {"start": _number(start), "stop": _number(stop), "single": single}
            return _applied("slice", (shape_of(value, shapes),), bounds, at)
        case Unary(value=value):
            return shape_of(value, shapes)
        case Binary(op=op, left=left, right=right, at=at) | Compare(op=op, left=left, right=right, at=at):
            return _applied(BY_SYMBOL[op], (shape_of(left, shapes), shape_of(right, shapes)), {}, at)
        case Call():
            return _called(tree, shapes)
    raise Misfit(tree.at, f"'{to_text(tree)}' has no place in a rule's program")


def _called(tree: Call, shapes: Mapping[str, Shape]) -> Shape:
    if (widths := shapes.get(f"{tree.func}()")) is not None:  # a memory of the rule: [out, in]
        return _read(tree, widths, shapes)
    operator = OPERATORS.get(tree.func)
    if operator is None or tree.func not in operators():
        raise Misfit(tree.at, f"'{tree.func}' in a rule", f"a rule may call {', '.join(operators())}")
    count = operator.operands[1]
    operands, rest = (tree.args, ()) if count is None else (tree.args[:count], tree.args[count:])
    if len(operands) < operator.operands[0] or len(rest) > len(operator.options):
        raise Misfit(tree.at, f"'{tree.func}' takes other arguments: {operator.doc}")
    known = [option.name for option in operator.options]
    kinds = {option.name: option.kind for option in operator.options}
    options: dict[str, Any] = {option.name: option.default for option in operator.options}
    for name, value in [*zip(known, rest, strict=False), *tree.kwargs]:
        if name not in known:
            raise Misfit(tree.at, f"'{tree.func}' has no '{name}'", f"it has {', '.join(known) or 'no options'}")
        options[name] = _number(value)
        whole = isinstance(options[name], int) and options[name] >= 1
        if kinds[name] is Kind.SIZE and not names(value) and not whole:
            raise Misfit(
                value.at, f"'{name}' of '{tree.func}' is {to_text(value)}", "a whole number above 0 is expected"
            )
    return _applied(tree.func, tuple(shape_of(value, shapes) for value in operands), options, tree.at)


def _read(tree: Call, widths: Shape, shapes: Mapping[str, Shape]) -> Shape:
    """A memory applied to every column of a matrix."""
    if len(tree.args) != 1 or tree.kwargs:
        raise Misfit(tree.at, f"the memory '{tree.func}' is read with one matrix")
    found = shape_of(tree.args[0], shapes)
    if len(found) != 2 or found[0] != widths[1]:
        expected = worded(f"[{widths[1]}, any]")
        raise Misfit(
            tree.at, f"'{tree.func}' is read with {worded(show(found))}", f"its keys are columns of {expected}"
        )
    return (widths[0], found[1])


def times(width: int) -> tuple[int, int]:
    """A width as multiples of (rows, cols)."""
    return (width // ROWS, 0) if width % ROWS == 0 else (0, width // COLS)


def fits_channels(rule: Rule, vector: bool) -> None:
    """Refuse a program that cannot be where each key channel keeps a share of its own.

    `retain` is a row then, [1, cols], which scales columns; of a `vector`, [rows, 1], one number for each row."""
    shapes = SEEN | {"retain": (ROWS,) if vector else ROW}
    shapes |= {
        p.name: SEEN["k"] if p.number == "k" else () for p in rule.params if not isinstance(p.number, tuple | list)
    }
    shapes |= {name: SEEN["grad"] for level in rule.levels for name in level.state}
    for level in rule.levels:
        for memory in level.memories:
            for tree in (memory.keys, memory.values):
                shape_of(tree, shapes)
            shapes[f"{memory.name}()"] = tuple(a * ROWS + b * COLS for a, b in (memory.outer, memory.inner))
        lasting, here = {*level.state, "delta", "weight"}, dict(shapes)
        for line in level.do:
            if len(line.targets) > 1:
                here |= dict.fromkeys(line.targets, ())
                continue
            (target,), shape = line.targets, shape_of(line.value, here)
            here[target] = SEEN["grad"] if target in lasting else shape


def _of_columns(op: str, inputs: tuple[Shape, ...], at: Position) -> Shape:
    """What scales columns meets numbers, its like, and what has these columns."""
    rest = [shape for shape in inputs if shape not in ((), ROW)]
    strange = [shape for shape in rest if len(shape) != 2 or shape[-1] != COLS]
    alike = OPERATORS[op].shape in (elementwise, same) or (op in ("min", "max") and len(inputs) > 1)
    if strange or not alike:
        met = f"meets {worded(show(strange[0]))}" if strange else f"is given to '{op}'"
        raise Misfit(at, f"a row [1, cols] {met}", "it scales the columns of what is [.., cols]")
    return meet(*rest) if rest else ROW


def _number(tree: Expr | None) -> Any:
    """A static argument at the sizes that stand for any; a parameter of the rule counts as 1."""
    if tree is None:
        return None
    found = constant(tree, SIZES | {name: 1 for name in names(tree) if name not in SIZES})
    return int(found) if isinstance(found, float) and found.is_integer() else found


def _applied(op: str, inputs: tuple[Shape, ...], options: Mapping[str, Any], at: Position) -> Shape:
    try:
        if ROW in inputs:
            return _of_columns(op, inputs, at)
        return OPERATORS[op].shape(inputs, options)
    except ShapeError as error:
        raise Misfit(at, worded(error.message), worded(error.hint)) from None
    except TypeError:  # an option that is no number
        raise Misfit(at, f"'{op}' needs a whole number here") from None


def worded(text: str) -> str:
    """A message in the words of a rule: [rows, cols]."""
    words = {ROWS: "rows", COLS: "cols"}
    for size, word in words.items():
        text = text.replace(str(size), word)
    return text
