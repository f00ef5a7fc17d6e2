"""Facts of a search -> the HTML of its page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from markupsafe import Markup

from nlc import __version__
from nlc.graph.graph import Graph
from nlc.page import chart, timeline
from nlc.page.page import NARROW, WIDE, Drawn, environment, style
from nlc.page.search import board, front, tables
from nlc.page.search import effects as axes
from nlc.page.search import lineage as tree
from nlc.page.search.facts import SearchFacts
from nlc.page.search.finalists import Finalist, compared
from nlc.page.search.learning import coloured, learning
from nlc.page.search.maps import HeatMap, heat_maps, said_at
from nlc.page.tables import Table
from nlc.variants.table import said

HALF = 520.0  # pixels of one of two pictures beside one another


@dataclass(frozen=True, slots=True)
class BoardRow:
    """cells: of the leaderboard; picture: the interval of the score that ranks, which stands below its number."""

    cells: tuple[str, ...]
    picture: Markup
    scored: bool


@dataclass(frozen=True, slots=True)
class FrontView:
    title: str
    pictures: tuple[Drawn, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class AxisView:
    name: str
    picture: Drawn | None  # None where nothing has a score
    table: Table


@dataclass(frozen=True, slots=True)
class CurvesView:
    task: str
    panels: tuple[tuple[str, str, Drawn], ...]  # title, unit, picture


@dataclass(frozen=True, slots=True)
class MapView:
    """rows: the test and its length, then cells: shade, text, what a reader is told who points at it."""

    title: str
    trial: str
    by: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class FinalistView:
    trial: str
    variant: str
    score: str
    base: str
    edits: tuple[str, ...]
    keys: tuple[tuple[str, str, str], ...]  # path, before, after
    graph: tuple[str, ...]  # - and + lines
    cost: Table
    same: bool
    timelines: tuple[tuple[str, Drawn, Drawn], ...]  # whose, one sequence, some steps
    missing: str


@dataclass(frozen=True, slots=True)
class SearchView:
    """Exactly what templates/search.html.j2 asks for."""

    version: str
    style: Markup
    title: str
    doc: str
    state: str
    failed: bool
    path: str
    notices: tuple[str, ...]
    figures: tuple[tuple[str, str, str], ...]
    rank_by: str
    first_rank_by: str
    better: str
    board_head: tuple[str, ...]
    board: tuple[BoardRow, ...]
    fronts: tuple[FrontView, ...]
    axes: tuple[AxisView, ...]
    legend: tuple[tuple[str, str], ...]  # trial, variant, in the order of colours
    curves: tuple[CurvesView, ...]
    maps: tuple[MapView, ...]
    tree: Markup
    tree_width: float
    tree_table: Table
    finalists: tuple[FinalistView, ...]
    rejected: Table
    failures: Table
    duplicates: Table
    rungs: Table
    tasks: Table
    rescaled: Table
    setup: Table


def page(facts: SearchFacts) -> str:
    view = _view(facts)
    made = environment().get_template("search.html.j2")
    return made.render({f.name: getattr(view, f.name) for f in fields(view)})


def _view(facts: SearchFacts) -> SearchView:
    head, nodes = facts.head, tree.lineage(facts)
    first = facts.rank_by(0)
    picture, width = tree.svg(nodes, first, facts.less(first)) if nodes else ("", 0.0)
    table = tables.board(facts)
    return SearchView(
        version=__version__,
        style=style(),
        title=head["name"] or facts.name,
        doc=head["doc"],
        state=facts.state,
        failed=facts.state != "finished",
        path=facts.path,
        notices=tuple(facts.notices),
        figures=tuple(tables.figures(facts)),
        rank_by=head["rank_by"],
        first_rank_by=first,
        better=head["better"],
        board_head=table.head,
        board=_board(facts, table),
        fronts=tuple(found for rung in tables.fronts(facts) if (found := _front(facts, rung)) is not None),
        axes=_axes(facts),
        legend=tuple((trial, tables.described(facts, trial)) for trial in coloured(facts)),
        curves=_curves(facts),
        maps=tuple(map(_map, heat_maps(facts))),
        tree=Markup(picture),
        tree_width=width,
        tree_table=tables.lineage(nodes, first),
        finalists=tuple(_finalist(one, facts) for one in compared(facts)),
        rejected=tables.rejected(facts),
        failures=tables.failed(facts),
        duplicates=tables.duplicates(facts),
        rungs=tables.rungs(facts),
        tasks=tables.tasks(facts),
        rescaled=tables.rescaled(facts),
        setup=tables.setup(facts),
    )


def _board(facts: SearchFacts, table: Table) -> tuple[BoardRow, ...]:
    """Bars of one scale, of the score that ranks; those of an earlier rung may lack it."""
    name = facts.head["rank_by"]
    drawn = board.pictures([row.scores.get(name) for row in facts.board.rows], name)
    rows = zip(table.rows, drawn, facts.board.rows, strict=True)
    return tuple(BoardRow(cells, Markup(picture), row.rank is not None) for cells, picture, row in rows)


def _front(facts: SearchFacts, rung: int) -> FrontView | None:
    found = front.points(facts, rung)
    if not found:
        return None
    name, less = facts.rank_by(rung), facts.less(facts.rank_by(rung))
    pictures = [
        Drawn(
            Markup(front.svg(found, cost, name, less, HALF, 320.0)),
            Markup(front.svg(found, cost, name, less, *NARROW)),
        )
        for cost in front.COSTS
    ]
    several = len(facts.head["rungs"]) > 1
    title = f"Rung {rung + 1}: {name}" if several else name
    return FrontView(title, tuple(pictures), tables.front(facts, rung))


def _axes(facts: SearchFacts) -> tuple[AxisView, ...]:
    found, name = axes.effects(facts), facts.rank_by(0)
    low, high = axes.bounds(found)
    views = []
    for effect in found:
        picture = None
        if any(value.points for value in effect.values):
            wide, narrow = (axes.svg(effect, name, low, high, width) for width in (WIDE[0], NARROW[0]))
            picture = Drawn(Markup(wide), Markup(narrow))
        views.append(AxisView(effect.axis, picture, tables.axis(effect, name, facts.less(name))))
    return tuple(views)


def _curves(facts: SearchFacts) -> tuple[CurvesView, ...]:
    return tuple(
        CurvesView(
            one.task,
            tuple(
                (p.title, p.unit, Drawn(Markup(chart.svg(p, HALF, 300.0)), Markup(chart.svg(p, *NARROW))))
                for p in one.panels
            ),
        )
        for one in learning(facts)
    )


def _map(found: HeatMap) -> MapView:
    title = f"{found.task} by {found.by}" + ("" if found.learn == "on" else ", learning off")
    rows = []
    for test, context, cells in found.rows:
        shown = []
        for at, cell in zip(found.columns, cells, strict=True):
            if cell is None:
                shown.append((-1, "", "not asked"))
                continue
            sure = "" if cell.low is None or cell.high is None else f" ({100 * cell.low:.1f} to {100 * cell.high:.1f})"
            note = f"{found.by} {said_at(at, found.by)}: {100 * cell.accuracy:.1f} %{sure} of {cell.answers:,} answers"
            shown.append((cell.shade, f"{100 * cell.accuracy:.0f}", note))
        rows.append((f"{test}, {context:,} tokens" if context else test, tuple(shown)))
    return MapView(title, found.trial, found.by, tuple(said_at(at, found.by) for at in found.columns), tuple(rows))


def _finalist(one: Finalist, facts: SearchFacts) -> FinalistView:
    row, diff = one.row, one.compared
    drawn = [(f"base {row.base}", one.base)] if one.base and diff and diff.keys else []
    drawn += [(row.trial, one.graph)] if one.graph else []
    timed = [(whose, graph) for whose, graph in drawn if "context" in graph.sizes and graph.levels]
    return FinalistView(
        trial=row.trial,
        variant=tables.described(facts, row.trial),
        score=said(row.score, facts.rank_by(row.rung)),
        base=row.base,
        edits=tuple(edit["edit"] for edit in row.edits),
        keys=tables.keys(diff),
        graph=diff.graph if diff else (),
        cost=tables.costs(diff),
        same=bool(diff and not diff.keys and not diff.graph),
        timelines=tuple((w, _timeline(timeline.sequence, g), _timeline(timeline.steps, g)) for w, g in timed),
        missing="" if diff else f"the spec of {row.trial} or of its base '{row.base}' cannot be read",
    )


def _timeline(draw: Any, graph: Graph) -> Drawn:
    return Drawn(Markup(draw(graph, HALF)), Markup(draw(graph, NARROW[0])))
