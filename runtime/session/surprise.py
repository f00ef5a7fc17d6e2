"""How unexpected a stream's tokens were, added up when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WAIT = 64  # tokens that are added up together

Told = tuple[Tensor, int]  # what was known of a token, logits (V,), and which one came


class Surprise:
    """How unexpected tokens were: nats, the sum of -log p(token | those before), over so many tokens.

    Of single tokens it keeps what was known; their sum is the same to the bit whenever it is made.
    """

    def __init__(self, nats: float = 0.0, tokens: int = 0, told: tuple[Told, ...] = ()) -> None:
        self._nats, self.tokens, self._told = nats, tokens, told
        if len(told) >= WAIT:
            self._settle()

    @classmethod
    def of(cls, logits_TV: Tensor, told_T: Tensor) -> Surprise:
        """Of tokens, and what was known of each."""
        nats = F.cross_entropy(logits_TV.double(), told_T.to(logits_TV.device), reduction="sum")
        return cls(float(nats), len(told_T))

    @classmethod
    def of_one(cls, logits_V: Tensor, told: int) -> Surprise:
        return cls(0.0, 1, ((logits_V, told),))

    @property
    def nats(self) -> float:
        self._settle()
        return self._nats

    @property
    def bits(self) -> float | None:
        """Bits a token; None where no token had one before it."""
        return self.nats / math.log(2) / self.tokens if self.tokens else None

    def __add__(self, other: Surprise) -> Surprise:
        if self._told and not other._told:
            self._settle()
        return Surprise(self._nats + other._nats, self.tokens + other.tokens, (*self._told, *other._told))

    def _settle(self) -> None:
        for nats in _nats(self._told):
            self._nats += nats
        self._told = ()


def _nats(told: Sequence[Told]) -> list[float]:
    """-log p of each."""
    if not told:
        return []
    shares_TV = torch.log_softmax(torch.stack([logits for logits, _ in told]), -1, torch.float64)
    came_T = torch.tensor([token for _, token in told], device=shares_TV.device)
    found: list[float] = (-shares_TV.gather(1, came_T[:, None])[:, 0]).tolist()
    return found
