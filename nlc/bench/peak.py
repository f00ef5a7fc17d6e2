"""The machine's matmul peak: products of square matrices, one after another, into memory that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def square(n: int, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """One product of n x n matrices."""
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def flops_of_square(n: int) -> float:
    return 2.0 * n**3
