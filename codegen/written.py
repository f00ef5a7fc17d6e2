"""What a rule's program says, as it is written in Python: its text, how tightly that binds, its shape.

literal(0.9)                                  -> Text("0.9")
Text("a + b", 1).within(2)                    -> "(a + b)"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codegen.equations import TIGHTEST, number, parenthesised
from nlc.operator_shapes import Shape

NEGATED = 3  # how tightly a sign binds


@dataclass(frozen=True, slots=True)
class Text:
    """A written expression: how tightly it binds, and its shape; None is a plain number, of no tensor.

    `fresh`: nobody else holds the tensor.  `into`: what it is written over.  `made`: the operation that makes it, if it
    is one of two values."""

    text: str
    strength: int = TIGHTEST
    shape: Shape | None = None
    fresh: bool = False
    into: str = ""
    made: tuple[str, Text, Text] | None = None

    def within(self, least: int) -> str:
        return parenthesised(self.text, self.strength, least)


def literal(value: Any) -> Text:
    """A number, truth value, word or list of them as Python."""
    if isinstance(value, bool | str):
        return Text(f'"{value}"' if isinstance(value, str) else repr(value))
    if isinstance(value, tuple | list):
        return listed([literal(v).text for v in value])
    return Text(number(float(value)), TIGHTEST if value >= 0 else NEGATED)


def listed(items: list[str]) -> Text:
    return Text(f"({', '.join(items)}{',' * (len(items) == 1)})")
