"""Bytes -> the batch of any step.  It is a pure function of (seed, step): the step is the loader's whole position."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def rows(data: Tensor, starts: list[int], context: int) -> Batch:
    """(tokens_BT, targets_BT): the sequences at `starts`, and the byte after each of their bytes."""
    cut_BT1 = torch.stack([data[i : i + context + 1] for i in starts]).long()
    return cut_BT1[:, :-1], cut_BT1[:, 1:]


class Crops:
    """Independent sequences from random places: what memories that begin anew with each sequence learn from."""

    def __init__(self, data: Tensor, batch: int, context: int, seed: int) -> None:
        self.data, self.batch, self.context, self.seed = data, batch, context, seed

    def __getitem__(self, step: int) -> Batch:
        digest = hashlib.sha256(f"crops {self.seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        starts = torch.randint(len(self.data) - self.context, (self.batch,), generator=generator)
        return rows(self.data, starts.tolist(), self.context)


class Lanes:
    """Lane b reads on from where its last batch ended: what `carry: stream` memories learn from.

    The lanes begin evenly spaced from a place the seed chooses; the text is a ring.
    """

    def __init__(self, data: Tensor, batch: int, context: int, seed: int) -> None:
        self.data, self.batch, self.context = data, batch, context
        first = int.from_bytes(hashlib.sha256(f"lanes {seed}".encode()).digest()[:8], "big") % len(data)
        self.starts = [first + lane * len(data) // batch for lane in range(batch)]

    def __getitem__(self, step: int) -> Batch:
        span = torch.arange(self.context + 1)
        at_BT1 = torch.tensor(self.starts)[:, None] + step * self.context + span
        cut_BT1 = self.data[at_BT1 % len(self.data)].long()
        return cut_BT1[:, :-1], cut_BT1[:, 1:]


def spread(data: Tensor, count: int, context: int) -> list[int]:
    """Starts of `count` sequences, evenly spaced over the data and, while they fit, not overlapping."""
    room = len(data) - context - 1
    fit = max(1, min(count, (len(data) - 1) // context))
    return [round(i * room / max(1, fit - 1)) for i in range(fit)]
