"""Where two specs differ: keys of the resolved specs, addressed as `--set` addresses them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nlc.show import leaves

ABSENT = object()
WORDS = ("doc", "name")  # say something about a spec, not what it computes


@dataclass(frozen=True, slots=True)
class Change:
    """One key with two values; either may be absent."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if any(isinstance(x, str) and "\n" in x.strip() for x in (self.before, self.after)):
            return f"{self.path}:\n" + "\n".join(f"    {line}" for line in self._lines())
        return f"{self.path}: {_text(self.before)} -> {_text(self.after)}"

    def _lines(self) -> Iterator[str]:
        """- and + lines of a program."""
        old, new = (_text(x).splitlines() for x in (self.before, self.after))
        return (line for line in difflib.ndiff(old, new) if line.startswith(("- ", "+ ")))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The keys of two resolved specs whose values differ, in the order of the first; names and docs do not count."""
    old, new = dict(leaves(before)), dict(leaves(after))
    paths = [path for path in dict.fromkeys([*old, *new]) if path not in WORDS]
    changes = [Change(path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in paths]
    return [change for change in changes if change.before != change.after]


def _text(value: Any) -> str:
    return "(absent)" if value is ABSENT else str(value).strip()
