"""metrics.jsonl: one JSON object a line, {"step", "tokens", "seconds", name: number, ...}, the truth about a run.

Names: train/loss, val/loss (nats a token), val/bits_per_byte, val/tokens (both are a mean of), perf/tokens_per_s;
val/accuracy, val/answers (which it is a share of) of a task, in place of bits and tokens;
level/<name>/fires (so far), /update (norm of what an update changed), /rate (in force), /retain (share that is kept);
memory/<name>/norm, /surprise; grad/<level>/norm.  x is tokens, with the step beside it.  Those of levels inside a
sequence, and surprise, are said by runtime.probe; update and rate of levels that count steps by runtime.level.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from runtime.errors import USAGE, RunError, Unsaved
from runtime.whole import replace_text


class Metrics:
    """Appends rows; each is on disk before the call returns, so a killed run keeps every row it wrote."""

    def __init__(self, path: Path, rows: int = 0, lenient: bool = False) -> None:
        """`rows`: how many that are there already stay; those after them are dropped.

        Raises RunError where one of them is damaged or there are fewer, unless `lenient`."""
        self.path = path
        try:
            found = lines(path)[:rows] if path.exists() else []
            if not lenient:
                refuse(path, found, "; --allow goes on without it")
            self.rows = [line.row for line in found if line.row is not None]
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


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a metrics file, counted from 1: its row, or why it is none."""

    number: int
    row: dict[str, Any] | None
    fault: str = ""


def lines(path: Path) -> list[Line]:
    """Every line; a last one that a kill cut short, so that no newline ends it, is left out.  Raises OSError."""
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    found = [line(number, text) for number, text in enumerate(whole.split(b"\n") if whole else [], 1)]
    last = line(len(found) + 1, rest)
    return found if last.row is None else [*found, last]


def line(number: int, text: bytes) -> Line:
    try:
        row = json.loads(text.decode("utf-8"), parse_constant=constant)
    except UnicodeDecodeError:
        return Line(number, None, "not UTF-8")
    except (ValueError, RecursionError):
        return Line(number, None, "not JSON")
    fault = misfit(row)
    return Line(number, None if fault else row, fault)


def constant(word: str) -> float:
    raise ValueError(word)  # NaN and Infinity, which are not JSON


def misfit(row: Any) -> str:
    """Why something that is JSON is no row of metrics; "" where it is one."""
    if not isinstance(row, dict):
        return "not an object"
    needed = [name for name in ("step", "tokens") if not is_number(row.get(name))]
    wrong = needed or [name for name, value in row.items() if value is not None and not is_number(value)]
    return f"its {wrong[0]} is not a number" if wrong else ""


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file.  Raises RunError, with the line, where one is damaged."""
    found = lines(path)
    refuse(path, found)
    return [line.row for line in found if line.row is not None]


def refuse(path: Path, found: Sequence[Line], more: str = "") -> None:
    """Raises RunError that names the first line that is no row."""
    for line in found:
        if line.row is None:
            raise RunError(f"{path}:{line.number}: not a row of metrics: {line.fault}{more}", USAGE)


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
