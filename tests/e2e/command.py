"""What the tests of the command share: where things are, and how a command ended."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "specs" / "architectures").glob("*.yaml"))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


def answers_within(seconds: float, process: Run, arguments: Sequence[str], libraries: str, times: float) -> None:
    """In processor time, the least of some runs: other tests may keep the machine busy.  On a machine that is slow at
    starting anything, `times` what a Python that only imports these libraries takes right after it, in the median."""
    own, bare = list[float](), list[float]()
    for runs in range(1, 31):
        own.append(processor_seconds(process, *arguments))
        if own[-1] < seconds:
            return
        bare.append(processor_seconds(process, python=("-c", f"import {libraries}")))
        if runs >= 5 and median(a / b for a, b in zip(own, bare, strict=True)) < times:
            return
    raise AssertionError(f"{min(own):.2f} seconds at best, of which {libraries} take {min(bare):.2f}")


def processor_seconds(process: Run, *arguments: str, **how: Any) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process(*arguments, **how).status == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
