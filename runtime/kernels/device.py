"""What device a kernel runs on."""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor

OLDEST = (8, 0)  # compute capability that the kernels are written for


@cache
def capability(device: torch.device) -> int:
    """Of the GPU; in Triton's interpreter that of none."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def multiprocessors(device: torch.device) -> int:
    """Of the GPU; in Triton's interpreter one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def runs(x: Tensor) -> bool:
    """Whether kernels could run where `x` is: on a GPU, or in Triton's interpreter."""
    return x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def too_old(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.get_device_capability(x.device) < OLDEST
