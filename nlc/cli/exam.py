"""`nlc eval RUN --tasks`: which tasks, and what the run gets right in them; needles by how deep they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlc.cli.common import Status, Stop, note, say, say_json
from nlc.cli.tasks import percent, runnable

if TYPE_CHECKING:
    from runtime.evaluate.exam import Exam
    from runtime.evaluate.harness import Answers
    from runtime.evaluate.tasks import Score, Share, Task
    from runtime.evaluate.tasks.continual.matrix import Lasting

ITEMS = 256  # of a test set, unless --items says another number

HEAD = ("task", "test", "answers", "learning on (95 %)", "learning off (95 %)", "chance", "solved")


def asked(run: Path, tasks: str | None, data: Path | None) -> list[Task | str]:
    """The tasks of --tasks, whose knobs may have commas of their own; without it, the one that the run learned.

    One of lm-evaluation-harness is its name there.
    """
    from nlc.spec import load_task
    from runtime.directory import RunDirectory
    from runtime.errors import RunError
    from runtime.evaluate.exam import task_of
    from runtime.evaluate.harness import named

    if tasks is not None:
        if not (names := split(tasks)):
            raise Stop(Status.USAGE, f"--tasks '{tasks}' names no task: nlc tasks lists them")
        return [named(name) or runnable(load_task(name)) for name in names]
    for folder in (run, run.resolve().parent.parent):  # of a checkpoint
        with suppress(RunError):
            own = task_of(RunDirectory(folder).read_lock())
            return [] if own is None or (data is not None and not (own.hides or own.ordered)) else [own]
    return []  # what is wrong with it is said where it is read


def split(names: str) -> list[str]:
    """mqar(pairs=4, vocab=32),parity -> the two."""
    return [name.strip() for name in re.findall(r"(?:[^,(]|\([^)]*\)?)+", names) if name.strip()]


def examine(
    run: Path, tasks: list[Task | str], items: int, data: Path | None, field: str | None, device: str, json_: bool
) -> None:
    """Say what a run gets right.  Raises RunError."""
    from runtime.evaluate.exam import examine_run
    from runtime.evaluate.harness import ready

    def done(exam: Exam) -> None:
        note(f"{exam.task.name}, {exam.test}: {percent(exam.on.share.accuracy)}")

    ours = [task for task in tasks if not isinstance(task, str)]
    theirs = [task for task in tasks if isinstance(task, str)]
    if theirs and not ours and data is not None:
        raise Stop(Status.USAGE, "--data is for tasks that read a text; those of lm-evaluation-harness have their own")
    if theirs and ours:
        ready(theirs)  # what cannot be asked is said before any is
    found = examine_run(run, ours, items=items, text=data, field=field, device=device, warn=note, done=done)
    answers = harness(run, theirs, items, device) if theirs else []
    if json_:
        more = {"lm_eval": [one.as_dict() for one in answers]} if theirs else {}
        say_json({"run": str(run), "items": items, "tasks": [one.as_dict() for one in found], **more})
    else:
        say("\n\n".join([*([table(found)] if found else []), *([of_harness(answers)] if theirs else [])]))


def harness(run: Path, tasks: list[str], items: int, device: str) -> list[Answers]:
    """lm-evaluation-harness on a run, with learning on and off; once where no level writes inside a sequence."""
    from runtime.device import choose
    from runtime.evaluate.harness import evaluate
    from runtime.trained import of_run

    trained = of_run(run, warn=note)
    trained.model.to(choose(device))
    return evaluate(trained, tasks, limit=items, ways=(True, False) if trained.model.writing else (True,))


def of_harness(answers: Sequence[Answers]) -> str:
    """A row a metric."""
    rows = [("lm-eval task", "metric", "items", "learning on", "learning off")]
    on, off = answers[0], answers[-1]
    for task, metrics in on.results.items():
        for metric, value in metrics.items():
            count = f"{on.items[task]:,}" if task in on.items else ""
            rows.append((task, metric, count, f"{value:.4f}", f"{off.results[task][metric]:.4f}"))
    return "\n".join(aligned(rows, text=2))


def table(exams: Sequence[Exam]) -> str:
    rows = [HEAD]
    for exam in exams:
        on, off = exam.on.share, exam.off.share
        solved = percent(exam.task.solved)
        rows.append((exam.task.name, exam.test, f"{on.answers:,}", sure(on), sure(off), percent(exam.chance), solved))
    more = [*by_depth(exams), *by_position(exams), *in_order(exams)]
    return "\n\n".join(["\n".join(aligned(rows, text=2)), *more])


def sure(share: Share) -> str:
    """98.1 % (97.2 to 98.7)"""
    return f"{100 * share.accuracy:5.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def by_depth(exams: Sequence[Exam]) -> Iterator[str]:
    """For every task that hides needles: a row a test set, a column a depth, with learning on and off."""
    for name in dict.fromkeys(exam.task.name for exam in exams):
        mine = [exam for exam in exams if exam.task.name == name and exam.on.by]
        if mine:
            yield "\n".join(aligned(depths(f"{name}, learning on", [(exam.test, of(exam, "on")) for exam in mine])))
        if mine and mine[0].off is not mine[0].on:
            yield "\n".join(aligned(depths(f"{name}, learning off", [(exam.test, of(exam, "off")) for exam in mine])))


def by_position(exams: Sequence[Exam]) -> Iterator[str]:
    """For every task that reads a text: bits per byte, and a column for so many bytes of context, a row a test set."""
    for name in dict.fromkeys(exam.task.name for exam in exams):
        mine = [exam for exam in exams if exam.task.name == name and exam.task.told and not exam.task.ordered]
        for learning in ("on", "off"):
            scores = [(exam.test, of(exam, learning)) for exam in mine if learning == "on" or exam.off is not exam.on]
            if scores:
                yield "\n".join(aligned(positions(f"{name}, learning {learning}", scores)))


def positions(title: str, scores: Sequence[tuple[str, Any]]) -> list[tuple[str, ...]]:
    """Perplexity after so many bytes."""
    longest = max((score.places for _, score in scores), key=len)
    rows = [
        (title, "bits per byte", *(f"{p.first}-{p.last} bytes" if p.first < p.last else f"{p.first}" for p in longest))
    ]
    for test, score in scores:
        cells = [f"{place.perplexity:.2f}" for place in score.places]
        rows.append((test, f"{score.bits:.4f}", *cells, *["-"] * (len(longest) - len(cells))))
    return rows


def of(exam: Exam, learning: str) -> Any:
    return exam.on if learning == "on" else exam.off


def in_order(exams: Sequence[Exam]) -> Iterator[str]:
    """For tasks that are learned one after another: R[after][task], and what follows from it, with what that is."""
    from runtime.evaluate.tasks.continual.measures import DEFINITIONS

    for exam in exams:
        if not exam.task.ordered:
            continue
        both: dict[str, Lasting] = {way: of(exam, way) for way in (("on",) if exam.off is exam.on else ("on", "off"))}
        for learning, found in both.items():
            yield "\n".join(aligned(matrix(f"{exam.task.name}, {found.unit}, learning {learning}", found)))
        rows = [("", "is", *(f"learning {learning}" for learning in both))]
        for name, meaning in DEFINITIONS.items():
            values = [number(getattr(found.measures, name), found.unit) for found in both.values()]
            rows.append((name.replace("_", " "), meaning, *values))
        yield "\n".join(aligned(rows, text=2))


def matrix(title: str, found: Lasting) -> list[tuple[str, ...]]:
    """A row after each task, a column of each."""
    rows = [(title, *(f"task {i + 1}" for i in range(len(found.matrix))))]
    for t, row in enumerate(found.matrix):
        rows.append((f"after task {t + 1}", *(number(value, found.unit) for value in row)))
    return rows


def number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if unit == "accuracy" else f"{value:.3f}"


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
