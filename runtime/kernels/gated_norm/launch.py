"""The operators that launch the kernels: `nlc::gated_norm` and its backward, opaque to autograd (function.py).

N rows of K numbers
"""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from runtime.kernels.device import multiprocessors
from runtime.kernels.gated_norm.kernels import backward_kernel, forward_kernel
from runtime.kernels.operator import Built, operator

TILE = 4096  # numbers of a program at a time
BUSY = 8  # programs that a multiprocessor wants


@cache
def built(K: int, act: int) -> Built:
    BK = int(triton.next_power_of_2(K))
    rows = max(1, TILE // BK)
    return Built({"K": K, "BK": BK, "BN": rows, "ACT": act}, 4 if BK <= TILE else 8)


def programs(one: Built, x: Tensor) -> tuple[int, int, int]:
    tiles = -(-(x.numel() // x.shape[-1]) // one.constants["BN"])
    return min(tiles, BUSY * multiprocessors(x.device)), 1, 1


@operator("nlc::gated_norm")
def forward(x: Tensor, gain: Tensor, z: Tensor, act: int) -> Tensor:
    """rmsnorm(x) * gain * act(z): x, z (..., K), gain (K); act: of rows.ACTS."""
    y, K = torch.empty_like(x), x.shape[-1]
    one = built(K, act)
    one.launch(forward_kernel, programs(one, x), x, gain, z, y, x.numel() // K)
    return y


@operator("nlc::gated_norm_backward")
def backward(g: Tensor, x: Tensor, gain: Tensor, z: Tensor, act: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and z."""
    K = x.shape[-1]
    one = built(K, act)
    size = programs(one, x)
    dx, dz = torch.empty_like(x), torch.empty_like(z)
    dgain = torch.empty(size[0], K, dtype=torch.float32, device=x.device)
    one.launch(backward_kernel, size, x, gain, z, g, dx, dz, dgain, x.numel() // K)
    return dx, dgain.sum(0), dz
