"""Rows of metrics -> panels: what is drawn in one pair of axes, and who is drawn in which colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nlc.page.facts import Facts, Points

COLOURS = 7  # in the style sheet: c0 ... c6


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.  role: line | faint | marked (a line with a mark at each point) | point (marks alone)."""

    label: str  # at its end; "" is none
    points: Points
    colour: int
    role: str = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.  x is tokens."""

    title: str
    unit: str
    series: tuple[Series, ...]
    log: bool = False
    settle: bool = False  # the first, steep tenth does not set the scale
    column: int = 0  # of the small multiples, where levels stand below one another; 0 is any

    @property
    def drawable(self) -> bool:
        return any(y is not None for s in self.series for _, y in s.points)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside one another.  caption: what all of them show, where they are one a memory."""

    caption: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class LevelPanels:
    """Everything measured of one level and its memories, over time."""

    index: str  # in the order of Definition 2; "" where runs differ in it
    name: str
    lines: tuple[str, ...]  # its clock, rule and objective; one for each run where they differ
    rows: tuple[Row, ...]  # in the first, panels have columns


def loss(runs: Sequence[Facts]) -> Panel:
    """Bits of training and validation: of a byte or, in a task, of a target.  Training is in tokens; the two are one
    where a token is a byte."""
    series: list[Series] = []
    alone = len(runs) == 1
    for i, run in enumerate(runs):
        train = run.points("train/loss", math.log(2) * bytes_per_token(run))
        judged, final = validations(run)
        colour = 1 if alone else i
        series.append(Series("training" if alone else "", train, i, "faint"))
        series.append(Series("validation" if alone else run.name, judged or train, colour, "marked" if judged else ""))
        if final:
            series.append(Series("", final, colour, "point"))
    return Panel("Loss", " or ".join(dict.fromkeys(map(unit, runs))), tuple(s for s in series if s.role), settle=True)


def unit(run: Facts) -> str:
    return "bits per target" if "task" in run.lock.get("data", {}) else "bits per byte"


def bytes_per_token(run: Facts) -> float:
    """Of the text that is learned; where the lock does not say it, from a validation, which says the loss and bits per
    byte; 1 without one."""
    told = run.lock.get("data", {}).get("bytes_per_token")
    if isinstance(told, int | float) and told > 0:
        return float(told)
    for row in run.rows:
        bits, nats = row.get("val/bits_per_byte"), row.get("val/loss")
        if bits and nats:
            return float(nats / math.log(2) / bits)
    return 1.0


def validations(run: Facts) -> tuple[Points, Points]:
    """Those on the way, on the same text or items; and the one on more at the end."""
    name, size, of = ("val/bits_per_byte", "val/tokens", 1.0)
    if unit(run) == "bits per target":
        name, size, of = ("val/loss", "val/answers", math.log(2))
    rows = [row for row in run.rows if name in row and isinstance(row.get("tokens"), int | float)]
    first = rows[0].get(size) if rows else None
    parts: tuple[Points, Points] = ([], [])
    for row in rows:
        parts[row.get(size) != first].append((row["tokens"], None if row[name] is None else row[name] / of))
    return parts


def firing(runs: Sequence[Facts]) -> Panel:
    """Updates of every level so far."""
    series: list[Series] = []
    for i, run in enumerate(runs):
        for j, level in enumerate(level_names(run)):
            points = [(x, y or None) for x, y in run.points(f"level/{level}/fires")]
            if any(y for _, y in points):
                label = level if len(runs) == 1 else f"{run.name}: {level}"
                series.append(Series(label, points, j if len(runs) == 1 else i))
    return Panel("Updates so far", "updates, log scale", tuple(series), log=True)


KINDS = (  # of a level: the metric, how it is called, its unit, its column
    ("level/{}/update", "Update", "norm of the change", 1),
    ("level/{}/rate", "Rate", "in force", 2),
    ("level/{}/retain", "Retention", "share kept", 3),
    ("grad/{}/norm", "Gradient", "norm, unclipped", 5),
)
MEMORY_KINDS = (("norm", "Memory", "norm of the state", 4), ("surprise", "Surprise", "norm of the gradient", 5))


