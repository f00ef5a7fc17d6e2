"""Tokens of the block language, and the statements they make.

tokens(text, place, report)              every token; what begins none is reported, and stays as a fault
statements(tokens, text, place, report)  the tokens of one assignment each
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nlc.diagnostics import Reporter
from nlc.source import Place

_TOKEN = re.compile(
    r"""(?P<space>[^\S\n]+|\#[^\n]*) | (?P<newline>\r?\n)
      | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<text>'[^'\n]*'|"[^"\n]*")
      | (?P<op>\*\*|<=|>=|==|!=|[-+*/@<>=(),:\[\]])""",
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\s*,\s*[A-Za-z_]\w*)*\s*=(?!=)")
_INSTEAD = {
    "'": "a text must close on its own line", '"': "a text must close on its own line", "&": "multiply masks: a * b",
    "|": "use max(a, b)", "^": "powers are written **", "{": "lists are written [a, b]", ";": "one assignment per line",
}  # fmt: skip
CLOSES = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number | multiple | name | text | op | newline | fault (reported already)
    text: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


def tokens(text: str, place: Place, report: Reporter) -> list[Token]:
    """Cut a text into tokens, without spaces and comments."""
    found: list[Token] = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            length = _strange(text, offset, place, report)
            found.append(Token("fault", text[offset : offset + length], offset))
            offset += length
            continue
        kind, piece = str(match.lastgroup), match.group()
        if (
            kind == "number"
            and text[match.end() : match.end() + 1] == "x"
            and not text[match.end() + 1 : match.end() + 2].isalnum()
        ):
            kind, piece = "multiple", piece + "x"
        if kind != "space":
            found.append(Token(kind, piece, offset))
        offset += len(piece)
    return found


def _strange(text: str, offset: int, place: Place, report: Reporter) -> int:
    """Report a character that begins no token (a dot between names is an attribute); returns the length it takes."""
    char, before = text[offset], text[:offset].rstrip()
    if char == "." and before and (before[-1].isalnum() or before[-1] in "_)]"):
        attribute = re.match(r"\.\s*\w*", text[offset:])
        length = len(attribute.group()) if attribute else 1
        hint = "values have no attributes; use an operator: transpose(v), norm(v)"
        report.error(
            "NLC0303",
            place(offset, length),
            f"attribute access '{text[offset : offset + length]}' in an equation",
            hint,
        )
        return length
    report.error(
        "NLC0301", place(offset, 1), f"unexpected character '{char}' in an equation", hint=_INSTEAD.get(char, "")
    )
    return 1


def statements(found: list[Token], text: str, place: Place, report: Reporter) -> Iterator[list[Token]]:
    """Split at the ends of lines; inside brackets a statement goes on.  A bracket that never closes is reported where
    it opens, and the next line that looks like an assignment begins a new statement."""
    line: list[Token] = []
    open_: list[Token] = []
    index = 0
    while index < len(found):
        token = found[index]
        index += 1
        if token.kind != "newline":
            line.append(token)
        elif line and not open_:
            yield line
            line = []
        if token.text in CLOSES:
            open_.append(token)
        elif token.text in (")", "]") and open_:
            open_.pop()
        if index == len(found) and open_:
            bracket = open_[0]
            report.error(
                "NLC0302",
                place(bracket.offset, 1),
                f"'{bracket.text}' is never closed",
                hint=f"'{CLOSES[bracket.text]}' expected",
            )
            index = _resume(found, bracket, text)
            line, open_ = [], []
    if line:
        yield line


def _resume(found: list[Token], bracket: Token, text: str) -> int:
    """The first token after `bracket` that begins a line which reads as an assignment."""
    for i, token in enumerate(found):
        if token.offset > bracket.offset and token.kind == "newline" and _ASSIGNMENT.match(text, token.end):
            return i
    return len(found)
