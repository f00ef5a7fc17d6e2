"""Whether JSON that was read has the shape of what is written: a key may be missing, none may be of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

Shape = Mapping[str, Any]  # key -> a type, a tuple of types, or the Shape of an object

KINDS = {
    dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number", bool: "true or false",
    NoneType: "null",
}  # fmt: skip


def misfit(found: Mapping[str, Any], shape: Shape, above: str = "") -> str:
    """`data.path is a list, a string or null is expected`; "" where everything that is there fits."""
    for key, expected in shape.items():
        if key not in found:
            continue
        value, nested = found[key], isinstance(expected, Mapping)
        kinds = (dict,) if nested else expected if isinstance(expected, tuple) else (expected,)
        if type(value) not in kinds:
            wanted = " or ".join(KINDS[kind] for kind in kinds)
            return f"{above}{key} is {KINDS.get(type(value), 'something else')}, {wanted} is expected"
        if nested and (inner := misfit(value, expected, f"{above}{key}.")):
            return inner
    return ""
