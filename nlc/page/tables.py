"""Tables of a page: results and cost side by side, where specs differ, how each memory is computed, versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlc.explain import plural
from nlc.page.chart import said
from nlc.page.facts import Facts
from nlc.report import binary, decimal
from nlc.show import leaves

ABSENT = "-"
WORDS = ("doc", "name")  # of a spec: say something about it, not what it computes


@dataclass(frozen=True, slots=True)
class Table:
    """head: titles of the columns; rows of cells; numbers: columns that end together; code: cells are a spec's text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = False
    code: bool = False


def results(runs: Sequence[Facts]) -> Table:
    """What came of each run, and what a token of it costs."""
    kinds: dict[str, Callable[[Facts], str]] = {
        "validation, bits per byte": lambda r: number(final(r), 4),
        "validation, answers that are right": accuracy,
        "validation, nats per token": lambda r: number(r.last("val/loss"), 4),
        "training loss, nats per token": lambda r: number(r.last("train/loss"), 4),
        "steps": lambda r: f"{r.steps:,}",
        "tokens seen": lambda r: f"{r.tokens:,}",
        "tokens per second": lambda r: number(speed(r), 4),
        "time": duration,
        "parameters": lambda r: f"{r.explained.cost.parameters:,}" if r.explained and r.explained.cost else ABSENT,
        "state of a sequence, float32": lambda r: _cost(r, "state_bytes", binary),
        "forward, per token": lambda r: _cost(r, "flops", lambda n: f"{decimal(n)}FLOP"),
        "saved for backward, per token": lambda r: _cost(r, "activation_bytes", binary),
        "saved for backward, per step": lambda r: _cost(r, "activation_bytes_per_step", binary),
    }
    rows = tuple((label, *(make(run) for run in runs)) for label, make in kinds.items())
    head = ("", *(run.name for run in runs)) if len(runs) > 1 else ()
    return Table(head, tuple(row for row in rows if set(row[1:]) != {ABSENT}), numbers=True)


def accuracy(run: Facts) -> str:
    """In a task."""
    found = run.last("val/accuracy")
    return ABSENT if found is None else f"{100 * found:.1f} %"


def final(run: Facts) -> float | None:
    return run.last("val/bits_per_byte")


def speed(run: Facts) -> float | None:
    """The median of the rows."""
    found = sorted(y for _, y in run.points("perf/tokens_per_s") if y is not None)
    return found[len(found) // 2] if found else None


def duration(run: Facts) -> str:
    seconds = max((row["seconds"] for row in run.rows if isinstance(row.get("seconds"), int | float)), default=None)
    return ABSENT if seconds is None else clock(seconds)


def clock(seconds: float) -> str:
    """2 h 05 min | 3 min 20 s | 12 s"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def number(value: float | None, digits: int) -> str:
    if value is None:
        return ABSENT
    return f"{value:#.{digits}g}" if 1e-3 <= abs(value) < 10 ** (digits - 1) else said(value, digits)


def _cost(run: Facts, field: str, written: Callable[[int], str]) -> str:
    value = getattr(run.explained.cost, field) if run.explained and run.explained.cost else 0
    return written(value) if value else ABSENT


def differences(runs: Sequence[Facts]) -> Table:
    """Every key of the resolved specs that is not the same in all runs."""
    specs = [dict(leaves(run.spec.resolved())) if run.spec else {} for run in runs]
    keys = dict.fromkeys(key for spec in specs for key in spec if key not in WORDS)
    lone = {level_of(key) for key in keys} - {""}
    lone = {level for level in lone if not all(any(level_of(k) == level for k in spec) for spec in specs)}
    rows: dict[str, tuple[str, ...]] = {}
    for key in keys:
        values = [_text(spec[key]) if key in spec else ABSENT for spec in specs]
        if (level := level_of(key)) in lone:  # a level that a spec lacks is one row
            counts = [sum(level_of(k) == level for k in spec) for spec in specs]
            rows[level] = (level, *(plural(n, "key") if n else ABSENT for n in counts))
        elif len(set(values)) > 1:
            rows[key] = (key, *values)
    return Table(("key", *(run.name for run in runs)), tuple(rows.values()), code=True)


def level_of(key: str) -> str:
    """levels.titans of levels.titans.rate; "" of what belongs to no level."""
    return ".".join(key.split(".")[:2]) if key.startswith("levels.") else ""


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value).strip()
    return re.sub(r" {2,}#", "  #", text)  # comments of a program are aligned for a wide page


def spec_lines(resolved: str) -> Iterator[tuple[str, str]]:
    """(line, where its value came from) of a resolved spec, which says that in comments; programs have none."""
    program = -1  # indent of the key whose program these lines are
    for line in resolved.splitlines():
        indent = len(line) - len(line.lstrip())
        program = program if indent > program >= 0 or not line.strip() else -1
        value, mark, origin = line.rpartition(" # ") if program < 0 else (line, "", "")
        if not mark:
            value, origin = line, ""
        if program >= 0 or not value.startswith("#"):
            yield value.rstrip(), origin.strip()
        if value.rstrip().endswith((": |", ": |-")):
            program = indent


def computed(run: Facts) -> Table:
    """How each memory is computed, and why."""
    rows = []
    for r in run.explained.recurrences if run.explained else ():
        length = [f"chunk {r.chunk}"] if r.chunk > 1 else []
        length += [f"blocks of {plural(r.block_length, 'token')}"] if r.block_length else []
        how = r.lowering + (f" ({', '.join(length)})" if length else "")
        rows.append((", ".join(r.members) or ABSENT, how, r.reason))
    return Table(("memories", "computed as", "because"), tuple(rows))


def memories(run: Facts) -> Table:
    found = run.explained.memories if run.explained else ()
    rows = tuple((m.name, m.form, m.start, m.carry, m.reads, m.meta) for m in found)
    return Table(("memory", "form", "start", "carry", "read", "meta"), rows)


def versions(runs: Sequence[Facts]) -> Table:
    """What could change a result: lock.json, without the code's own digests."""
    locks = [dict(_leaves(run.lock)) for run in runs]
    keys = [k for k in dict.fromkeys(key for lock in locks for key in lock) if not k.startswith(("code.", "resumed"))]
    rows = tuple((key, *(_short(lock.get(key, ABSENT)) for lock in locks)) for key in keys)
    return Table(("", *(run.name for run in runs)) if len(runs) > 1 else (), rows, code=True)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _short(value: Any) -> str:
    """A digest by its beginning."""
    text = _text(value)
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text
