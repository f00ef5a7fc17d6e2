"""One run of one variant: what is asked for, and what came of it.

Ask       a variant learns a task for some steps, with a seed and rates
Request   the same for a process that knows nothing else of the search: plain data
Outcome   status, scores, curve, cost: the rest of a `run` line of the journal
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlc.variants.rates import Rates

OK, CRASHED, NOT_FINITE, OVERTIME, OVERMEMORY = "ok", "crashed", "not_finite", "overtime", "overmemory"
UNABLE = "unable"  # of the machine, not of the variant: its disk is full, what is read is gone; never in a journal


class Unable(Exception):
    """A run could not be made here.  It counts for nothing: the search stops, and goes on when the cause is mended."""


@dataclass(frozen=True, slots=True)
class Ask:
    """purpose: rates, to choose them; or score, which counts."""

    trial: str
    task: str
    steps: int
    seed: int
    rates: Rates
    rung: int
    purpose: str

    @property
    def name(self) -> str:
        rates = [f"-lr{self.rates.lr:g}"] if self.rates.lr is not None else []
        rates += [f"-wd{self.rates.weight_decay:g}"] if self.rates.weight_decay is not None else []
        return f"{self.trial}-{self.task}-{self.steps}-s{self.seed}{''.join(rates)}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.name, "trial": self.trial, "task": self.task, "steps": self.steps, "seed": self.seed,
            "rung": self.rung, "purpose": self.purpose, "lr": self.rates.lr, "weight_decay": self.rates.weight_decay,
        }  # fmt: skip


@dataclass(frozen=True)
class Request:
    """text: the variant's spec; set: what is changed of it; facts: the task, as the runtime takes it."""

    name: str
    text: str
    set: Mapping[str, Any]
    task: str
    facts: Mapping[str, Any]
    data: str | None
    items: int
    device: str
    threads: int
    seconds: float
    memory_mib: float
    keep: bool  # the folder of the run


@dataclass(frozen=True)
class Outcome:
    """What the process said, or what ended it."""

    status: str
    error: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curve: Mapping[str, list[float | None]] = field(default_factory=dict)
    maps: tuple[Mapping[str, Any], ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    retries: int = 0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Outcome:
        """Of a process's own words; a score that is no number is a run that came to nothing."""
        found = cls(**{**told, "maps": tuple(told.get("maps", ()))})
        wild = [name for name, value in found.scores.items() if not math.isfinite(value)]
        if found.status == OK and wild:
            return cls(NOT_FINITE, f"{wild[0]} is not finite", tokens=found.tokens, seconds=found.seconds,
                       peak_memory=found.peak_memory, curve=found.curve)  # fmt: skip
        return found

    def as_dict(self, cost: Mapping[str, int]) -> dict[str, Any]:
        """For the journal; `cost`: of the variant on this task."""
        told: dict[str, Any] = {"status": self.status}
        told |= {"error": self.error} if self.error else {}
        told |= {"scores": dict(self.scores), "intervals": dict(self.intervals), "curve": dict(self.curve)}
        told |= {"maps": list(self.maps)} if self.maps else {}
        told |= {"details": dict(self.details)} if self.details else {}
        paid = {"tokens": self.tokens, "seconds": round(self.seconds, 3), "peak_memory": self.peak_memory}
        return {**told, "cost": {**cost, **paid}, "retries": self.retries}
