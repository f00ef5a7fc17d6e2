"""Rivals timed in one run, taking turns, so that whatever slows the machine slows all alike.

    times = turns({"ours": run, "loop": other}, 5)
    times.ratio("loop", "ours")                     how many times faster ours is: the median turn, and the quartiles

One thread is timed by what the process itself computes, so that other work on the machine counts little; several
threads by the wall.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from nlc.bench.rows import Reading
from runtime.numerics import subnormals_flushed

Run = Callable[[], Any]
SHORTEST = 0.1  # seconds; what takes less is run several times a turn


@dataclass(frozen=True)
class Times:
    """Seconds of each rival, turn by turn."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def milliseconds(self) -> dict[str, float]:
        return {name: round(1e3 * self.median(name), 3) for name in self.seconds}

    def ratio(self, slow: str, fast: str, scale: float = 1.0) -> Reading:
        """The seconds of one over those of the other, times `scale`."""
        found = [scale * a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)]
        return self.reading(found)

    def rate(self, name: str, amount: float) -> Reading:
        """`amount` a second."""
        return self.reading([amount / x for x in self.seconds[name]])

    def reading(self, found: Sequence[float], **details: Any) -> Reading:
        low, high = spread(found)
        measured = {"milliseconds": self.milliseconds(), "turns": len(found)}
        return Reading(statistics.median(found), low, high, measured | details)


def spread(found: Sequence[float]) -> tuple[float, float]:
    """The quartiles: half of the turns lie between them."""
    if len(found) < 2:
        return found[0], found[0]
    low, _, high = statistics.quantiles(found, n=4, method="inclusive")
    return low, high


class Seconds(float):
    """What a rival returns that says itself how long it took: preparing it is not counted."""


def turns(
    rivals: Mapping[str, Run], count: int, warm: Collection[str] | None = None, within: float = math.inf
) -> Times:
    """Every rival in turn, `count` times.

    warm: those that are run once before, or all, which is not counted and says how often a turn runs them.

    within: seconds after which no further turn begins; there is always one.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in rivals}
    often = dict.fromkeys(rivals, 1)
    for name in rivals if warm is None else warm:
        run = rivals[name]
        if clocked(run, 1, clock) < SHORTEST:  # the first is slower than those that follow
            often[name] = max(1, min(50, round(SHORTEST / max(clocked(run, 1, clock), 1e-9))))
    began = clock()
    for turn in range(count):
        if turn and clock() - began >= within:
            break
        for name, run in rivals.items():
            times[name].append(clocked(run, often[name], clock))
    return Times(times)


def clocked(run: Run, often: int, clock: Callable[[], float]) -> float:
    """Seconds of one of so many runs."""
    began, said = clock(), 0.0
    for _ in range(often):
        made = run()
        said += made if isinstance(made, Seconds) else 0.0
    return (said or clock() - began) / often


def both(forward: Callable[[], torch.Tensor], leaves: Sequence[torch.Tensor], weigh: torch.Tensor) -> Run:
    """A forward and a backward pass: the gradient of every leaf, given that of the output."""
    return lambda: torch.autograd.grad(forward(), leaves, weigh)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch, subnormal numbers counted as 0 as in a run, and no garbage collection inside a turn."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    gc.collect()
    gc.disable()
    try:
        with subnormals_flushed():
            yield
    finally:
        gc.enable()
        torch.set_num_threads(before)
