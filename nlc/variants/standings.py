"""What a journal says of the variants: their scores with intervals, and their order.

standings(records) -> Standings        the same for the same scores, whatever the times
mean(values, interval) -> Estimate     with a 95 % confidence interval
unfinished(records)                    "not finished: 3 trials and 12 runs so far"

Of a task, the runs of the last rung that learned it count.  Variants that came further stand first; those with no score
last.  Nothing here reads a file or knows more of the search than its journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean as average
from statistics import stdev
from typing import Any

from nlc.variants.journal import Record
from nlc.variants.scores import less_is_better, task_of

T_95 = (  # Student's t, two-sided 95 %, by degrees of freedom from 1; above 30 the normal distribution's
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Z_95 = 1.960
SHARES = ("accuracy", "whole_items")  # metrics that lie between 0 and 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """mean of n runs; low, high: 95 %, over seeds where there are several, over the answers of one run otherwise."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial's row.  rank: None without a score; rung: the last that it came to; rates: by task."""

    rank: int | None
    trial: str
    base: str
    settings: Mapping[str, str]
    edits: Sequence[Mapping[str, str]]
    parents: Sequence[str]
    status: str
    of: str | None
    rung: int
    score: Estimate | None
    scores: Mapping[str, Estimate]
    rates: Mapping[str, Mapping[str, float | None]]
    steps: Mapping[str, int]
    cost: Mapping[str, Mapping[str, int]]
    rescaled: Sequence[str]
    error: str


@dataclass(frozen=True, slots=True)
class Standings:
    """bases, axes: those of the trials that were made."""

    rank_by: str
    better: str
    rows: tuple[Standing, ...]
    bases: tuple[str, ...]
    axes: tuple[str, ...]

    @property
    def winner(self) -> Standing | None:
        return self.rows[0] if self.rows and self.rows[0].rank == 1 else None

    def as_dict(self) -> dict[str, Any]:
        return {"rank_by": self.rank_by, "better": self.better, "rows": [asdict(row) for row in self.rows]}


def unfinished(records: Sequence[Record]) -> str:
    """How far a search has come that is not finished; "" of one that is."""
    kinds = [line["record"] for line in records]
    told = f"{kinds.count('trial'):,} trials and {kinds.count('run'):,} runs so far"
    return "" if "end" in kinds else f"not finished: {told}"


def mean(values: Sequence[float], interval: Sequence[float] | None = None, share: bool = False) -> Estimate:
    """mean +- t s / sqrt(n); of one value the interval that is given, if any.  A share stays between 0 and 1."""
    n, middle = len(values), average(values)
    if n == 1:
        low, high = interval or (None, None)
        return Estimate(middle, low, high, 1)
    half = (T_95[n - 2] if n - 2 < len(T_95) else Z_95) * stdev(values) / math.sqrt(n)
    low, high = middle - half, middle + half
    return Estimate(middle, max(0.0, low), min(1.0, high), n) if share else Estimate(middle, low, high, n)


def counted(runs: Sequence[Record], task: str) -> list[Record]:
    """The runs of one trial that count for a task: those that score, of the last rung that learned it."""
    mine = [run for run in runs if run["task"] == task and run["purpose"] == "score"]
    if not mine:
        return []
    last = max(mine, key=lambda run: run["rung"])
    same = [run for run in mine if all(run[key] == last[key] for key in ("steps", "lr", "weight_decay"))]
    return sorted(same, key=lambda run: run["seed"])


def estimates(runs: Sequence[Record]) -> dict[str, Estimate]:
    """Every score of some runs that differ in their seeds; none where one of them came to nothing."""
    found: dict[str, Estimate] = {}
    if any(run["status"] != "ok" for run in runs):
        return found
    for name in dict.fromkeys(name for run in runs for name in run["scores"]):
        there = [run for run in runs if name in run["scores"]]
        interval = there[0].get("intervals", {}).get(name)
        found[name] = mean([run["scores"][name] for run in there], interval, name.rsplit(".", 1)[-1] in SHARES)
    return found


def score_of(runs: Sequence[Record], task: str, name: str) -> Estimate | None:
    """A score of one trial; None where one of the runs that count came to nothing."""
    return estimates(counted(runs, task)).get(name)


def standings(records: Sequence[Record]) -> Standings:
    head = next((line for line in records if line["record"] == "search"), {"rank_by": "", "better": "higher"})
    runs: dict[str, list[Record]] = {}
    reached: dict[str, int] = {}
    for line in records:
        if line["record"] == "run":
            runs.setdefault(line["trial"], []).append(line)
        elif line["record"] == "rung" and line["rung"] + 1 < len(head["rungs"]):
            reached |= dict.fromkeys(line["kept"], line["rung"] + 1)
    sign = 1.0 if head["better"] == "higher" else -1.0
    trials = [line for line in records if line["record"] == "trial"]
    rows = [_row(line, runs.get(line["trial"], []), reached.get(line["trial"], 0), head) for line in trials]
    order = sorted(rows, key=lambda row: _order(row, sign, head))
    ranked = [row for row in order if row.score is not None]
    placed = {row.trial: place for place, row in enumerate(ranked, 1)}
    rows = [replace(row, rank=placed.get(row.trial)) for row in order]
    bases = dict.fromkeys(line["base"] for line in trials)
    axes = dict.fromkeys(axis for line in trials for axis in line["settings"])
    return Standings(head["rank_by"], head["better"], tuple(rows), tuple(bases), tuple(axes))


def _order(row: Standing, sign: float, head: Record) -> tuple[Any, ...]:
    """Further first, then better, then earlier."""
    if row.score is None:
        return 1, -row.rung, 0.0, row.trial
    name = head["rungs"][row.rung]["rank_by"]
    way = sign if name == head["rank_by"] else -1.0 if less_is_better(name, head["tasks"]) else 1.0
    return 0, -row.rung, -way * row.score.mean, row.trial


def _row(trial: Record, runs: Sequence[Record], rung: int, head: Record) -> Standing:
    name = head["rungs"][rung]["rank_by"]
    mine = {task: found for task in head["tasks"] if (found := counted(runs, task))}
    failed = [run for found in mine.values() for run in found if run["status"] != "ok"]
    failed += [] if mine else [run for run in runs if run["status"] != "ok"]  # at every rate that was tried
    return Standing(
        rank=None, trial=trial["trial"], base=trial["base"], settings=trial["settings"], edits=trial["edits"],
        parents=trial["parents"], of=trial.get("of"), rung=rung, rescaled=trial["rescaled"], cost=trial["cost"],
        status=failed[0]["status"] if failed else trial["status"],
        score=score_of(runs, task_of(name, head["tasks"]) or "", name),
        scores={key: value for found in mine.values() for key, value in estimates(found).items()},
        rates={task: {key: found[0][key] for key in ("lr", "weight_decay")} for task, found in mine.items()},
        steps={task: found[0]["steps"] for task, found in mine.items()},
        error=(failed[0] if failed else trial).get("error", ""),
    )  # fmt: skip
