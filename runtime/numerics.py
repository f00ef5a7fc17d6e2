"""How the processor computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SUBNORMAL = 1e-39  # in float32


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Count numbers below 1.2e-38 (float32) or 2.2e-308 (float64) as 0 in this block, where the processor can.

    Gates and activations that saturate give such numbers more and more often as a model learns, and a processor takes
    many times as long over each: a trained HOPE ran at two thirds of its speed.
    """
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushes() -> bool:
    """Whether this process counts subnormal numbers as 0 now."""
    return float(torch.tensor(SUBNORMAL) * 1.0) == 0.0
