"""Where things stand: positions, the texts read so far, and the tree of a YAML file with a place on everything.

    Position                      file, line, column, length; 1-based
    remember(file, text)          keep a text, so that a diagnostic can show its line
    line_of(file, n)              that line
    Scalar | Mapping | Sequence   the tree that nlc.spec.text reads; plain(tree): its values alone
    Place                         (offset, length) inside a scalar's text -> Position in the file

Nothing here reads a file or reports an error: nlc.spec.text does the first, nlc.diagnostics the second.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Place = Callable[[int, int], "Position"]

BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML counts as the end of a line
_TEXTS: dict[str, list[str]] = {}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file, 1-based; `length` characters are underlined.  Line 0 is the file as a whole."""

    file: str
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word, number or text.  `value` is typed by YAML 1.2, `text` is what was written, without quotes and indents.

    `at` is the first character of the text itself.  `runs` are (offset in text, line, column): from each offset on,
    text and file advance together."""

    value: str | int | float | bool | None
    text: str
    at: Position
    runs: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)
    quoted: bool = False
    folded: bool = False  # written after >, which makes one line of several

    def place(self, offset: int, length: int = 1) -> Position:
        """The position of a piece of the text."""
        if not self.runs:
            return Position(self.at.file, self.at.line, self.at.column + offset, length)
        start, line, column = self.runs[max(0, bisect_right(self.runs, offset, key=lambda run: run[0]) - 1)]
        return Position(self.at.file, line, column + offset - start, length)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order written."""

    entries: dict[str, Entry]
    at: Position

    def get(self, key: str) -> Tree | None:
        entry = self.entries.get(key)
        return entry.value if entry else None


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Tree, ...]
    at: Position


Tree = Scalar | Mapping | Sequence


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping: where the key is written, and its value."""

    at: Position
    value: Tree


def remember(file: str, text: str) -> None:
    """Keep the lines of a text under the name that its positions carry."""
    _TEXTS[file] = BREAK.split(text)


def line_of(file: str, line: int) -> str | None:
    """A line as written, or None where the text is unknown or shorter."""
    lines = _TEXTS.get(file, [])
    return lines[line - 1] if 0 < line <= len(lines) else None


def files() -> tuple[str, ...]:
    """The names of the texts read, in the order they were first read."""
    return tuple(_TEXTS)


def place_from(at: Position, text: str) -> Place:
    """The place function of a text whose first character is at `at` and whose lines all begin in that column
    (one line, or the content of a `|` block)."""
    starts = [0, *(m.end() for m in BREAK.finditer(text))]

    def place(offset: int, length: int = 1) -> Position:
        row = bisect_right(starts, offset) - 1
        return Position(at.file, at.line + row, at.column + offset - starts[row], length)

    return place


def scalars(tree: Tree, skip: Callable[[str], bool] = lambda key: False) -> Iterator[Scalar]:
    """All that is written in a tree, but for what stands under a key to `skip`."""
    match tree:
        case Mapping(entries, _):
            for key, entry in entries.items():
                if not skip(key):
                    yield from scalars(entry.value, skip)
        case Sequence(items, _):
            for item in items:
                yield from scalars(item, skip)
        case Scalar():
            yield tree


def plain(tree: Tree) -> Any:
    """A tree as Python values.  Keys without a value are left out (they are reported)."""
    match tree:
        case Mapping(entries, _):
            return {
                key: plain(entry.value)
                for key, entry in entries.items()
                if not (isinstance(entry.value, Scalar) and entry.value.value is None)
            }
        case Sequence(items, _):
            return [plain(item) for item in items]
        case Scalar(value=value):
            return value
