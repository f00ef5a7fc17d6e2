"""What a report knows of a search.  The command line reads it from the search's folder; nothing here touches a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nlc.spec import Spec
from nlc.variants.journal import Record
from nlc.variants.scores import less_is_better, task_of
from nlc.variants.standings import Estimate, Standing, Standings, score_of, standings, unfinished

MOST = 8  # finalists that are compared with their base


@dataclass(frozen=True)
class SearchFacts:
    """records: whole lines of the journal.  specs, bases: of the finalists, by trial and by label."""

    name: str
    path: str
    records: Sequence[Record]
    notices: Sequence[str] = ()  # what is missing or damaged, in words
    specs: Mapping[str, Spec] = field(default_factory=dict)
    bases: Mapping[str, Spec] = field(default_factory=dict)

    def of(self, record: str) -> list[Record]:
        return [line for line in self.records if line["record"] == record]

    @cached_property
    def head(self) -> Record:
        return self.of("search")[0]

    @cached_property
    def trials(self) -> dict[str, Record]:
        return {line["trial"]: line for line in self.of("trial")}

    @cached_property
    def runs(self) -> dict[str, list[Record]]:
        """By trial."""
        found: dict[str, list[Record]] = {}
        for run in self.of("run"):
            found.setdefault(run["trial"], []).append(run)
        return found

    @cached_property
    def board(self) -> Standings:
        return standings(self.records)

    @cached_property
    def rows(self) -> dict[str, Standing]:
        return {row.trial: row for row in self.board.rows}

    @property
    def end(self) -> Record | None:
        return next(iter(self.of("end")), None)

    @property
    def last_rung(self) -> int:
        return len(self.head["rungs"]) - 1

    @cached_property
    def mains(self) -> list[str]:
        """The score that ranks, then one of every other task: what a rung ranks by, accuracy, or the first it has."""
        head = self.head
        asked = [head["rank_by"], *(rung["rank_by"] for rung in head["rungs"])]
        said = [*asked, *dict.fromkeys(name for row in self.board.rows for name in row.scores)]
        found = [head["rank_by"]]
        for task in head["tasks"]:
            mine = [name for name in said if task_of(name, head["tasks"]) == task]
            wanted = [name for name in mine if name in asked or name == f"{task}.accuracy"]
            if task_of(head["rank_by"], head["tasks"]) != task:
                found += (wanted or mine)[:1]
        return found

    def rank_by(self, rung: int) -> str:
        return str(self.head["rungs"][rung]["rank_by"])

    def less(self, name: str) -> bool:
        """Whether less of a score is better."""
        head = self.head
        return bool(head["better"] == "lower") if name == head["rank_by"] else less_is_better(name, head["tasks"])

    def score(self, trial: str, rung: int) -> Estimate | None:
        """What a rung knew of a trial; of a duplicate, that of the trial which it is the same as."""
        line = self.trials.get(trial)
        if line is not None and line["status"] == "duplicate" and line["of"] != trial:
            trial = line["of"]
        name = self.rank_by(rung)
        mine = [run for run in self.runs.get(trial, ()) if run["rung"] <= rung]
        return score_of(mine, task_of(name, self.head["tasks"]) or "", name)

    @property
    def state(self) -> str:
        """finished | not finished: 12 runs so far | finished, and no variant has a score"""
        done = "finished" if self.board.winner else "finished, and no variant has a score"
        return unfinished(self.records) or done


def finalists(facts: SearchFacts) -> list[Standing]:
    """Those with a score that came to the last rung which anybody came to, best first, MOST of them."""
    ranked = [row for row in facts.board.rows if row.rank is not None]
    last = max((row.rung for row in ranked), default=0)
    return [row for row in ranked if row.rung == last][:MOST]


def task_ranked_by(head: Record, rung: int) -> str:
    """The task by whose score a rung ranks; the first one where it is none's."""
    return task_of(head["rungs"][rung]["rank_by"], head["tasks"]) or next(iter(head["tasks"]), "")
