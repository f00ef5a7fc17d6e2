"""Whether the kernels take a call of `gated_norm`; if not on a GPU, why not, in one loud line."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from runtime.kernels.device import runs, too_old

WIDEST = 8192  # of a row, which a program holds
FEWEST = 16  # rows of a call; fewer, as in generation, are a few small operations


def chosen(x: Tensor, z: Tensor) -> bool:
    if x.numel() < FEWEST * x.shape[-1] or not runs(x):
        return False
    against = refusal(x, z)
    if against:
        say(against)
    return not against


def refusal(x: Tensor, z: Tensor) -> str:
    """Why the kernels cannot take this call; empty where they can."""
    if x.dtype != torch.float32 or z.dtype != torch.float32:
        return f"values in {x.dtype} and gates in {z.dtype}, expected float32"
    if x.shape != z.shape:
        return f"values of shape {tuple(x.shape)} and gates of shape {tuple(z.shape)}"
    if x.shape[-1] > WIDEST:
        return f"rows of {x.shape[-1]} numbers, expected {WIDEST} at most"
    return "a GPU older than compute capability 8.0" if too_old(x) else ""


@cache
def say(against: str) -> None:
    """Once for each reason."""
    warnings.warn(f"a gated norm runs its PyTorch form on the GPU, without a kernel: {against}", stacklevel=4)
