"""A drawn program: its spec as data and text, and how it is fed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

from tests.fuzz.written import Path, written


@dataclass(frozen=True)
class Feeding:
    """What goes in: `length` tokens of `batch` sequences, once whole and once in these pieces.

    borders, padding: (sequence, token) where a document begins, and where there is none.
    learn: what may write: all, nothing, or the levels of these numbers among those that write in a call.
    """

    length: int
    batch: int = 1
    pieces: tuple[int, ...] = ()
    borders: tuple[tuple[int, int], ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    learn: bool | tuple[int, ...] = True
    seed: int = 0


class Fed(Protocol):
    """What can be checked: a spec's text, and how its program is fed."""

    @property
    def text(self) -> str: ...

    @property
    def feeding(self) -> Feeding: ...


@dataclass(frozen=True)
class Drawn:
    """A legal program."""

    spec: dict[str, Any]
    feeding: Feeding = field(default_factory=lambda: Feeding(12))

    @cached_property
    def text(self) -> str:
        return written(self.spec)[0]

    @cached_property
    def lines(self) -> dict[Path, int]:
        return written(self.spec)[1]

    def as_dict(self) -> dict[str, Any]:
        return {"text": self.text, "feeding": asdict(self.feeding)}
