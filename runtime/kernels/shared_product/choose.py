"""Whether the kernels take a call of `shared_product`; if not on a GPU, why not, in one loud line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from runtime.kernels.device import runs, too_old
from runtime.kernels.shared_product.form import KEEPS, RATES, Form, Gates

if TYPE_CHECKING:
    from runtime.ops.stack import Layout

CHUNKS = (16, 32, 64)
WIDTHS = (16, 128)
FULL = 64  # the widest head in float32: the tiles of a wider one take 256 KiB of shared memory


def chosen(
    gates: Gates | None, layout: Layout, chunk: int, boxes: Sequence[Sequence[str]], W: Tensor, x: Tensor, low: bool
) -> Form | None:
    """The kernel's constants, or None where the PyTorch form computes this call.

    boxes: those that are read with each query; W (H, 1 or B, R, I): the first query's rows; x: the first query; low: by
    products of bfloat16
    """
    if not runs(x):
        return None
    against = refusal(gates, layout, chunk, boxes, W, x, low)
    if against or gates is None:
        say(against)
        return None
    first = {box: a for box, (a, _) in rows_of(layout, boxes[0]).items()}
    key, value, rate, keep = (first.get(box, -1) for box in (gates.key, gates.value, gates.rate, gates.keep))
    return Form(
        chunk=chunk,
        key=key,
        value=value,
        rate=rate,
        keep=keep,
        erase=int(layout.kind.erase),
        l2=int(layout.kind.l2),
        kept=int(layout.kind.kept),
        to_start=int(layout.kind.to_start),
        unit_value=int(gates.unit_value),
        rate_kind=RATES.index(gates.rate_form),
        keep_kind=KEEPS.index(gates.keep_form),
    )


def rows_of(layout: Layout, boxes: Sequence[str]) -> dict[str, tuple[int, int]]:
    """First and last row of each box among those that are read with the first query."""
    ends = list(accumulate(layout.reads[0]))
    return {box: (b - n, b) for box, n, b in zip(boxes, layout.reads[0], ends, strict=True)}


def refusal(
    gates: Gates | None, layout: Layout, chunk: int, boxes: Sequence[Sequence[str]], W: Tensor, x: Tensor, low: bool
) -> str:
    """Why the kernels cannot take this call; empty where they can."""
    if gates is None:
        return "the program names no gates: its flow is not one that a kernel knows, or it was compiled for the cpu"
    if chunk not in CHUNKS:
        return f"chunks of {chunk} tokens, expected {', '.join(map(str, CHUNKS))}"
    K = x.shape[-1]
    if not WIDTHS[0] <= K <= WIDTHS[1]:
        return f"heads of width {K}, expected {WIDTHS[0]} to {WIDTHS[1]}"
    if K > FULL and not low:
        return f"heads of width {K} in float32, whose tiles no GPU has room for; expected {FULL} at most, or bfloat16"
    if W.dtype != torch.float32 or x.dtype not in (torch.float32, torch.bfloat16):
        return f"states in {W.dtype}, queries in {x.dtype}; expected float32, queries in float32 or bfloat16"
    if W.shape[-1] != K:
        return "states that retention leads to a start, and that are not that start times one product"
    wanted = {gates.key: K, gates.value: K, gates.rate: 1, gates.keep: 1}
    found = {box: b - a for box, (a, b) in rows_of(layout, boxes[0]).items()}
    if len(boxes) > 1 or found != {box: n for box, n in wanted.items() if box}:
        return "boxes read with several queries, or more or other rows than a key, a value, a rate and a retention"
    return "a GPU older than compute capability 8.0" if too_old(x) else ""


def readable(W: Tensor) -> bool:
    """Whether a kernel reads rows W (H, 1 or B, R, K)."""
    return W.shape[-2] <= WIDTHS[1]


@cache
def say(against: str) -> None:
    """Once for each reason."""
    warnings.warn(f"shared_product runs its PyTorch form on the GPU, without a kernel: {against}", stacklevel=4)
