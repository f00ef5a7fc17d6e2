"""What a run gets right in tasks, as tables: every test set, and needles by how deep they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nlc.cli.tasks import percent

if TYPE_CHECKING:
    from runtime.evaluate.exam import Exam
    from runtime.evaluate.tasks import Score, Share

HEAD = ("task", "test", "answers", "learning on (95 %)", "learning off (95 %)", "chance", "solved")


def table(exams: Sequence[Exam]) -> str:
    rows = [HEAD]
    for exam in exams:
        on, off = exam.on.share, exam.off.share
        solved = percent(exam.task.solved)
        rows.append((exam.task.name, exam.test, f"{on.answers:,}", sure(on), sure(off), percent(exam.chance), solved))
    return "\n\n".join(["\n".join(aligned(rows)), *by_depth(exams)])


def sure(share: Share) -> str:
    """98.1 % (97.2 to 98.7)"""
    return f"{100 * share.accuracy:5.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def by_depth(exams: Sequence[Exam]) -> Iterator[str]:
    """For every task that hides needles: a row a test set, a column a depth, with learning on and off."""
    for name in dict.fromkeys(exam.task.name for exam in exams):
        mine = [exam for exam in exams if exam.task.name == name and exam.on.by]
        for title, score_of in (("on", lambda e: e.on), ("off", lambda e: e.off)):
            if mine and (title == "on" or mine[0].on is not mine[0].off):
                yield "\n".join(aligned(depths(f"{name}, learning {title}", [(e.test, score_of(e)) for e in mine])))


def depths(title: str, scores: Sequence[tuple[str, Score]]) -> list[tuple[str, ...]]:
    """% right by how deep the needle lies."""
    columns = sorted({depth for _, score in scores for depth, _ in score.by["depth"]})
    rows = [(title, *(f"depth {100 * depth:.0f} %" for depth in columns))]
    for test, score in scores:
        found = dict(score.by["depth"])
        rows.append((test, *(f"{100 * found[d].accuracy:.0f} %" if d in found else "-" for d in columns)))
    return rows


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Text to the left, numbers to the right."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [
        not any(cell[:1].isdigit() for cell in column[1:]) or i < 2 for i, column in enumerate(zip(*rows, strict=True))
    ]
    return [
        "  ".join(c.ljust(w) if text else c.rjust(w) for c, w, text in zip(row, wide, left, strict=True)).rstrip()
        for row in rows
    ]
