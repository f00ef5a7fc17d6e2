"""Arguments known before anything runs: sizes, numbers, words, and what arithmetic makes of them."""

from __future__ import annotations

from typing import Any

from nlc.constants import Sizes, constant
from nlc.diagnostics import Reporter, suggest
from nlc.equations import Boolean, Expr, ListOf, Name, Text, to_text, walk
from nlc.operators import Kind


class Refused(Exception):
    """Already reported."""


def size(expr: Expr, sizes: Sizes, report: Reporter) -> int:
    """A whole number.  Reports and raises Refused for anything else."""
    value = constant(expr, sizes)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(expr, Name):
        report.error("NLC0503", expr.at, f"unknown size '{expr.id}'", suggest(expr.id, sizes, "sizes"))
    elif value is not None:
        report.error("NLC0505", expr.at, f"'{to_text(expr)}' is {value:g}, not a whole number")
    else:
        for name in _unknown(expr, sizes):
            report.error("NLC0503", name.at, f"unknown size '{name.id}'", suggest(name.id, sizes, "sizes"))
            raise Refused
        report.error(
            "NLC0505", expr.at, f"'{to_text(expr)}' is not a size", "a whole number, or an expression of sizes"
        )
    raise Refused


def _unknown(expr: Expr, sizes: Sizes) -> list[Name]:
    return [e for e in walk(expr) if isinstance(e, Name) and e.id not in sizes]


def option(kind: Kind, expr: Expr, sizes: Sizes, report: Reporter, what: str) -> Any:
    """The value of an operator's static argument.  Reports and raises Refused when it is not of its kind."""
    match kind, expr:
        case Kind.SIZE, _:
            return above_0(size(expr, sizes, report), expr, report, what)
        case Kind.BOOLEAN, Boolean(value):
            return value
        case ((Kind.SHAPE | Kind.SIZES), ListOf(items)):
            return tuple(above_0(size(item, sizes, report), item, report, what) for item in items)
        case Kind.SHAPE, _:
            return (above_0(size(expr, sizes, report), expr, report, what),)
        case Kind.SIZES, _:
            return above_0(size(expr, sizes, report), expr, report, what)
        case Kind.START, (Name(word) | Text(word)) if word in ("normal", "zeros", "identity"):
            return word
        case ((Kind.NUMBER | Kind.POSITIVE | Kind.SHARE | Kind.START), _):
            number = constant(expr, sizes)
            if number is not None and _fits(kind, number):
                return float(number)
    expected = {
        Kind.BOOLEAN: "true or false",
        Kind.NUMBER: "a number",
        Kind.POSITIVE: "a number above 0",
        Kind.SHARE: "a number from 0 to below 1",
        Kind.START: "a number, normal, zeros or identity",
    }[kind]
    report.error("NLC0505", expr.at, f"{what} is '{to_text(expr)}'", f"{expected} expected")
    raise Refused


def _fits(kind: Kind, number: float) -> bool:
    return {Kind.POSITIVE: number > 0, Kind.SHARE: 0 <= number < 1}.get(kind, True)


def above_0(number: int, expr: Expr, report: Reporter, what: str) -> int:
    """The number.  Reports and raises Refused when it is not above 0."""
    if number < 1:
        report.error("NLC0505", expr.at, f"{what} is {number}", "a whole number above 0 expected")
        raise Refused
    return number


def literal(expr: Expr, sizes: Sizes) -> Any:
    """A number, tuple of numbers, word or boolean; None for anything else."""
    match expr:
        case Boolean(value):
            return value
        case Text(value):
            return value
        case ListOf(items):
            values = tuple(literal(item, sizes) for item in items)
            return None if any(v is None for v in values) else values
    return constant(expr, sizes)
