"""How far into the run we are -> one factor for the rates of every level, a number in (0, 1]; what is due."""

from __future__ import annotations

import math

FLOOR = 0.1  # the share of the peak that is left at the end


def warm(step: int, warmup: int) -> float:
    """The linear rise: step 0 gets 1 / warmup, step warmup - 1 and all after it get 1."""
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0


def cosine(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine from 1 to 0.1, reached at `steps`."""
    if step < warmup:
        return warm(step, warmup)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def constant(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then 1."""
    return warm(step, warmup)


def due(step: int, every: int) -> bool:
    """Whether a period of so many steps is over after `step` steps; 0 is never."""
    return every > 0 and step % every == 0
