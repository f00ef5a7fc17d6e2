"""Nodes to plain data and back, by the types of their fields: numbers, words, lists and mappings only.

    encode(node, file) -> {"id": "h", "at": "42:7+4", "op": "conv", ...}     fields at their default are left out
    decode(Op, data, file) -> Op

A Position is `line:column+length`, with the file in front where it is another one; a tree of the block language is
its text.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nlc.diagnostics import CompilerBug
from nlc.equations import (
    Assign,
    Binary,
    Boolean,
    Call,
    Compare,
    ListOf,
    Multiple,
    Name,
    Number,
    Slice,
    Text,
    Unary,
    parse_block,
    parse_expression,
    to_text,
)
from nlc.source import Position

TREES = (Name, Number, Multiple, Text, Boolean, Call, Unary, Binary, Compare, ListOf, Slice)
NOWHERE = Position("", 0, 0)


def encode(value: Any, file: str) -> Any:
    """Plain data; a dataclass becomes a mapping of its fields that are not at their default."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return value.value
        case Position():
            return position_text(value, file)
        case Assign():
            return {"do": to_text(value)}
        case tuple() | list():
            return [encode(v, file) for v in value]
    if isinstance(value, TREES):
        return {"expr": to_text(value)}
    if is_dataclass(value):
        return {
            f.name: encode(getattr(value, f.name), file) for f in fields(value) if getattr(value, f.name) != _default(f)
        }
    raise CompilerBug(f"cannot write {type(value).__name__} {value!r}")


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def decode(kind: Any, data: Any, file: str) -> Any:
    """The value of that type."""
    if kind is Any:
        return _untyped(data, file)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if data is None else decode(_alternative(arguments, data), data, file)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(decode(arguments[0], d, file) for d in data)
        return tuple(decode(a, d, file) for a, d in zip(arguments, data, strict=True))
    if kind is Position:
        return position_from(data, file)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = field_types(kind)
        return kind(**{name: decode(hints[name], d, file) for name, d in data.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return float(data) if kind is float else data


def _alternative(arguments: tuple[Any, ...], data: Any) -> Any:
    """The type that is meant: the only one beside None, or the dataclass that has all the fields given."""
    kinds = [a for a in arguments if a is not type(None)]
    if len(kinds) == 1:
        return kinds[0]
    return next(k for k in kinds if {f.name for f in fields(k)} >= data.keys())


@lru_cache
def field_types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _untyped(data: Any, file: str) -> Any:
    match data:
        case {"do": text}:
            return parse_block(text, NOWHERE)[0]
        case {"expr": text}:
            return parse_expression(text, NOWHERE)
        case list():
            return tuple(_untyped(d, file) for d in data)
    return data


def position_text(at: Position, file: str) -> str:
    return f"{'' if at.file == file else at.file + ':'}{at.line}:{at.column}+{at.length}"


def position_from(text: str, file: str) -> Position:
    *named, line, rest = text.rsplit(":", 2)
    column, length = rest.split("+")
    return Position(named[0] if named else file, int(line), int(column), int(length))
