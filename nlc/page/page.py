"""Facts of runs -> the HTML of a page, and the same as data for `--json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nlc import __version__
from nlc.explain import plural
from nlc.page import chart, curves, paths, tables, timeline
from nlc.page.curves import Panel
from nlc.page.facts import Facts, Sample
from nlc.page.tables import Table

WIDE, NARROW, SMALL = (1080.0, 340.0), (352.0, 260.0), (208.0, 136.0)  # pixels of a picture


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture for a wide page and for a narrow one."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True, slots=True)
class Small:
    """One of the small multiples."""

    title: str
    unit: str
    svg: Markup  # "" where nothing finite was measured
    column: int  # 0 is any


@dataclass(frozen=True, slots=True)
class RowView:
    caption: str
    panels: tuple[Small, ...]


@dataclass(frozen=True, slots=True)
class LevelView:
    index: str  # in the order of Definition 2; "" where runs differ in it
    name: str
    lines: tuple[str, ...]
    rows: tuple[RowView, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """What is shown of each run by itself."""

    name: str
    path: str
    ended: str
    failed: bool
    doc: str
    diverged: str
    checkpoint: str
    learns: bool  # a level writes while a sequence is read
    warnings: tuple[str, ...]
    sequence: Drawn | None
    steps: Drawn | None
    paths: Markup
    paths_width: float  # pixels, unless it is scaled
    samples: tuple[Sample, ...]
    no_samples: str
    spec: tuple[tuple[str, str], ...]
    no_spec: str
    memories: Table
    computed: Table
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageView:
    """Exactly what templates/report.html.j2 asks for."""

    version: str
    style: Markup
    title: str
    figures: tuple[tuple[str, str, str], ...]  # value, unit, what it is
    runs: tuple[RunView, ...]
    loss: Drawn | None
    unit: str  # of the loss
    no_loss: str
    judged_longer: bool  # a validation on more text stands at the end of a curve
    firing: Drawn | None
    levels: tuple[LevelView, ...]
    results: Table
    differences: Table
    versions: Table


def page(runs: Sequence[Facts]) -> str:
    """The page of one run, or of several side by side."""
    view = _view(runs)
    return environment().get_template("report.html.j2").render({f.name: getattr(view, f.name) for f in fields(view)})


def as_data(runs: Sequence[Facts]) -> dict[str, Any]:
    """Everything the page is made of."""
    return {"runs": [_data(run) for run in runs], "differences": _rows(tables.differences(runs))}


def _data(run: Facts) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": run.path,
        "ended": run.ended,
        "diverged": run.diverged,
        "checkpoint": run.checkpoint,
        "steps": run.steps,
        "tokens": run.tokens,
        "curves": {metric: run.points(metric) for metric in run.metrics},
        "warnings": list(run.warnings),
        "samples": [asdict(sample) for sample in run.samples],
        "spec": run.spec.resolved() if run.spec else None,
        "origins": [list(line) for line in tables.spec_lines(run.resolved) if line[1]],
        "explained": asdict(run.explained) if run.explained else None,
        "lock": dict(run.lock),
        "missing": dict(run.missing),
    }


def _rows(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


# ---- the view -----------------------------------------------------------------------------------------------------


def _view(runs: Sequence[Facts]) -> PageView:
    loss, firing = curves.loss(runs), curves.firing(runs)
    return PageView(
        version=__version__,
        style=style(),
        title=" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs",
        figures=tuple(_figures(runs[0])) if len(runs) == 1 else (),
        runs=tuple(_run(run) for run in runs),
        loss=_drawn(loss, 340.0),
        unit=loss.unit,
        no_loss=runs[0].missing.get("metrics", "no loss was logged") if runs else "",
        judged_longer=any(curves.validations(run)[1] for run in runs),
        firing=_drawn(firing, 240.0),
        levels=tuple(
            LevelView(found.index, found.name, found.lines, tuple(map(_row, found.rows)))
            for found in curves.levels(runs)
        ),
        results=tables.results(runs),
        differences=tables.differences(runs) if len(runs) > 1 else Table((), ()),
        versions=tables.versions(runs),
    )


def _row(row: curves.Row) -> RowView:
    return RowView(row.caption, _small(row.panels))


def _small(row: Sequence[Panel]) -> tuple[Small, ...]:
    return tuple(
        Small(
            panel.title, panel.unit, Markup(chart.svg(panel, *SMALL, about=3) if panel.drawable else ""), panel.column
        )
        for panel in row
    )


def _drawn(panel: Panel, height: float) -> Drawn | None:
    if not panel.drawable:
        return None
    return Drawn(Markup(chart.svg(panel, WIDE[0], height, about=6)), Markup(chart.svg(panel, *NARROW)))


def _figures(run: Facts) -> list[tuple[str, str, str]]:
    """The few numbers that say how a run went."""
    said, cost = tables.number, run.explained.cost if run.explained else None
    found = [
        (said(tables.final(run), 4), "bits per byte", "validation, at the end"),
        (tables.accuracy(run), "of the answers right", "validation, at the end"),
        (said(run.last("train/loss"), 4), "nats per token", "training, last row"),
        (chart.said(run.tokens), "tokens", f"in {run.steps:,} steps"),
        (said(tables.speed(run), 3), "tokens per second", f"{tables.duration(run)} in all"),
    ]
    if cost and run.graph:
        found.append((chart.said(cost.parameters), "parameters", plural(len(run.graph.levels), "level")))
    return [figure for figure in found if figure[0] != tables.ABSENT]


def _run(run: Facts) -> RunView:
    picture, width = paths.svg(run.graph) if run.graph else ("", 0.0)
    timed = run.graph is not None and "context" in run.graph.sizes and bool(run.graph.levels)
    return RunView(
        name=run.name,
        path=run.path,
        ended=run.ended,
        failed=not run.ended.startswith("finished"),
        doc=" ".join(run.explained.doc.split()) if run.explained else "",
        diverged=run.diverged,
        checkpoint=run.checkpoint,
        learns=bool(
            run.explained and any(level.fires or level.per_sequence.endswith("lane") for level in run.explained.levels)
        ),
        warnings=tuple(run.warnings),
        sequence=_timeline(timeline.sequence, run) if timed else None,
        steps=_timeline(timeline.steps, run) if timed else None,
        paths=Markup(picture),
        paths_width=width,
        samples=tuple(run.samples),
        no_samples=run.missing.get("samples", ""),
        spec=tuple(tables.spec_lines(run.resolved)),
        no_spec=run.missing.get("spec", ""),
        memories=tables.memories(run),
        computed=tables.computed(run),
        notes=run.explained.notes if run.explained else (),
    )


def _timeline(draw: Any, run: Facts) -> Drawn:
    return Drawn(Markup(draw(run.graph, 520.0)), Markup(draw(run.graph, NARROW[0])))


def style() -> Markup:
    return Markup(files("nlc.page").joinpath("templates/report.css").read_text(encoding="utf-8"))


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("nlc.page"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )


def data_text(runs: Sequence[Facts]) -> str:
    return json.dumps(as_data(runs), indent=2, ensure_ascii=False, default=str)
