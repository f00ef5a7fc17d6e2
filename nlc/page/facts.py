"""What a page knows of one run.  The command line reads it from the run's directory; nothing here touches a disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nlc.explain import Explanation
from nlc.graph.graph import Graph
from nlc.spec import Spec

Row = Mapping[str, Any]
Points = list[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model wrote after a prompt."""

    how: str  # "greedy", "temperature 0.8"
    prompt: str
    text: str


@dataclass(frozen=True)
class Facts:
    """One run.  Where something is missing its field is empty, and `missing` says why, in words."""

    name: str
    path: str
    rows: Sequence[Row]
    lock: Mapping[str, Any]
    resolved: str = ""  # text of resolved.yaml, origins as comments
    spec: Spec | None = None
    graph: Graph | None = None
    explained: Explanation | None = None
    diverged: str = ""  # what it stopped on, and where a number first stopped being finite
    diverged_at: int = 0  # the step, from 1; 0 where it is not known
    checkpoint: str = ""  # the newest whole one
    samples: Sequence[Sample] = ()
    warnings: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)  # "spec", "samples", "metrics" -> why it is not there

    def points(self, metric: str, unit: float = 1.0) -> Points:
        """(tokens, value) of every row that has the metric; None where the value was not finite."""
        found = self._columns.get(metric, [])
        return found if unit == 1 else [(x, None if y is None else y / unit) for x, y in found]

    def last(self, metric: str) -> float | None:
        """The metric's last finite value."""
        return next((y for _, y in reversed(self.points(metric)) if y is not None), None)

    @property
    def steps(self) -> int:
        """Steps that the rows tell of."""
        return max((int(row["step"]) for row in self.rows if isinstance(row.get("step"), int)), default=0)

    @property
    def tokens(self) -> int:
        return max((int(row["tokens"]) for row in self.rows if isinstance(row.get("tokens"), int)), default=0)

    @property
    def ended(self) -> str:
        """finished | diverged at step 12 | stopped after step 40 of 400 | has not begun"""
        planned = self.lock.get("steps")
        if self.diverged:
            return (
                f"diverged at step {self.diverged_at:,}" if self.diverged_at else f"diverged after step {self.steps:,}"
            )
        if not self.steps:
            return "no step was logged"
        if isinstance(planned, int) and self.steps < planned:
            return f"stopped after step {self.steps:,} of {planned:,}"
        return f"finished {self.steps:,} steps"

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, in the order they appear."""
        return list(self._columns)

    @cached_property
    def _columns(self) -> dict[str, Points]:
        """Every metric against tokens."""
        found: dict[str, Points] = {}
        for row in self.rows:
            x = row.get("tokens")
            if not isinstance(x, int | float):
                continue
            for name, y in row.items():
                if "/" in name:
                    value = float(y) if isinstance(y, int | float) and math.isfinite(y) else None
                    found.setdefault(name, []).append((x, value))
        return found
