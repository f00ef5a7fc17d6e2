"""Facts of a search -> data for `--json`: everything the page is made of, with its numbers whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nlc.page.search import tables
from nlc.page.search.effects import effects
from nlc.page.search.facts import SearchFacts
from nlc.page.search.finalists import compared
from nlc.page.search.front import points
from nlc.page.search.learning import coloured, representative
from nlc.page.search.lineage import lineage
from nlc.page.search.maps import heat_maps


def as_data(facts: SearchFacts) -> dict[str, Any]:
    head, board = facts.head, facts.board
    return {
        "name": facts.name,
        "path": facts.path,
        "state": facts.state,
        "notices": list(facts.notices),
        "search": dict(head),
        "end": facts.end,
        "winner": board.winner.trial if board.winner else None,
        "leaderboard": board.as_dict()["rows"],
        "front": [
            {"rung": rung, "rank_by": facts.rank_by(rung), "points": [asdict(p) for p in points(facts, rung)]}
            for rung in tables.fronts(facts)
        ],
        "axes": [asdict(effect) for effect in effects(facts)],
        "curves": [
            {"trial": trial, "task": task, "run": run["run"], **run["curve"]}
            for task in head["tasks"]
            for trial in coloured(facts)
            if (run := representative(facts, trial, task)) is not None
        ],
        "maps": [asdict(one) for one in heat_maps(facts)],
        "lineage": [asdict(node) for node in lineage(facts)],
        "finalists": [
            {"trial": one.row.trial, "base": one.row.base, "diff": one.compared.as_dict() if one.compared else None}
            for one in compared(facts)
        ],
        "rejected": [dict(line) for line in facts.trials.values() if line["status"] == "rejected"],
        "failed": [_without_curves(run) for run in facts.of("run") if run["status"] != "ok"],
        "duplicates": [
            {key: line[key] for key in ("trial", "of", "settings", "edits", "hash")}
            for line in facts.trials.values()
            if line["status"] == "duplicate"
        ],
    }


def _without_curves(run: Any) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in ("curve", "maps")}
