"""Plain data as words on one line, and back: the small notation of a graph's text.

    written([1, "x:1", {"a": True}]) == '[1,x:1,{a=true}]'
    Reader("h = conv(x; window=4) shape=[256] @42:7+4")     .word() .call() .fields() .values()

A word needs quotes only when it could be read as something else.
"""

from __future__ import annotations

import json
import re
from typing import Any

from nlc.diagnostics import CompilerBug

_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([\[\](){},;=@])|([^\s\[\](){},;=@"]+))')
_WORDS = {"true": True, "false": False, "none": None}
_NUMBER = re.compile(r"-?(?:\d+|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf|nan)", re.IGNORECASE)


def word(text: str) -> str:
    """A text, in quotes where it needs them."""
    plain = re.fullmatch(r'[^\s\[\](){},;=@"]+', text) and not _NUMBER.fullmatch(text) and text not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def written(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return word(value)
        case list() | tuple():
            return f"[{','.join(written(v) for v in value)}]"
        case dict():
            return "{" + ",".join(f"{word(k)}={written(v)}" for k, v in value.items()) + "}"
    raise CompilerBug(f"cannot write {value!r}")


class Reader:
    """The tokens of one statement."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [m.groups() for m in _TOKEN.finditer(text)]
        self.place = 0

    def peek(self) -> str | None:
        """The next punctuation; None for anything else."""
        return self.tokens[self.place][1] if self.place < len(self.tokens) else "end"

    def take(self, punctuation: str) -> None:
        if self.peek() != punctuation:
            raise CompilerBug(f"'{punctuation}' expected in {self.text[:80]!r}")
        self.place += 1

    def word(self) -> str:
        quoted, _, plain = self.tokens[self.place]
        self.place += 1
        return json.loads(quoted) if quoted else plain

    def value(self) -> Any:
        match self.peek():
            case "[":
                return self.sequence("[", "]", self.value)
            case "{":
                return dict(self.sequence("{", "}", self.pair))
        quoted, _, plain = self.tokens[self.place]
        self.place += 1
        if quoted:
            return json.loads(quoted)
        if plain in _WORDS:
            return _WORDS[plain]
        if _NUMBER.fullmatch(plain):
            return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)
        return plain

    def sequence(self, opens: str, closes: str, item: Any) -> list[Any]:
        self.take(opens)
        found = []
        while self.peek() != closes:
            found.append(item())
            if self.peek() == ",":
                self.place += 1
        self.take(closes)
        return found

    def pair(self) -> tuple[str, Any]:
        name = self.word()
        self.take("=")
        return name, self.value()

    def call(self) -> tuple[str, list[str], list[list[Any]]]:
        """`= name(a, b; option=1)`."""
        self.take("=")
        name = self.word()
        self.take("(")
        inputs: list[str] = []
        options: list[list[Any]] = []
        while self.peek() not in (")", ";"):
            inputs.append(self.word())
            if self.peek() == ",":
                self.place += 1
        if self.peek() == ";":
            self.place += 1
            while self.peek() != ")":
                options.append(list(self.pair()))
        self.take(")")
        return name, inputs, options

    def fields(self) -> dict[str, Any]:
        """`name=value ... @place`."""
        found: dict[str, Any] = {}
        while self.peek() != "end":
            if self.peek() == "@":
                self.place += 1
                found["at"] = self.word()
            else:
                name, value = self.pair()
                found[name] = value
        return found

    def values(self) -> list[Any]:
        found = []
        while self.peek() != "end":
            found.append(self.value())
        return found
