"""What the tests of the command share: where things are, and how a command ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "specs" / "architectures").glob("*.yaml"))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Run = Callable[..., Ended]
