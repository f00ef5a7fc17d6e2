"""The trees of the block language, and their text.  nlc.equations parses; nothing is evaluated by Python.

Every node carries `at`, which is not compared: trees that say the same are equal wherever they stand, and hash alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nlc.source import Position


@dataclass(frozen=True, slots=True)
class Name:
    """A value or, where no value has that name, a size."""

    id: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Multiple:
    """`4x`: so many times a width.  Only inside parse_call."""

    factor: int | float
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """Quoted text, as a keyword's value only; or the path of from(checkpoint:path)."""

    value: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Boolean:
    value: bool
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """An operator applied, or a memory read.  `at` is its name; `places` are the names of its keywords."""

    func: str
    args: tuple[Expr, ...]
    kwargs: tuple[tuple[str, Expr], ...]
    at: Position = field(compare=False)
    places: tuple[Position, ...] = field(default=(), compare=False)

    def keyword(self, name: str) -> Expr | None:
        return dict(self.kwargs).get(name)


@dataclass(frozen=True, slots=True)
class Unary:
    op: str  # -
    value: Expr
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    op: str  # + - * / @ **
    left: Expr
    right: Expr
    at: Position = field(compare=False)  # of the operator


@dataclass(frozen=True, slots=True)
class Compare:
    op: str  # < <= > >= == !=
    left: Expr
    right: Expr
    at: Position = field(compare=False)  # of the operator


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`, or `(a, b)` when `round`."""

    items: tuple[Expr, ...]
    at: Position = field(compare=False)
    round: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """v[start:stop] on the last axis; v[start] when `single`."""

    value: Expr
    start: Expr | None
    stop: Expr | None
    at: Position = field(compare=False)  # of the bracket
    single: bool = False


Expr = Name | Number | Multiple | Text | Boolean | Call | Unary | Binary | Compare | ListOf | Slice


@dataclass(frozen=True, slots=True)
class Assign:
    """targets = value.  `at` is the first target; `places` are all of them."""

    targets: tuple[str, ...]
    value: Expr
    at: Position = field(compare=False)
    places: tuple[Position, ...] = field(default=(), compare=False)


def to_text(tree: Expr | Assign) -> str:
    """Write a tree as text; parse_expression or parse_block reads it back equal."""
    match tree:
        case Assign(targets, value):
            return f"{', '.join(targets)} = {_text(value, 0)}"
        case _:
            return _text(tree, 0)


def walk(tree: Expr) -> Iterator[Expr]:
    """The tree and everything below it, outermost first, left to right."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def children(tree: Expr) -> tuple[Expr, ...]:
    """The expressions directly below one."""
    match tree:
        case Call(_, args, kwargs):
            return (*args, *(value for _, value in kwargs))
        case Unary(_, value):
            return (value,)
        case Binary(_, left, right) | Compare(_, left, right):
            return (left, right)
        case ListOf(items):
            return items
        case Slice(value, start, stop):
            return tuple(e for e in (value, start, stop) if e is not None)
    return ()


def names(tree: Expr) -> tuple[str, ...]:
    """The names read by an expression (called names are not among them), in order, without repeats."""
    return tuple(dict.fromkeys(e.id for e in walk(tree) if isinstance(e, Name)))


_STRENGTH = {"+": 2, "-": 2, "*": 3, "/": 3, "@": 3, "**": 5}


def _text(tree: Expr, outer: int) -> str:
    """Text of a tree inside something that binds with strength `outer`."""
    match tree:
        case Name(id):
            return id
        case Number(value):
            return repr(value)
        case Multiple(factor):
            return f"{factor!r}x"
        case Text(value):
            return f"'{value}'"
        case Boolean(value):
            return "true" if value else "false"
        case Call("from", (Text(path),), ()):
            return f"from({path})"
        case Call(func, args, kwargs):
            return f"{func}({', '.join([*(_text(a, 0) for a in args), *(f'{n}={_text(v, 0)}' for n, v in kwargs)])})"
        case ListOf(items):
            inside = ", ".join(_text(i, 0) for i in items)
            return f"({inside}{',' if len(items) == 1 else ''})" if tree.round else f"[{inside}]"
        case Slice(value, start, stop):
            first = "" if start is None else _text(start, 0)
            return f"{_text(value, 6)}[{first}{'' if tree.single else ':' + ('' if stop is None else _text(stop, 0))}]"
        case Unary(op, value):
            text, strength = op + _text(value, 4), 4
        case Compare(op, left, right):
            text, strength = f"{_text(left, 2)} {op} {_text(right, 2)}", 1
        case Binary("**", left, right):
            text, strength = f"{_text(left, 6)} ** {_text(right, 4)}", 5
        case Binary(op, left, right):
            strength = _STRENGTH[op]
            text = f"{_text(left, strength)} {op} {_text(right, strength + 1)}"
    return f"({text})" if strength < outer else text
