"""The shape of an objective written as an expression in M, k and v: one number per head (for pass shapes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nlc.constants import Sizes
from nlc.diagnostics import Reporter
from nlc.equations import Binary, Boolean, Call, Compare, Expr, ListOf, Multiple, Name, Number, Slice, Text, Unary
from nlc.graph.nodes import Memory, Shape
from nlc.graph.static import Refused, option
from nlc.operators import BY_SYMBOL, OPERATORS, REQUIRED, Operator, ShapeError, show


def objective_shape(memory: Memory, known: Mapping[str, Shape], report: Reporter) -> None:
    """Report an objective that is not one number per head, or whose shapes do not meet."""
    at = dict(memory.said).get("objective", memory.at)
    named = {"M": (*memory.heads, memory.outer), "v": (*memory.heads, memory.outer), "k": (*memory.heads, memory.inner)}
    for param in memory.objective.params:
        named[param.name] = known[param.value] if param.value else ()
    try:
        sizes = {p.name: p.number for p in memory.objective.params if isinstance(p.number, int)}
        shape = _shape(memory.objective.tree, named, sizes, report)
    except Refused:
        return
    except ShapeError as error:
        report.error("NLC0601", at, f"'{memory.id}': {error.message}", error.hint)
        return
    if shape != memory.heads:
        per = "one number" if not memory.heads else f"one number per head, {show(memory.heads)}"
        report.error("NLC0601", at, f"'{memory.id}': the objective is {show(shape)}", f"{per}: take the sum")


def _shape(expr: Expr, named: Mapping[str, Shape], sizes: Sizes, report: Reporter) -> Shape:
    match expr:
        case Name(id):
            return named[id]
        case Number():
            return ()
        case Unary(_, value):
            return _shape(value, named, sizes, report)
        case Binary(op, left, right) | Compare(op, left, right):
            return OPERATORS[BY_SYMBOL[op]].shape(
                (_shape(left, named, sizes, report), _shape(right, named, sizes, report)), {}
            )
        case Call(func, args, kwargs):
            most = OPERATORS[func].operands[1]
            count = len(args) if most is None else most
            options = _options(OPERATORS[func], args[count:], dict(kwargs), sizes, report)
            return OPERATORS[func].shape(tuple(_shape(a, named, sizes, report) for a in args[:count]), options)
        case Slice() | ListOf() | Boolean() | Text() | Multiple():
            report.error("NLC0404", expr.at, "an objective is made of operators, + - * / @ **, M, k and v")
            raise Refused
    raise TypeError(f"unexpected expression {expr!r}")


def _options(
    op: Operator, positional: Sequence[Expr], named: Mapping[str, Expr], sizes: Sizes, report: Reporter
) -> dict[str, Any]:
    given = {**dict(zip((o.name for o in op.options), positional, strict=False)), **named}
    found = {o.name: o.default for o in op.options if o.default is not REQUIRED}
    for o in op.options:
        if o.name in given:
            found[o.name] = option(o.kind, given[o.name], sizes, report, f"'{o.name}' of '{op.name}'")
    return found