def levels(runs: Sequence[Facts]) -> list[LevelPanels]:
    """What is shown of every level of any run, fastest first."""
    found = []
    for name in dict.fromkeys(level for run in runs for level in level_names(run)):
        panels = [
            Panel(title, unit, tuple(_series(runs, metric.format(name))), column=column)
            for metric, title, unit, column in KINDS
            if any(metric.format(name) in run.metrics for run in runs)
        ]
        rows = [("", panels)]
        for kind, title, unit, column in MEMORY_KINDS:
            owned = dict.fromkeys(m for run in runs for m in memory_names(run) if level_of(run, m) == name)
            shown = [m for m in owned if any(f"memory/{m}/{kind}" in run.metrics for run in runs)]
            if len(runs) > 1 and len(shown) > 1:
                rows.append((f"{title}, {unit}", [_of_memory(runs, m, kind, short(m, name), "", 0) for m in shown]))
            elif len(shown) > 1:
                panels.append(Panel(title, unit, tuple(_by_memory(runs[0], shown, kind, name)), column=column))
            elif shown:
                panels.append(_of_memory(runs, shown[0], kind, title, unit, column))
        panels.sort(key=lambda panel: panel.column)
        shown_rows = tuple(Row(caption, tuple(row)) for caption, row in rows if row)
        found.append(LevelPanels(_index(runs, name), name, _lines(runs, name), shown_rows))
    return found


def _index(runs: Sequence[Facts], level: str) -> str:
    found = {str(x.index) for run in runs if run.graph for x in run.graph.levels if x.name == level}
    return found.pop() if len(found) == 1 else ""


def _series(runs: Sequence[Facts], metric: str) -> Iterator[Series]:
    for i, run in enumerate(runs):
        if points := run.points(metric):
            yield Series("" if len(runs) == 1 else run.name, points, i)


def _of_memory(runs: Sequence[Facts], memory: str, kind: str, title: str, unit: str, column: int) -> Panel:
    return Panel(title, unit, tuple(_series(runs, f"memory/{memory}/{kind}")), column=column)


def _by_memory(run: Facts, memories: Sequence[str], kind: str, level: str) -> Iterator[Series]:
    for i, memory in enumerate(memories):
        yield Series(short(memory, level), run.points(f"memory/{memory}/{kind}"), i)


def _lines(runs: Sequence[Facts], level: str) -> tuple[str, ...]:
    """How the level is updated; by the name of the run where they do it differently."""
    said = {run.name: line for run in runs if (line := _said(run, level))}
    if len(set(said.values())) < 2:
        return tuple(said.values())[:1]
    return tuple(f"{name}: {line}" for name, line in said.items())


def _said(run: Facts, level: str) -> str:
    found = next((x for x in run.explained.levels if x.name == level), None) if run.explained else None
    if found is None:
        return ""
    every = "every token, at once" if found.period == "-" else f"every {found.period}".replace("every 1 ", "every ")
    rule = "" if found.rule == "-" else f"{found.rule} on {found.learns_from}"
    return " · ".join(part for part in (every, found.when, rule) if part)


def level_names(run: Facts) -> list[str]:
    """Levels that the metrics speak of, in the order of the graph."""
    measured = dict.fromkeys(name.split("/")[1] for name in run.metrics if name.startswith("level/"))
    order = [level.name for level in run.graph.levels] if run.graph else []
    return [n for n in order if n in measured] + [n for n in measured if n not in order]


def memory_names(run: Facts) -> list[str]:
    return list(dict.fromkeys(name.split("/")[1] for name in run.metrics if name.startswith("memory/")))


def level_of(run: Facts, memory: str) -> str:
    """The level that a memory's name begins with: the longest one."""
    owners = [level for level in level_names(run) if memory == level or memory.startswith(f"{level}.")]
    return max(owners, key=len, default="")


def short(memory: str, level: str) -> str:
    return memory.removeprefix(f"{level}.").rpartition(".")[2]
