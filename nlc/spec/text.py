"""Files to trees: read a file safely, read YAML 1.2, keep the place of every key and value.

    read(path, shown, report)    a file                          -> text, or None when reported
    parse(text, file, report)    YAML text                       -> Tree, or None when nothing can be made of it
    parse_value(text, file, line, column, report)                -> Tree: the value of one `--set`

YAML is taken as data only: one document, no tags, no merge keys, aliases within limits.  `no` is a string (YAML 1.2).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from nlc.diagnostics import Reporter
from nlc.source import BREAK, Entry, Mapping, Position, Scalar, Sequence, Tree, line_of, remember

LARGEST = 256 * 1024  # bytes in a file
VALUES = 20_000  # values once aliases are filled in
DEPTH = 40


_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: an escape may name one, no text holds it
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}|0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read(path: Path, shown: str, report: Reporter) -> str | None:
    """The text of a file; `shown` is its name in messages.  A file that is too large is not read at all."""
    whole = Position(shown, 0, 0)
    try:
        if not path.is_file():
            leads = "a link that leads to no file" if path.is_symlink() else "no such file"
            report.error("NLC0101", whole, "not a file" if path.exists() else leads)
            return None
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        size = path.stat().st_size
    except OSError as error:
        report.error("NLC0101", whole, f"cannot be read: {error.strerror}")
        return None
    if len(data) > LARGEST:
        report.error("NLC0102", whole, f"{size / 1e6:.1f} MB; a spec is text of at most {LARGEST // 1024} kB")
        return None
    return decode(data, shown, report)


def place_of(path: Path) -> Path:
    """The place that a path means, links followed; one whose links go round in a circle means itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # the latter before Python 3.13
        return Path(os.path.abspath(path))


def standard_input(limit: int = -1) -> bytes:
    """What stands on stdin, at most `limit` bytes.  Raises OSError, with the stream's name, where it cannot be read."""
    try:
        return sys.stdin.buffer.read(limit)
    except OSError as error:
        error.filename = "standard input"
        raise


