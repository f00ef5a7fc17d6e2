"""Products with one token, where nothing is differentiated: what a stream is read by, token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.precision import mixed

SHORT = 2048  # bytes of a row of a weight: longer ones are read well from memory
NEAR = 1 << 17, 1 << 23  # bytes of a weight: smaller ones stay near by themselves, larger ones do not at all


def alone(x: Tensor) -> bool:
    """Whether `x` (B, T, ...) is one token, of which no gradient is wanted, in the type of the weights."""
    return x.shape[0] == x.shape[1] == 1 and not torch.is_grad_enabled() and not mixed(x)


def affine(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x (+ bias).  x (1, 1, I), W (O, I), bias (O,).

    A product with one row goes through W some rows at a time.  Where these are short a processor does not foresee it,
    and is up to six times as slow as when W has been read from end to end before; which is what its sum does.
    """
    size = W.element_size()
    if W.shape[1] * size <= SHORT and NEAR[0] <= W.numel() * size <= NEAR[1] and W.device.type == "cpu":
        W.sum()
    return F.linear(x, W, bias)
