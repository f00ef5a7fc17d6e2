"""Products with one token, where nothing is differentiated: what a stream is read by, token by token.

Such a product reads every number of a weight once, so it takes as long as they take to come from memory.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from runtime.precision import mixed


def cache() -> int:
    """Bytes of a core's own cache, the second of three; 0 where the system does not say."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text()
        return int(size.strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0


NEAR = 1 << 17, cache() // 2  # bytes of a weight: smaller ones stay near by themselves, larger ones do not at all
RUN = 1 << 12  # bytes of a row that a processor foresees by itself: it does so up to the end of a page


class Reading:
    token = False  # whether all that is computed now is of one token, as `alone` has it


class reading_one:
    """In here all values are of one token (1, 1, ...), of which no gradient is wanted, in the type of the weights.

    Pointwise functions go by torch's own loops: oneDNN takes longer to begin than they to end."""

    def __enter__(self) -> None:
        self.by_onednn, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
        Reading.token = True

    def __exit__(self, *_: object) -> None:
        Reading.token, torch.backends.mkldnn.enabled = False, self.by_onednn


def alone(x: Tensor) -> bool:
    """Whether `x` (B, T, ...) is one token, of which no gradient is wanted, in the type of the weights."""
    if Reading.token:
        return True
    return not torch.is_grad_enabled() and x.shape[0] == x.shape[1] == 1 and not mixed(x)


def affine(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x (+ bias).  x (1, 1, I), W (O, I), bias (O,).

    A product with one row goes through W some rows at a time, columns where it lies by columns.  Where they are short a
    processor does not foresee it as well as a reading from end to end.  After one, which is what the sum is, W is near
    if the cache holds it, and both together take half as long; of rows of a page each, six sevenths, and of such
    columns longer.  Through a W that it does not hold there is no sum, which would be a second reading.
    """
    if NEAR[0] <= W.nbytes <= NEAR[1] and W.is_cpu and (run(W) < RUN or (run(W) == RUN and W.stride(-1) == 1)):
        W.sum()
    row = x.view(-1)
    return (torch.mv(W, row) if bias is None else torch.addmv(bias, W, row)).view(1, 1, -1)


def run(W: Tensor) -> int:
    """Bytes that lie together of a matrix, as a row or as a column."""
    return W.shape[-1 if W.stride(-1) == 1 else -2] * W.itemsize


def by_columns(W: Tensor) -> bool:
    """Whether products with one row go faster through a matrix (O, I) or (1, O, I) that lies by columns: they are long,
    and rows short.  Of 1024 x 256 in float32 they take two thirds as long as through one that is near."""
    O, I = W.shape[-2:] if W.dim() == 2 or (W.dim() == 3 and len(W) == 1) else (0, 0)
    return I * W.itemsize < RUN <= O * W.itemsize
