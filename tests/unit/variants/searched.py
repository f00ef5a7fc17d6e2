"""Searches as text, and workers that compute no model: what a run scores is a function of what was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nlc.diagnostics import Reporter
from nlc.source import Mapping
from nlc.spec.extends import Found, without_notes
from nlc.spec.text import parse
from nlc.variants.course import Course
from nlc.variants.journal import Journal
from nlc.variants.runs import Outcome, Request
from nlc.variants.search import Search, search_from
from nlc.variants.standings import Standings
from nlc.variants.variant import Lesson

TINY = "set: {sizes.width: 8, sizes.heads: 2, sizes.layers: 1, run.batch: 2}\n"
Scored = Callable[[Request], Outcome]


def searched(text: str) -> Search:
    """A search from text; `nlc: 1` and its name are put in front."""
    whole, report = f"nlc: 1\nsearch: s\n{text}", Reporter()
    tree = parse(whole, "s.yaml", report)
    report.check()
    assert isinstance(tree, Mapping)
    return search_from(without_notes(tree), whole, Found(None, "s.yaml", Path.cwd()))


def lessons(search: Search) -> dict[str, Lesson]:
    sizes = {"sizes.context": 8, "sizes.vocab": 16}
    return {name: Lesson(name, {}, sizes, "accuracy") for name in search.tasks}


class Imagined:
    """Workers: every run ends at once, with the outcome that a function gives it.  begun: what was asked, in order."""

    def __init__(self, outcome: Scored) -> None:
        self.outcome, self.begun, self.going = outcome, [], list[Request]()

    free = True

    def begin(self, request: Request) -> None:
        self.begun.append(request.name)
        self.going.append(request)

    def ended(self) -> list[tuple[Request, Outcome]]:
        found = [(request, self.outcome(request)) for request in self.going]
        self.going.clear()
        return found

    def close(self) -> None:
        pass


class Nobody:
    def planned(self, *told: object) -> None: ...
    def begun(self, *told: object) -> None: ...
    def ended(self, *told: object) -> None: ...


def head(course: Course) -> dict[str, object]:
    """What the command writes first, as far as the standings read it."""
    rank = course.rungs[-1]["rank_by"]
    tasks = {name: {} for name in course.lessons}
    return {
        "rank_by": rank,
        "better": "lower" if course.less(rank) else "higher",
        "rungs": course.rungs,
        "tasks": tasks,
        "sizes": {name: dict(lesson.sizes) for name, lesson in course.lessons.items()},
    }


def ran(search: Search, folder: Path, outcome: Scored, **more: Any) -> tuple[Standings, list[str]]:
    """The standings at the end, and the runs that were begun.  more: of the course."""
    workers = Imagined(outcome)
    with Journal.open(folder) as journal:
        course = Course(search, lessons(search), journal, workers, Nobody(), **more)
        if not any(True for _ in journal.of("search")):
            journal.add("search", head(course))
        return course.run(), workers.begun


def right(request: Request, share: float) -> Outcome:
    return Outcome("ok", scores={f"{request.task}.accuracy": share}, intervals={}, tokens=1, seconds=1.0)
