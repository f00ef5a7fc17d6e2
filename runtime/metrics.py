"""metrics.jsonl: one JSON object a line, {"step", "tokens", "seconds", name: number, ...}, the truth about a run.

Names: train/loss, val/loss (nats a token), val/bits_per_byte, val/tokens (both are a mean of), perf/tokens_per_s;
level/<name>/fires (so far), /update (norm of what an update changed), /rate (in force), /retain (share that is kept);
memory/<name>/norm, /surprise; grad/<level>/norm.  x is tokens, with the step beside it.  Those of levels inside a
sequence, and surprise, are said by runtime.probe; update and rate of levels that count steps by runtime.level.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from runtime.errors import USAGE, RunError, Unsaved
from runtime.whole import replace_text


class Metrics:
    """Appends rows; each is on disk before the call returns, so a killed run keeps every row it wrote."""

    def __init__(self, path: Path, rows: int = 0, lenient: bool = False) -> None:
        """`rows`: how many that are there already stay; those after them are dropped.

        Raises RunError where there are fewer, unless `lenient`."""
        self.path = path
        self.rows: list[dict[str, Any]] = list(islice(read(path), rows)) if path.exists() else []
        try:
            if len(self.rows) < rows and not lenient:
                left = f"{len(self.rows)} of {rows} are left"
                raise RunError(f"'{path}' has lost rows: {left}; --allow goes on without them", USAGE)
            if path.exists():
                replace_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
            self.file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise Unsaved(f"cannot write '{path}': {error.strerror}") from None

    def write(self, step: int, tokens: int, seconds: float, values: Mapping[str, float]) -> None:
        row = {"step": step, "tokens": tokens, "seconds": round(seconds, 3)}
        row |= {name: number(value) for name, value in values.items()}
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """What was written is on the disk: a checkpoint that is made after this counts the rows."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def number(value: float) -> float | None:
    """A number JSON can hold: what is not finite becomes null."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def norms(state: Mapping[str, Any]) -> dict[str, float]:
    """memory -> norm of its running state: root mean square over sequences and layers of the whole state's norm.

    `state` is a model's: {"blocks.0.titans.key": {"M": (B, ...), "held.M": ..., ...}, ...}; only the running parts of
    memories count, not held copies, rule states, sums, convolutions or caches.
    """
    squares: dict[str, list[float]] = {}
    for place, parts in state.items():
        if not place.startswith("blocks.") or not isinstance(parts, Mapping):
            continue
        running = [t for name, t in parts.items() if is_running(name) and isinstance(t, Tensor)]
        if running:
            total = sum(t.detach().float().flatten(1).square().sum(1) for t in running)
            squares.setdefault(place.split(".", 2)[2], []).append(float(total.mean()))  # type: ignore[union-attr]
    return {name: math.sqrt(sum(values) / len(values)) for name, values in squares.items()}


def is_running(part: str) -> bool:
    """Whether a part of a register is a memory's running state: M, m, W_in, or what a form of one's own calls it."""
    return "." not in part and part not in ("k", "v", "past", "kept", "origin")
