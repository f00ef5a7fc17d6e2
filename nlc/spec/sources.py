"""`start: from(checkpoint:path, part=name)`: weights that begin as those of a checkpoint.

    source_of("from(checkpoint:runs/first, W_in=x.linear_4)", place) -> Source, or None for another kind of start

A path is relative to the file that says it, and stays in that file's folder; on the command line (`--set`) it is any
path, as in a shell.  Each `part=name` says which weight of the checkpoint a weight begins as, where that has another
name: on a memory `part` is a part of its state, on a level a weight's name below `blocks.<layer>.`; so is `name`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePath

from nlc.diagnostics import Reporter, SpecError
from nlc.equations import Text, parse_call
from nlc.source import Place, Position
from nlc.spec.settings import FILE as SET

HINT = "write from(checkpoint:path), and where names differ from(checkpoint:path, W_in=x.linear)"
_WEIGHT = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """The path as written, and the weights that have another name in the checkpoint: (name here, name there)."""

    path: str
    renamed: tuple[tuple[str, str], ...]
    at: Position


def source_of(text: str, place: Place) -> Source | None:
    """Raises SpecError with NLC0406."""
    if text.lstrip().startswith("from") and "(" in text and ")" not in text:
        raise _refused(place(0, max(1, len(text))), "'from(' is never closed", HINT)
    call = parse_call(text, place)
    if call.func != "from":
        return None
    inside = call.args[0] if call.args else None
    if not isinstance(inside, Text) or call.kwargs or not inside.value:
        raise _refused(call.at, "from what?", HINT)
    first, *others = inside.value.split(",")
    kind, _, path = (word.strip() for word in first.partition(":"))
    if kind != "checkpoint" or not path:
        raise _refused(inside.at, f"from({inside.value})", HINT)
    if inside.at.file != SET and (PurePath(path).is_absolute() or ".." in PurePath(path).parts):
        hint = "a path in the folder of this spec or below it"
        raise _refused(inside.at, f"'{path}' is outside the spec's folder", hint)
    renamed = tuple(_renamed(other, inside.at) for other in others)
    parts = [here for here, _ in renamed]
    for here in parts:
        if parts.count(here) > 1:
            raise _refused(inside.at, f"'{here}' is given twice", "each begins as one weight")
    return Source(path, renamed, replace(inside.at, length=len(first)))


def _renamed(text: str, at: Position) -> tuple[str, str]:
    here, equals, there = (word.strip() for word in text.partition("="))
    if not equals or not all(_WEIGHT.fullmatch(word) for word in (here, there)):
        raise _refused(at, f"'{text.strip()}' does not say which weight another begins as", HINT)
    return here, there


def _refused(at: Position, message: str, hint: str) -> SpecError:
    report = Reporter()
    report.error("NLC0406", at, message, hint)
    return SpecError(report.found)
