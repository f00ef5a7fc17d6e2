"""Which levels inside a sequence go on learning: on, off, or some by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from runtime.errors import USAGE, RunError


def named(writing: Sequence[str], learn: bool | Collection[str]) -> frozenset[str]:
    """The levels meant: all, none, those named; `cms` means cms.fast and cms.mid.  Raises RunError for another name."""
    if isinstance(learn, bool):
        return frozenset(writing if learn else ())
    return frozenset(level for name in learn for level in of(writing, name))


def of(writing: Sequence[str], name: str) -> list[str]:
    found = [level for level in writing if level == name or level.startswith(f"{name}.")]
    if found:
        return found
    if not writing:
        raise RunError(f"level '{name}': no level of this model writes inside a sequence", USAGE)
    near = difflib.get_close_matches(name, writing, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise RunError(f"no level '{name}' writes inside a sequence; {hint}levels: {', '.join(writing)}", USAGE)


def read(words: str) -> bool | list[str]:
    """on, off, or level,level: what a command line says."""
    if words in ("on", "off"):
        return words == "on"
    names = [name.strip() for name in words.split(",")]
    if not all(names):
        raise RunError(f"'{words}': on, off or names of levels with commas between are expected", USAGE)
    return names
