"""Heat maps: how often a variant is right, by what a task tells its answers apart by (depth) and by its test sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nlc.page.search.facts import SearchFacts, finalists
from nlc.variants.journal import Record
from nlc.variants.standings import counted

STEPS = 10  # shades of the style sheet: heat0 ... heat10


@dataclass(frozen=True, slots=True)
class Cell:
    """accuracy of so many answers, those of all seeds together; low, high: 95 %, where one run answered."""

    accuracy: float
    low: float | None
    high: float | None
    answers: int

    @property
    def shade(self) -> int:
        return round(STEPS * min(1.0, max(0.0, self.accuracy)))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """columns: what tells the answers apart; rows: (test, context in tokens, cells), None where none was asked."""

    trial: str
    task: str
    by: str
    learn: str
    columns: tuple[Any, ...]
    rows: tuple[tuple[str, int, tuple[Cell | None, ...]], ...]


def heat_maps(facts: SearchFacts) -> list[HeatMap]:
    """Of every finalist, task by task, so that maps of one task stand together."""
    found = []
    for task in facts.head["tasks"]:
        for row in finalists(facts):
            runs = [run for run in counted(facts.runs.get(row.trial, ()), task) if run["status"] == "ok"]
            kinds = dict.fromkeys((one["by"], one["learn"]) for run in runs for one in run["maps"])
            found += [_heat_map(row.trial, task, by, learn, runs) for by, learn in kinds]
    return sorted(found, key=lambda m: (list(facts.head["tasks"]).index(m.task), m.by, m.learn == "off"))


def _heat_map(trial: str, task: str, by: str, learn: str, runs: Sequence[Record]) -> HeatMap:
    cells: dict[tuple[str, int], dict[Any, list[Record]]] = {}
    for one in (one for run in runs for one in run["maps"] if (one["by"], one["learn"]) == (by, learn)):
        row = cells.setdefault((one["test"], one["context"]), {})
        for cell in one["cells"]:
            row.setdefault(_hashable(cell["at"]), []).append(cell)
    columns = _ordered({at for row in cells.values() for at in row})
    rows = sorted(cells.items(), key=lambda item: item[0][1])
    pooled = [
        (test, context, tuple(_pooled(row[at]) if at in row else None for at in columns))
        for (test, context), row in rows
    ]
    return HeatMap(trial, task, by, learn, tuple(columns), tuple(pooled))


def _pooled(found: Sequence[Record]) -> Cell:
    answers = sum(cell["answers"] for cell in found)
    right = sum(cell["accuracy"] * cell["answers"] for cell in found)
    accuracy = right / answers if answers else found[0]["accuracy"]
    only = found[0] if len(found) == 1 else {"low": None, "high": None}
    return Cell(found[0]["accuracy"] if len(found) == 1 else accuracy, only["low"], only["high"], answers)


def _hashable(at: Any) -> Any:
    return str(at) if isinstance(at, list | dict) else at


def _ordered(found: Iterable[Any]) -> list[Any]:
    """Numbers by size, words as they sort."""
    return sorted(found, key=lambda at: (isinstance(at, str), at if isinstance(at, int | float) else 0, str(at)))


def said_at(at: Any, by: str) -> str:
    """A depth is a share of the context; anything else is as it is."""
    if by == "depth" and isinstance(at, int | float) and not isinstance(at, bool) and 0 <= at <= 1:
        return f"{100 * at:.0f} %"
    return f"{at:g}" if isinstance(at, float) else str(at)
