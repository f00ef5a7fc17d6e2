"""Each finalist beside its base: what differs, in the language's own terms, and both graphs for the timelines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from nlc.diff import Comparison, compare
from nlc.graph.graph import Graph
from nlc.page.search.facts import SearchFacts, finalists
from nlc.passes import build
from nlc.spec import Spec
from nlc.variants.standings import Standing


@dataclass(frozen=True)
class Finalist:
    """compared: None where its spec or its base's is missing; graphs: of what there is."""

    row: Standing
    compared: Comparison | None
    graph: Graph | None
    base: Graph | None


def compared(facts: SearchFacts) -> list[Finalist]:
    built = cache(lambda label: build(facts.bases[label]))
    found = []
    for row in finalists(facts):
        mine, base = facts.specs.get(row.trial), facts.bases.get(row.base)
        graph = build(mine) if mine is not None else None
        found.append(Finalist(row, _compare(base, mine, row), graph, built(row.base) if base is not None else None))
    return found


def _compare(base: Spec | None, mine: Spec | None, row: Standing) -> Comparison | None:
    if base is None or mine is None:
        return None
    return replace(compare(base, mine), before=row.base, after=row.trial)
