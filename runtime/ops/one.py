"""Products with one token, where nothing is differentiated: what a stream is read by, token by token.

Such a product reads every number of a weight once, so it takes as long as they take to come from memory.  It goes
through the weight by runs, numbers that lie side by side: its rows, or its columns.  Where runs are short a processor
does not foresee the next one, and is up to six times as slow as when the weight has been read from end to end before,
which is what its sum does.  Where they are long the sum would be one reading more: `laid` makes them long where it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.precision import mixed

SHORT = 2048  # bytes of a run: longer ones are read well from memory
NEAR = 1 << 17, 1 << 23  # bytes of a weight: smaller ones stay near by themselves, larger ones do not at all


class Reading:
    token = False  # whether all that is computed now is of one token, as `alone` has it


@contextmanager
def reading_one() -> Iterator[None]:
    """In here all values are of one token (1, 1, ...), of which no gradient is wanted, in the type of the weights.

    Pointwise functions go by torch's own loops: oneDNN takes longer to begin than they to end."""
    by_onednn, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
    Reading.token = True
    try:
        yield
    finally:
        Reading.token, torch.backends.mkldnn.enabled = False, by_onednn


def alone(x: Tensor) -> bool:
    """Whether `x` (B, T, ...) is one token, of which no gradient is wanted, in the type of the weights."""
    if Reading.token:
        return True
    return not torch.is_grad_enabled() and x.shape[0] == x.shape[1] == 1 and not mixed(x)


def affine(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x (+ bias).  x (1, 1, I), W (O, I), bias (O,)."""
    if max(W.stride()) * W.itemsize <= SHORT and NEAR[0] <= W.nbytes <= NEAR[1] and W.is_cpu:
        W.sum()
    return F.linear(x, W, bias)


def laid(W: Tensor) -> Tensor:
    """The same numbers, as products with one token read them: by columns, where these are longer than short rows.

    W (..., O, I), or any other tensor, which comes back with its rows side by side."""
    if W.dim() < 2 or not W.is_cpu:
        return W.contiguous()
    O, I = W.shape[-2:]
    short = I < O and I * W.itemsize <= SHORT and O * I * W.itemsize >= NEAR[0]
    return W.mT.contiguous().mT if short else W.contiguous()
