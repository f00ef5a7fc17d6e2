"""A matrix R[after][task] -> final and average value, forgetting, transfer backward and forward.

Sources: arXiv 1706.08840 (the matrix and both transfers), arXiv 1801.10112 (forgetting), arXiv 1611.07725 (the average
over the way).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = Sequence[float | None]  # None where it was not measured

DEFINITIONS = {
    "final": "mean over tasks i of R[T][i]: what is left of all tasks after the last one",
    "average": "mean over t of the mean over i <= t of R[t][i]: all tasks seen so far, on the way",
    "learning": "mean over tasks i of R[i][i]: each task right after it was learned",
    "forgetting": "mean over i < T of (the best R[t][i], i <= t < T) - R[T][i]",
    "backward_transfer": "mean over i < T of R[T][i] - R[i][i]: below 0 where later tasks cost earlier ones",
    "forward_transfer": "mean over i > 1 of R[i-1][i] - chance of task i: what is known of a task before it is learned",
}


@dataclass(frozen=True, slots=True)
class Measures:
    """Each as DEFINITIONS says, None where R lacks what it needs.  Of a loss the signs are turned: more is better."""

    final: float | None
    average: float | None
    learning: float | None
    forgetting: float | None
    backward_transfer: float | None
    forward_transfer: float | None


def measured(R: Sequence[Row], chance: Sequence[float] = (), loss: bool = False) -> Measures:
    """R[t][i]: row t after task t, counted from 0.  chance: of every task before it was learned, by guessing.

    `loss`: lower values are better; forgetting and transfer are then made of -R, so that their signs mean the same.
    """
    T, sign = len(R), -1.0 if loss else 1.0
    mean_of = [mean(R[t][: t + 1]) for t in range(T)]
    own = [R[i][i] for i in range(T)]
    lost, moved, ahead = [], [], []
    for i in range(T - 1):
        column, last, first = [R[t][i] for t in range(i, T - 1)], R[-1][i], R[i][i]
        known = None not in column and last is not None
        lost.append(max(sign * x for x in column if x is not None) - sign * last if known else None)  # type: ignore[operator]
        moved.append(sign * (last - first) if last is not None and first is not None else None)
        before = R[i][i + 1]
        ahead.append(sign * (before - chance[i + 1]) if before is not None and len(chance) == T else None)
    return Measures(mean(R[-1]), mean(mean_of), mean(own), mean(lost), mean(moved), mean(ahead))


def mean(values: Row) -> float | None:
    """None where one is missing, or there is none."""
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