def decode(data: bytes, shown: str, report: Reporter) -> str | None:
    """Bytes as UTF-8 text without control characters."""
    try:
        text = data.decode("utf-8-sig")
        strange = next((m for m in re.finditer("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)), None)
    except UnicodeDecodeError as error:
        report.error(
            "NLC0103",
            Position(shown, 0, 0),
            f"not text: byte {error.start} is {data[error.start]:#04x}",
            hint="a spec is UTF-8 text",
        )
        return None
    if strange:
        where, char = len(text[: strange.start()].encode()), strange.group()
        report.error(
            "NLC0103", Position(shown, 0, 0), f"not text: byte {where} is {ord(char):#04x}", hint="a spec is UTF-8 text"
        )
        return None
    return text


def parse(text: str, file: str, report: Reporter) -> Tree | None:
    """The tree of a YAML text.  Reports what is wrong with it; None only when nothing can be made of it."""
    remember(file, text)
    builder = _Builder(text, file, report)
    tree = builder.document()
    if tree is None and not builder.failed:
        report.error("NLC0104", Position(file, 0, 0), "the file is empty", hint="a spec begins with nlc: 1")
    return tree


def parse_value(text: str, at: Position, report: Reporter) -> Tree | None:
    """The value of one `--set key=value`, as YAML; `at` is its first character, in a text already remembered."""
    if "\n" in text:
        return Scalar(text, text, at)
    return _Builder(text, at.file, report, at.line - 1, at.column - 1).document() or (
        None if report.found else Scalar(None, "", at)
    )


def _typed(text: str) -> str | int | float | bool | None:
    """A plain scalar's value by the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Fault(Exception):
    """Already reported; nothing can be made of the rest."""


class _Builder:
    """Composes ruamel's events; `row` and `column` move every position (for a text inside another)."""

    def __init__(self, text: str, file: str, report: Reporter, row: int = 0, column: int = 0) -> None:
        self.text, self.file, self.report, self.row, self.column = text, file, report, row, column
        self.anchors: dict[str, tuple[Tree, int] | None] = {}
        self.values = 0
        self.failed = False

    def document(self) -> Tree | None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        from nlc.spec.scanner import Shallow, TooDeep

        yaml = YAML(typ="safe", pure=True)
        yaml.Scanner = Shallow
        self.events: Iterator[Any] = iter(yaml.parse(self.text))
        try:
            return self.whole()
        except _Fault:
            pass
        except TooDeep as error:
            self.too_deep(error)
        except MarkedYAMLError as error:
            self.syntax(error)
        except (YAMLError, ValueError) as error:
            self.report.error("NLC0106", Position(self.file, 0, 0), f"not YAML: {' '.join(str(error).split())[:200]}")
        self.failed = True
        return None

    def whole(self) -> Tree | None:
        tree = None
        for event in self.events:
            match type(event).__name__:
                case "StreamStartEvent" | "StreamEndEvent" | "DocumentEndEvent":
                    pass
                case "DocumentStartEvent":
                    if tree is not None:
                        self.fail("NLC0109", self.at(event), "a second document", "one spec per file")
                case _:
                    tree = self.node(event, 0)
        empty = isinstance(tree, Scalar) and tree.value is None and not tree.text
        return None if empty else tree

    def node(self, event: Any, depth: int) -> Tree:
        self.values += 1
        if depth > DEPTH:
            self.too_deep(event)
            raise _Fault
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self.alias(event)
        tag = getattr(event, "tag", None) or getattr(event, "ctag", None)
        if tag is not None and str(tag) not in ("!", "None"):
            self.report.error(
                "NLC0109", self.at(event), f"the tag {tag}", hint="a spec is plain data; take the tag away"
            )
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        before = self.values
        tree: Tree
        if kind == "ScalarEvent":
            tree = self.scalar(event)
        elif kind == "MappingStartEvent":
            tree = self.mapping(event, depth)
        else:
            at = self.at(event)
            tree = Sequence(tuple(self.node(e, depth + 1) for e in self.until("SequenceEndEvent")), at)
        if event.anchor is not None:
            self.anchors[event.anchor] = tree, self.values - before + 1
        if self.values > VALUES:
            self.fail("NLC0108", self.at(event), f"more than {VALUES} values once aliases are filled in")
        return tree

    def until(self, end: str) -> Iterator[Any]:
        for event in self.events:
            if type(event).__name__ == end:
                return
            yield event

    def alias(self, event: Any) -> Tree:
        at = self.at(event, len(event.anchor) + 1)
        if event.anchor not in self.anchors:
            self.fail("NLC0106", at, f"the alias '*{event.anchor}' has no anchor '&{event.anchor}' before it")
        known = self.anchors[event.anchor]
        if known is None:
            self.fail("NLC0108", at, f"the alias '*{event.anchor}' stands inside its own anchor")
        tree, size = known
        self.values += size - 1
        if self.values > VALUES:
            self.fail(
                "NLC0108", at, f"more than {VALUES} values once aliases are filled in", "this alias is one too many"
            )
        return tree

    def mapping(self, event: Any, depth: int) -> Mapping:
        at = self.at(event)
        entries: dict[str, Entry] = {}
        for key_event in self.until("MappingEndEvent"):
            key = self.node(key_event, depth + 1)
            value = self.node(next(self.events), depth + 1)
            if not isinstance(key, Scalar):
                self.report.error("NLC0202", key.at, "a key is a word, not a list or a mapping")
            elif key.text == "<<":
                self.report.error(
                    "NLC0109",
                    key.at,
                    "the merge key '<<'",
                    hint="it is not part of YAML 1.2; use extends, or write the keys",
                )
            elif key.text in entries:
                first = entries[key.text].at
                self.report.error("NLC0107", key.at, f"duplicate key '{key.text}'", hint=f"first on line {first.line}")
            else:
                entries[key.text] = Entry(key.at, value)
        if event.flow_style:
            self.rejoin(entries)
        return Mapping(entries, at)

    def rejoin(self, entries: dict[str, Entry]) -> None:
        """In { } a comma ended an expression: report it once, and put the expression together again."""
        open_key = ""
        for key, entry in list(entries.items()):
            value = entry.value
            if open_key and isinstance(value, Scalar) and value.value is None:
                cut = entries[open_key].value
                assert isinstance(cut, Scalar)
                whole = f"{cut.text}, {key}"
                entries[open_key] = Entry(entries[open_key].at, Scalar(whole, whole, cut.at))
                del entries[key]
                if whole.count("(") <= whole.count(")"):
                    open_key = ""
            elif isinstance(value, Scalar) and not value.quoted and value.text.count("(") > value.text.count(")"):
                open_key = key
                hint = "inside { } a comma ends the value; put quotes around the expression"
                self.report.error("NLC0110", value.at, f"'{key}': '(' is never closed", hint=hint)

    def scalar(self, event: Any) -> Scalar:
        text, start = event.value, event.start_mark
        quoted = event.style in ("'", '"')
        if event.style in ("|", ">"):
            text = text.lstrip("\n")
        if event.style == "|":
            runs = self.literal_runs(text, start.line + 1)
        elif event.style == ">":
            runs = self.aligned_runs(text, self.text.find("\n", start.index) + 1, len(self.text))
        elif event.end_mark.index - start.index == len(text):
            return Scalar(_typed(text), text, self.at(event, len(text)))
        else:
            runs = self.aligned_runs(text, start.index + (1 if quoted else 0), event.end_mark.index)
        value = text if event.style in ("|", ">", "'", '"') else _typed(text)
        _, line, column = runs[0]
        if _HALF.search(text):
            hint = "a character above U+FFFF is one escape: \\U0001F600"
            self.report.error("NLC0103", Position(self.file, line, column), "half of a surrogate pair is no text", hint)
        first = text.split("\n", 1)[0]
        length = len(first) if len(runs) == 1 or runs[1][1] > line else runs[1][0]
        return Scalar(
            value, text, Position(self.file, line, column, max(1, length)), tuple(runs), quoted, event.style == ">"
        )

    def literal_runs(self, text: str, number: int) -> list[tuple[int, int, int]]:
        """Where the lines of a `|` block stand in the file, from line `number` (0-based) on."""
        runs: list[tuple[int, int, int]] = []
        offset = 0
        lines = BREAK.split(self.text)
        for row in text.split("\n"):
            if row.strip():
                while number < len(lines) and not lines[number].endswith(row):
                    number += 1
                written = lines[number] if number < len(lines) else row
                runs.append(self.run(offset, number, len(written) - len(row)))
                number += 1
            offset += len(row) + 1
        return runs or [self.run(0, number - 1, 0)]

    def aligned_runs(self, text: str, index: int, end: int) -> list[tuple[int, int, int]]:
        """Where each piece of a quoted or folded text stands: follow both, and begin a run wherever they part."""
        runs: list[tuple[int, int, int]] = []
        line = self.text.count("\n", 0, index)
        line_start = self.text.rfind("\n", 0, index) + 1
        ahead = -1  # file minus text, in characters, along the running run
        for offset, char in enumerate(text):
            found = -1 if char.isspace() else self.text.find(char, index, end)
            if found < 0:
                continue
            if found - offset != ahead:
                ahead = found - offset
                line += self.text.count("\n", index, found)
                line_start = max(line_start, self.text.rfind("\n", index, found) + 1)
                runs.append(self.run(offset, line, found - line_start))
            index = found + 1
        return runs or [self.run(0, line, index - line_start)]

    def run(self, offset: int, line: int, column: int) -> tuple[int, int, int]:
        return offset, line + 1 + self.row, column + 1 + (self.column if line == 0 else 0)

    def at(self, event: Any, length: int = 1) -> Position:
        mark = event.start_mark
        _, line, column = self.run(0, mark.line, mark.column)
        return Position(self.file, line, column, max(1, length))

    def too_deep(self, found: Any) -> None:
        self.report.error("NLC0108", self.at(found), f"nested more than {DEPTH} deep")

    def syntax(self, error: Any) -> None:
        """YAML's own complaint, in our manner."""
        mark = error.problem_mark or error.context_mark
        if error.context_mark and ("stream" in str(error.problem) or "quoted" in str(error.context)):
            mark = error.context_mark  # where it was opened, rather than the end of the file
        _, line, column = self.run(0, mark.line, mark.column) if mark else (0, 0, 0)
        at = Position(self.file, line, column)
        written = line_of(self.file, line) or ""
        indent = written[: len(written) - len(written.lstrip())]
        if "\t" in indent:
            at = Position(self.file, line, indent.index("\t") + 1)
            self.report.error("NLC0105", at, "a tab in the indentation", hint="YAML wants spaces")
            return
        problem = " ".join(str(error.problem).split()).replace("but found", "found")
        hint = "a value with ': ' in it needs quotes" if "mapping values are not allowed" in problem else ""
        if problem.endswith(("got '['", "got '{'")):
            hint = "put quotes around an expression with a bracket in it"
        context = f" {error.context}" if error.context else ""
        self.report.error(
            "NLC0106", at, f"not YAML:{context}: {problem}" if context else f"not YAML: {problem}", hint=hint
        )

    def fail(self, code: str, at: Position, message: str, hint: str = "") -> NoReturn:
        self.report.error(code, at, message, hint)
        raise _Fault
