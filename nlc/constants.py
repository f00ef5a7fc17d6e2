"""Arithmetic on numbers and sizes, done before anything runs.

    constant(expr, sizes)      the number an expression is; None where it depends on anything but numbers and sizes
    impossible(expr, sizes)    what in it has no finite real result: [(position, message)], innermost and leftmost first
    orderless(expr)            the norms in it whose order is not above 0, likewise

Folded are + - * / **, and log, sqrt and exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nlc.source import Position
from nlc.trees import Binary, Call, Expr, Name, Number, Unary, children, to_text, walk

Sizes = Mapping[str, int]
Hidden = Callable[[str], bool]  # whether a name is a value, so that it is no size
Real = int | float

LARGEST = 1e300  # of a number, as the grammar has it
SHOWN = 40  # characters of an expression in a message


def constant(expr: Expr, sizes: Sizes, hidden: Hidden = lambda name: False) -> Real | None:
    """The number that an expression of numbers and sizes is; None for any other, and for one that is no finite real."""
    return _fold(expr, sizes, hidden, [])


def impossible(expr: Expr, sizes: Sizes) -> list[tuple[Position, str]]:
    """Each operator of an expression that divides by 0, or whose constant operands give no finite real number."""
    found: list[tuple[Position, str]] = []
    _fold(expr, sizes, lambda name: False, found)
    return found


def orderless(expr: Expr) -> list[tuple[Position, str]]:
    """Each norm of an order that is 0 or below."""
    found = []
    for part in walk(expr):
        if isinstance(part, Call) and part.func == "norm":
            order = part.keyword("p") or (part.args[1] if len(part.args) > 1 else None)
            known = None if order is None else constant(order, {})
            if known is not None and known <= 0:
                found.append((part.at, f"'{_short(part)}' is no norm: its order is above 0"))
    return found


def _fold(expr: Expr, sizes: Sizes, hidden: Hidden, found: list[tuple[Position, str]]) -> Real | None:
    match expr:
        case Number(value):
            return value
        case Name(id):
            return sizes[id] if id in sizes and not hidden(id) else None
    values = [_fold(child, sizes, hidden, found) for child in children(expr)]
    if isinstance(expr, Binary) and expr.op == "/" and values[1] == 0:
        found.append((expr.at, f"'{_short(expr)}' divides by 0"))
        return None
    if any(value is None for value in values):
        return None
    try:
        result = _apply(expr, [value for value in values if value is not None])
        if result is None or abs(result) <= LARGEST:
            return result
    except (ValueError, OverflowError):
        pass
    found.append((expr.at, f"'{_short(expr)}' is not a finite real number"))
    return None


def _short(expr: Expr) -> str:
    text = to_text(expr)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _apply(expr: Expr, values: list[Real]) -> Real | None:
    """An operator of the arithmetic on numbers; None for any other.  Raises ValueError or OverflowError."""
    match expr, values:
        case Unary("-"), [a]:
            return -a
        case Binary(op), [a, b] if op in _ARITHMETIC:
            return _ARITHMETIC[op](a, b)
        case Call(func, (_,), ()), [a] if func in _FUNCTIONS:
            return _FUNCTIONS[func](a)
    return None


def _divide(a: Real, b: Real) -> Real:
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _power(a: Real, b: Real) -> Real:
    if isinstance(a, int) and isinstance(b, int) and 0 <= b <= 64:
        whole: int = a**b
        return whole
    return math.pow(a, b)


_ARITHMETIC: dict[str, Callable[[Real, Real], Real]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "**": _power,
}
_FUNCTIONS: dict[str, Callable[[Real], float]] = {"log": math.log, "sqrt": math.sqrt, "exp": math.exp}
