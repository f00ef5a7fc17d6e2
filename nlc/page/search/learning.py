"""Learning curves of a search as panels: of each task, what validations said and the loss of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlc.page.curves import COLOURS, Panel, Series
from nlc.page.facts import Points
from nlc.page.search.facts import SearchFacts
from nlc.variants.journal import Record
from nlc.variants.standings import counted

KINDS = {  # of a curve: its title and its unit
    "val/accuracy": ("Validation", "share of the answers right"),
    "val/bits_per_byte": ("Validation", "bits per byte"),
    "val/loss": ("Validation", "nats per token"),
    "train/loss": ("Training", "nats per token"),
}


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one task: the best validation that there is, and training."""

    task: str
    panels: tuple[Panel, ...]


def learning(facts: SearchFacts) -> list[Curves]:
    """Of the first COLOURS trials of the leaderboard that learned anything; a trial has one colour in all panels."""
    shown = coloured(facts)
    found = []
    for task in facts.head["tasks"]:
        runs = {trial: run for trial in shown if (run := representative(facts, trial, task)) is not None}
        said = {name for run in runs.values() for name in run["curve"]}
        validation = next((name for name in KINDS if name.startswith("val/") and name in said), None)
        names = [name for name in (validation, "train/loss") if name in said]
        panels = [_panel(name, runs, shown) for name in names if name is not None]
        panels = [panel for panel in panels if panel.drawable]
        if panels:
            found.append(Curves(task, tuple(panels)))
    return found


def coloured(facts: SearchFacts) -> list[str]:
    """Trials that have a curve, best first; those that failed come last."""
    return [row.trial for row in facts.board.rows if any(r["curve"] for r in facts.runs.get(row.trial, ()))][:COLOURS]


def representative(facts: SearchFacts, trial: str, task: str) -> Record | None:
    """The first run that counts; without one, the first of all."""
    runs = facts.runs.get(trial, [])
    mine = counted(runs, task) or [run for run in runs if run["task"] == task]
    return next((run for run in mine if run["curve"]), None)


def _panel(name: str, runs: dict[str, Record], shown: Sequence[str]) -> Panel:
    title, unit = KINDS[name]
    role = "marked" if name.startswith("val/") else "line"
    series = [Series(trial, points(run, name), shown.index(trial), role) for trial, run in runs.items()]
    return Panel(title, unit, tuple(s for s in series if s.points), settle=name != "val/accuracy")


def points(run: Record, name: str) -> Points:
    """(tokens, value) where there is one: a row says what was measured at its step and nothing else."""
    tokens, values = run["curve"].get("tokens", []), run["curve"].get(name, [])
    pairs = [(x, y) for x, y in zip(tokens, values, strict=False) if x is not None and y is not None]
    return [(float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
