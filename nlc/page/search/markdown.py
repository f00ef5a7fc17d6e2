"""Facts of a search -> Markdown: the tables of the page and what is drawn there as numbers."""

from __future__ import annotations

from collections.abc import Iterator

from nlc.explain import explain
from nlc.page.search import tables
from nlc.page.search.effects import effects
from nlc.page.search.facts import SearchFacts
from nlc.page.search.finalists import Finalist, compared
from nlc.page.search.front import points
from nlc.page.search.lineage import lineage
from nlc.page.search.maps import HeatMap, heat_maps, said_at
from nlc.page.tables import Table
from nlc.report import levels_text, timeline
from nlc.variants import table as leaderboard
from nlc.variants.table import said


def markdown(facts: SearchFacts) -> str:
    return "\n\n".join(part for part in _parts(facts) if part) + "\n"


def _parts(facts: SearchFacts) -> Iterator[str]:
    head, first = facts.head, facts.rank_by(0)
    yield f"# {head['name'] or facts.name}"
    yield head["doc"]
    told = [f"{value} {unit} ({what})" for value, unit, what in tables.figures(facts)]
    yield f"{facts.state}: {', '.join(told)}."
    yield "\n".join(f"- {line}" for line in facts.notices)
    yield f"## Leaderboard\n\nBy {head['rank_by']}, {head['better']} is better; intervals are 95 %."
    yield _table(tables.board(facts), "no variant was made yet")
    yield "## What a score costs\n\nThe variants that no other beats in score, state and FLOPs at once."
    for rung in tables.fronts(facts):
        if points(facts, rung):
            yield f"### Rung {rung + 1}"
        yield _table(tables.front(facts, rung), "No variant has a score.")
    yield f"## What each axis does\n\nBy {first} of the first rung; differences to the first value, all else equal."
    for effect in effects(facts):
        yield _table(tables.axis(effect, first, facts.less(first)))
    yield "## Learning curves\n\nOne seed each, at the last point by so many tokens."
    yield _table(tables.curves(facts), "No run has a curve.")
    yield "## Where answers are right"
    for one in (found := heat_maps(facts)):
        yield _map(one)
    yield "" if found else "No task tells its answers apart, or no variant has a score."
    yield "## Lineage of the mutants"
    yield _table(tables.lineage(lineage(facts), first), "The search has no mutant.")
    yield "## Finalists beside their base"
    for one_more in (final := compared(facts)):
        yield from _finalist(one_more, facts)
    yield "" if final else "No variant has a score."
    yield "## Rejected\n\n" + _table(tables.rejected(facts), "Every variant was legal.")
    yield "## Failed\n\n" + _table(tables.failed(facts), "No run failed.")
    yield "## Duplicates\n\n" + _table(tables.duplicates(facts), "All variants are different architectures.")
    yield "## What was asked for\n\n" + _table(tables.rungs(facts))
    yield _table(tables.tasks(facts))
    yield _table(tables.rescaled(facts), " ")
    yield _table(tables.setup(facts))


def _finalist(one: Finalist, facts: SearchFacts) -> Iterator[str]:
    row, diff = one.row, one.compared
    yield f"### {row.trial}: {said(row.score, facts.rank_by(row.rung))}\n\n{tables.described(facts, row.trial)}"
    yield "\n".join(f"{i}. {edit['edit']}" for i, edit in enumerate(row.edits, 1))
    if diff is None:
        yield "Its spec, or its base's, cannot be read."
        return
    lines = [f"{path}:{_side('-', before)}{_side('+', after)}" for path, before, after in tables.keys(diff)]
    lines += diff.graph
    yield "```diff\n" + "\n".join(lines) + "\n```" if lines else f"It says the same as {row.base}."
    yield _table(tables.costs(diff))
    if one.graph:
        told = explain(one.graph)
        yield "```text\n" + "\n\n".join(part for part in (levels_text(told), timeline(told)) if part) + "\n```"


def _side(mark: str, text: str) -> str:
    return "".join(f"\n{mark}   {line}" for line in text.splitlines())


def _map(found: HeatMap) -> str:
    head = (f"{found.trial}: {found.task} by {found.by}", *(said_at(at, found.by) for at in found.columns))
    rows = [
        (f"{test}, {context:,} tokens", *("" if c is None else f"{100 * c.accuracy:.1f} %" for c in cells))
        for test, context, cells in found.rows
    ]
    return leaderboard.markdown([head, *rows])


def _table(found: Table, none: str = "") -> str:
    if not found.rows:
        return none.strip()
    head = found.head or ("",) * len(found.rows[0])
    return leaderboard.markdown([[_cell(cell) for cell in row] for row in (head, *found.rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
