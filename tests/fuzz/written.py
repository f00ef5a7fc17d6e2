"""A spec as data, and the text a person would write for it: one key a line, so that every value has a line of its own.

    text, lines = written(spec)       lines[("levels", 0, "memories", "m", "every")] -> 12, counted from 1

A value of several lines is a block (`|`); its lines are (..., 0), (..., 1), ...
"""

from __future__ import annotations

import re
from typing import Any

Path = tuple[str | int, ...]

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.()*+/ -]*")
WORDS = frozenset("true false null yes no on off y n".split())


def written(spec: dict[str, Any]) -> tuple[str, dict[Path, int]]:
    """The text, and the line of every key and item."""
    out: list[str] = []
    lines: dict[Path, int] = {}
    _mapping(spec, (), "", out, lines)
    return "\n".join(out) + "\n", lines


def _mapping(spec: dict[str, Any], path: Path, indent: str, out: list[str], lines: dict[Path, int]) -> None:
    for key, value in spec.items():
        _entry(f"{indent}{key}:", value, (*path, key), indent + "  ", out, lines)


def _entry(head: str, value: Any, path: Path, indent: str, out: list[str], lines: dict[Path, int]) -> None:
    lines[path] = len(out) + 1
    match value:
        case dict() if value:
            out.append(head)
            _mapping(value, path, indent, out, lines)
        case list() if value and not all(isinstance(item, str | int) for item in value):
            out.append(head)
            for i, item in enumerate(value):
                _item(item, (*path, i), indent, out, lines)
        case str() if "\n" in value:
            out.append(f"{head} |")
            for i, line in enumerate(value.rstrip("\n").split("\n")):
                lines[(*path, i)] = len(out) + 1
                out.append(indent + line)
        case _:
            lines |= {(*path, i): len(out) + 1 for i in range(len(value) if isinstance(value, list) else 0)}
            out.append(f"{head} {scalar(value)}")


def _item(item: Any, path: Path, indent: str, out: list[str], lines: dict[Path, int]) -> None:
    """A mapping in a list: its first key stands beside the dash."""
    lines[path] = len(out) + 1
    if not isinstance(item, dict):
        out.append(f"{indent}- {scalar(item)}")
        return
    begin = len(out)
    _mapping(item, path, indent + "  ", out, lines)
    out[begin] = f"{indent}- {out[begin].lstrip()}"


def scalar(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(scalar(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{k}: {scalar(v)}' for k, v in value.items())}}}"
    plain = PLAIN.fullmatch(value) and value.lower() not in WORDS and value == value.strip()
    return value if plain else "'" + value.replace("'", "''") + "'"
