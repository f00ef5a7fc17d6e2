"""What was measured, as JSON and as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nlc.bench.place import said
from nlc.bench.rows import Reading, Row

COLUMNS = ("what", "floor", "goal", "measured", "spread")
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Result:
    """A row and its reading, or why there is none: what it needs, or how its measurement failed."""

    row: Row
    reading: Reading | None = None
    missing: str = ""
    failed: str = ""

    @property
    def below(self) -> bool:
        return self.reading is not None and self.row.below(self.reading.value)

    def as_dict(self) -> dict[str, Any]:
        row = {key: value for key, value in asdict(self.row).items() if key not in ("by", "quick")}
        if self.reading is None:
            return {**row, "measured": None, "missing": self.missing, "failed": self.failed}
        r = self.reading
        verdict = {"below_floor": self.below, "reaches_goal": self.row.reaches(r.value)}
        return {**row, "measured": r.value, "low": r.low, "high": r.high, **verdict, "details": dict(r.details)}

    def cells(self) -> list[str]:
        row, r = self.row, self.reading
        limits = [NOTHING if x is None else row.show(x) for x in (row.floor, row.goal)]
        if r is None:
            why = f"failed: {' '.join(self.failed.split())}" if self.failed else f"not measured: {self.missing}"
            return [row.what, *limits, why.replace("|", "\\|"), ""]
        low, high = r.low, r.high
        spread = "" if low is None or high is None else f"{row.show(low)} to {row.show(high)}"
        return [row.what, *limits, row.show(r.value) + (", below its floor" if self.below else ""), spread]


@dataclass
class Record:
    """One run of `nlc bench`.  by: what every size was divided by."""

    place: Mapping[str, Any]
    kind: str
    by: int = 1
    results: list[Result] = field(default_factory=list)
    sweeps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def below(self) -> list[Row]:
        return [result.row for result in self.results if result.below]

    @property
    def failed(self) -> list[Row]:
        return [result.row for result in self.results if result.failed]

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.below and not self.failed,
            "kind": self.kind,
            "sizes_divided_by": self.by,
            "seconds": round(self.seconds, 1),
            **self.place,
            "rows": [result.as_dict() for result in self.results],
            "sweeps": self.sweeps,
        }

    def markdown(self) -> str:
        parts = ["# Measurements", said(dict(self.place))]
        if self.by > 1:
            parts.append(f"Every size is divided by {self.by}: this tries the code, and measures nothing.")
        if self.results:
            parts += ["## Goals", table(COLUMNS, [result.cells() for result in self.results])]
        for id, lines in self.sweeps.items():
            parts += [f"## {TITLES[id]}", sweep_table(lines)]
        parts.append(self.end())
        return "\n\n".join(parts) + "\n"

    def end(self) -> str:
        """How to read it, and what is not as it must be."""
        read = (
            "Medians of turns in one run, in which rivals alternate; spread: half of the turns lie between. One thread "
            "of a CPU, width 256, 4 heads of 64, batch 4, chunk 64, float32, where the row does not say otherwise."
        )
        below, failed = (", ".join(row.id for row in rows) for rows in (self.below, self.failed))
        said = [read, f"Below their floor: {below}." if below else "No row is below its floor."]
        return " ".join([*said, *([f"Failed: {failed}."] if failed else [])])


TITLES = {
    "sweep-cell": "The cell, by length and batch",
    "sweep-layer": "A layer, by length and batch",
    "sweep-model": "The whole model, by length and batch",
}


def sweep_table(lines: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for line in lines for name in line))
    return table(columns, [[shown(line.get(name, NOTHING)) for name in columns] for line in lines])


def shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    lines = [list(columns), *map(list, rows)]
    width = [max(len(line[i]) for line in lines) for i in range(len(columns))]

    def drawn(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, width, strict=True)))
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(width)) + "|"
    return "\n".join([drawn(lines[0]), rule, *map(drawn, lines[1:])])
