"""`nlc eval RUN --tasks`: which tasks, and what the run gets right in them; needles by how deep they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nlc.cli.common import note, say, say_json
from nlc.cli.tasks import percent, runnable

if TYPE_CHECKING:
    from runtime.evaluate.exam import Exam
    from runtime.evaluate.tasks import Score, Share, Task

ITEMS = 256  # of a test set, unless --items says another number

HEAD = ("task", "test", "answers", "learning on (95 %)", "learning off (95 %)", "chance", "solved")


def asked(run: Path, tasks: str | None, data: Path | None) -> list[Task]:
    """The tasks of --tasks, whose knobs may have commas of their own; without it, the one that the run learned."""
    from nlc.spec import load_task
    from runtime.directory import RunDirectory
    from runtime.errors import RunError
    from runtime.evaluate.exam import task_of

    if tasks is not None:
        return [runnable(load_task(name)) for name in split(tasks)]
    for folder in (run, run.resolve().parent.parent):  # of a checkpoint
        with suppress(RunError):
            own = task_of(RunDirectory(folder).read_lock())
            return [] if own is None or (data is not None and not own.hides) else [own]
    return []  # what is wrong with it is said where it is read


def split(names: str) -> list[str]:
    """mqar(pairs=4, vocab=32),parity -> the two."""
    return [name.strip() for name in re.findall(r"(?:[^,(]|\([^)]*\)?)+", names) if name.strip()]


def examine(
    run: Path, tasks: list[Task], items: int, data: Path | None, field: str | None, device: str, json_: bool
) -> None:
    """Say what a run gets right.  Raises RunError."""
    from runtime.evaluate.exam import examine_run

    def done(exam: Exam) -> None:
        note(f"{exam.task.name}, {exam.test}: {percent(exam.on.share.accuracy)}")

    found = examine_run(run, tasks, items=items, text=data, field=field, device=device, warn=note, done=done)
    if json_:
        say_json({"run": str(run), "items": items, "tasks": [one.as_dict() for one in found]})
    else:
        say(table(found))


def table(exams: Sequence[Exam]) -> str:
    rows = [HEAD]
    for exam in exams:
        on, off = exam.on.share, exam.off.share
        solved = percent(exam.task.solved)
        rows.append((exam.task.name, exam.test, f"{on.answers:,}", sure(on), sure(off), percent(exam.chance), solved))
    return "\n\n".join(["\n".join(aligned(rows, text=2)), *by_depth(exams)])


def sure(share: Share) -> str:
    """98.1 % (97.2 to 98.7)"""
    return f"{100 * share.accuracy:5.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def by_depth(exams: Sequence[Exam]) -> Iterator[str]:
    """For every task that hides needles: a row a test set, a column a depth, with learning on and off."""
    for name in dict.fromkeys(exam.task.name for exam in exams):
        mine = [exam for exam in exams if exam.task.name == name and exam.on.by]
        if mine:
            yield "\n".join(aligned(depths(f"{name}, learning on", [(exam.test, exam.on) for exam in mine])))
        if mine and mine[0].off is not mine[0].on:
            yield "\n".join(aligned(depths(f"{name}, learning off", [(exam.test, exam.off) for exam in mine])))


def depths(title: str, scores: Sequence[tuple[str, Score]]) -> list[tuple[str, ...]]:
    """% right by how deep the needle lies."""
    columns = sorted({depth for _, score in scores for depth, _ in score.by["depth"]})
    rows = [(title, *(f"depth {100 * depth:.0f} %" for depth in columns))]
    for test, score in scores:
        found = dict(score.by["depth"])
        rows.append((test, *(f"{100 * found[d].accuracy:.0f} %" if d in found else "-" for d in columns)))
    return rows


def aligned(rows: Sequence[tuple[str, ...]], text: int = 1) -> list[str]:
    """Columns: the first so many are `text`, which begins together; others are numbers, which end together."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [c.ljust(w) if i < text else c.rjust(w) for i, (c, w) in enumerate(zip(row, wide, strict=True))] for row in rows
    ]
    return ["  ".join(line).rstrip() for line in lines]
