"""One record per refusal; collected, sorted into file order and drawn with a caret.  Nothing else prints an error.

report = Reporter()
report.error("NLC0402", at, "level 'titans': unknown update rule 'dgdd'", hint=suggest("dgdd", rules, "rules"))
report.check()                     raises SpecError if anything was reported

SpecError       what a user can cause; .diagnostics; str() draws all of them
CompilerBug     what is ours; names the pass and the node
CODES           every code with its title, explanation and example (nlc.codes); `explain(code)` is their text
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from nlc.codes import CODES, Code
from nlc.source import Position, files, line_of

__all__ = ["CODES", "Code", "CompilerBug", "Diagnostic", "Position", "Reporter", "SpecError", "explain", "suggest"]

WIDTH = 110  # characters of a source line that are shown


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One refusal, or a warning.  `hint` stands beside the caret, `note` on lines of its own below."""

    code: str
    at: Position
    message: str
    hint: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise CompilerBug(f"unknown diagnostic code {self.code}")

    def __str__(self) -> str:
        return self.text("error")

    def text(self, kind: str) -> str:
        """For people; `kind`: error, or warning of what is legal and says nothing."""
        at = self.at
        where = at.file if at.line == 0 else f"{at.file}:{at.line}:{at.column}"
        lines = [f"{where}: {kind}: {self.message} [{self.code}]"]
        source = line_of(at.file, at.line)
        if source is None:
            notes = [self.hint, *self.note.splitlines()]
        else:
            shown, column, length = _window(source, at.column, at.length)
            lines.append(f"{at.line:5} | {shown}".rstrip())
            lines.append(f"      | {' ' * (column - 1)}{'^' * length} {self.hint}".rstrip())
            notes = self.note.splitlines()
        return "\n".join([*lines, *(f"      | {note}" for note in notes if note)])

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        at = self.at
        return {
            "code": self.code, "file": at.file, "line": at.line, "column": at.column, "length": at.length,
            "message": self.message, "hint": self.hint, "note": self.note,
        }  # fmt: skip


class SpecError(Exception):
    """A spec that is not legal: every diagnostic found, in file order, each cause once."""

    diagnostics: tuple[Diagnostic, ...]

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        order = {file: i for i, file in enumerate(files())}
        unique = dict.fromkeys(diagnostics)
        self.diagnostics = tuple(sorted(unique, key=lambda d: (order.get(d.at.file, -1), d.at.line, d.at.column)))
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n".join(str(d) for d in self.diagnostics)


class CompilerBug(Exception):
    """Something we believed of our own code is not so.  Say which pass and which node."""

    def __str__(self) -> str:
        return f"{super().__str__()} (this is a bug in nlc, not in your spec: please report it with the spec)"


class Reporter:
    """Collects diagnostics, so that all errors of a file are shown together."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []

    def error(self, code: str, at: Position, message: str, hint: str = "", note: str = "") -> None:
        self.found.append(Diagnostic(code, at, message, hint, note))

    def take(self, error: SpecError) -> None:
        """Add what another stage found."""
        self.found.extend(error.diagnostics)

    def check(self) -> None:
        """Raise SpecError if anything was reported.  What two kinds of block say of one place is said once."""
        if self.found:
            first = {(d.code, d.at, d.message): d for d in reversed(self.found)}
            raise SpecError([d for d in self.found if first[d.code, d.at, d.message] is d])


def suggest(word: str, choices: Iterable[str], kind: str = "") -> str:
    """The nearest legal word, and the list of them: "did you mean 'dgd'? rules: adamw, dgd, gd, momentum"."""
    every = sorted(set(choices))
    near = difflib.get_close_matches(word, every, n=1, cutoff=0.6) or [c for c in every if c.lower() == word.lower()]
    listed = ", ".join(every[:16]) + (", ..." if len(every) > 16 else "")
    parts = [f"did you mean '{near[0]}'?"] if near else []
    if every and (kind or not near):
        parts.append(f"{kind or 'one of'}: {listed}")
    return " ".join(parts)


def explain(code: str) -> str:
    """What `nlc explain NLC0402` prints.  Raises KeyError for a code that does not exist."""
    entry = CODES[code]
    example = "\n".join(f"    {line}" if line else "" for line in entry.example.strip("\n").splitlines())
    return f"{code}: {entry.title}\n\n{entry.explanation}\n\nFor example:\n\n{example}\n"


def _window(source: str, column: int, length: int) -> tuple[str, int, int]:
    """The part of a long line around the caret, control characters made harmless, and the caret's place in it."""
    text = "".join(c if c.isprintable() else " " for c in source)
    column = max(1, min(column, len(text) + 1))
    if len(text) > WIDTH:
        first = max(0, min(column - WIDTH // 2, len(text) - WIDTH))
        last = first + WIDTH
        text = ("..." if first else "") + text[first:last] + ("..." if last < len(text) else "")
        column += (3 if first else 0) - first
    return text, column, max(1, min(length, len(text) - column + 1))
