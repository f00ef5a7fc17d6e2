"""Text -> the batch of any step.  It is a pure function of (seed, step): the step is the loader's whole position.

With several processes each has its own rows of the same batch, in the order of their ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from runtime.data import Text
from runtime.errors import USAGE, RunError


class Batch(NamedTuple):
    """Sequences, the token after each of their tokens, and where documents begin in them."""

    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64
    starts: Tensor | None  # (B, T) bool; None: each sequence is one document


def rows(text: Text, firsts: Sequence[int], context: int) -> Batch:
    """The sequences that begin at these places."""
    cut_BT1 = torch.stack([text.tokens[i : i + context + 1] for i in firsts]).long()
    starts_BT = text.starts(torch.tensor(firsts)[:, None] + torch.arange(context))
    if starts_BT is not None:
        starts_BT[:, 0] = True
        starts_BT = starts_BT if starts_BT[:, 1:].any() else None  # without, a model takes the whole batch at once
    return Batch(cut_BT1[:, :-1], cut_BT1[:, 1:], starts_BT)


def share(batch: int, rank: int, ranks: int) -> slice:
    """The rows of a batch that are a process's own.  Raises RunError where they do not come out even."""
    each, rest = divmod(batch, ranks)
    if rest or not each:
        raise RunError(f"a batch of {batch} sequences cannot be shared out evenly among {ranks} processes", USAGE)
    return slice(rank * each, (rank + 1) * each)


class Crops:
    """Independent sequences from random places: what memories that begin anew with each sequence learn from."""

    def __init__(self, text: Text, batch: int, context: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.text, self.batch, self.context, self.seed = text, batch, context, seed
        self.own = share(batch, rank, ranks)

    def at(self, step: int) -> Batch:
        digest = hashlib.sha256(f"crops {self.seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        firsts = torch.randint(len(self.text) - self.context, (self.batch,), generator=generator)
        return rows(self.text, firsts[self.own].tolist(), self.context)


class Lanes:
    """Lane b reads on from where its last batch ended: what `carry: stream` memories learn from.

    The lanes begin evenly spaced from a place the seed chooses; the text is a ring.  All but the streams begins anew
    with each batch.
    """

    def __init__(self, text: Text, batch: int, context: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.text, self.batch, self.context = text, batch, context
        first = int.from_bytes(hashlib.sha256(f"lanes {seed}".encode()).digest()[:8], "big") % len(text)
        self.firsts = [first + lane * len(text) // batch for lane in range(batch)][share(batch, rank, ranks)]

    def at(self, step: int) -> Batch:
        span = torch.arange(self.context + 1)
        at_BT1 = (torch.tensor(self.firsts)[:, None] + step * self.context + span) % len(self.text)
        cut_BT1 = self.text.tokens[at_BT1].long()
        marked_BT = self.text.starts(at_BT1[:, :-1].contiguous())
        starts_BT = torch.zeros_like(at_BT1[:, :-1], dtype=torch.bool) if marked_BT is None else marked_BT
        starts_BT[:, 0] = True
        return Batch(cut_BT1[:, :-1], cut_BT1[:, 1:], starts_BT)


def spread(text: Text, count: int, context: int) -> list[int]:
    """Places of `count` sequences, evenly spaced over the text and, while they fit, not overlapping."""
    room = len(text) - context - 1
    fit = max(1, min(count, (len(text) - 1) // context))
    return [round(i * room / max(1, fit - 1)) for i in range(fit)]
