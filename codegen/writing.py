"""Pieces of text as a person would write them: calls, tuples, numbers, comments at the margin, names of variables."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Sequence
from typing import Any

from codegen.layout import WIDTH, cited
from codegen.names import function_name
from nlc.source import Position


def margin(code: str, comment: str = "", at: Position | None = None) -> str:
    """Code, a comment two spaces after it, and `hope.yaml:33` at the right margin.  Without room, the code alone."""
    if at is not None:
        where = cited(at)
        for left in (f"{code}  # {comment}  " if comment else f"{code}  # ", f"{code}  # "):
            if len(left) + len(where) <= WIDTH:
                return left.ljust(WIDTH - len(where)) + where if comment else left + where
    line = f"{code}  # {comment}"
    return line if comment and len(line) <= WIDTH else code


def call(function: str, arguments: Sequence[str], indent: int) -> tuple[str, ...]:
    """A call on one line; else its arguments on the next; else one a line."""
    pad = "    " * indent
    inside = ", ".join(arguments)
    if "\n" not in inside:
        if len(line := f"{pad}{function}({inside})") <= WIDTH:
            return (line,)
        if len(line := f"{pad}    {inside}") <= WIDTH:
            return (f"{pad}{function}(", line, f"{pad})")
    lines = [f"{pad}    {line}" for argument in arguments for line in f"{argument},".splitlines()]
    return (f"{pad}{function}(", *lines, f"{pad})")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def strings(names: Sequence[str], room: int) -> str:
    """A tuple of texts, on one line if there is room, else one a line."""
    inside = ", ".join(quoted(name) for name in names)
    if len(inside) <= room:
        return f"({inside}{',' * (len(names) == 1)})"
    return "\n".join(["(", *(f"    {quoted(name)}," for name in names), ")"])


def literal(value: Any) -> str:
    """A parameter as Python: 0.001 as 1e-3, [0.9, 0.95] as a tuple."""
    if isinstance(value, tuple | list):
        return f"({', '.join(literal(v) for v in value)}{',' * (len(value) == 1)})"
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        digits, exponent = f"{value:.15e}".split("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
        return text if float(text) == value else repr(value)
    return quoted(value) if isinstance(value, str) else repr(value)


def distinct(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A Python variable for each dotted name: its last word, or all of it where that is taken."""
    names, used, found = list(names), set(taken), {}
    lasts = [name.split(".")[-1] for name in names]
    for name, last in zip(names, lasts, strict=True):
        text = function_name(last)
        if text in used or lasts.count(last) > 1:
            text = function_name(name)
        while text in used or keyword.iskeyword(text) or not text.isidentifier():
            text = f"{text}_level" if text.isidentifier() else f"level_{text}"
        used.add(text)
        found[name] = text
    return found
