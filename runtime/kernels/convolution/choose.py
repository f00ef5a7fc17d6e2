"""Whether the kernels take a call of `convolution`; if not on a GPU, why not, in one loud line."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from runtime.kernels.device import runs, too_old

FEWEST = 16  # tokens of a call; fewer, as in generation, are a few small operations
TAPS = (2, 8)
WIDTHS = (16, 256)  # of a head, where a norm goes over it


def chosen(x: Tensor, w: Tensor, width: int) -> bool:
    """x (B, T, D), w (C, D); width: of what a norm goes over, 0: none."""
    if x.shape[1] < FEWEST or not runs(x):
        return False
    against = refusal(x, w, width)
    if against:
        say(against)
    return not against


def refusal(x: Tensor, w: Tensor, width: int) -> str:
    """Why the kernels cannot take this call; empty where they can."""
    if x.dtype != torch.float32 or w.dtype != torch.float32:
        return f"values in {x.dtype} and taps in {w.dtype}, expected float32"
    if not TAPS[0] <= len(w) <= TAPS[1]:
        return f"{len(w)} taps, expected {TAPS[0]} to {TAPS[1]}"
    if width and not WIDTHS[0] <= width <= WIDTHS[1]:
        return f"a norm over {width} channels, expected {WIDTHS[0]} to {WIDTHS[1]}"
    return "a GPU older than compute capability 8.0" if too_old(x) else ""


@cache
def say(against: str) -> None:
    """Once for each reason."""
    warnings.warn(f"a convolution runs its PyTorch form on the GPU, without a kernel: {against}", stacklevel=4)
