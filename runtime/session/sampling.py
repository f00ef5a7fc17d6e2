"""Logits of the next token -> a token, drawn from the likeliest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import RUN_FAILED, USAGE, RunError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn.

    temperature divides the logits; 0 takes the likeliest token.  Of the rest only the `top_k` likeliest (0: all) and
    only the fewest that together have a share of at least `top_p` can be drawn.  Raises RunError for other numbers.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RunError(f"temperature {self.temperature:g}: 0 or more is expected", USAGE)
        if self.top_k < 0:
            raise RunError(f"top_k {self.top_k}: a number of tokens is expected, 0 for all", USAGE)
        if not 0 < self.top_p <= 1:
            raise RunError(f"top_p {self.top_p:g}: a share above 0, at most 1, is expected", USAGE)

    def shares(self, logits_V: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that can be drawn, in the order of their numbers, and the share of each, in float64.

        Not the likeliest first: two of nearly one likelihood would change places, and what is drawn, by rounding.
        """
        order = torch.sort(logits_V.double(), descending=True, stable=True)
        share = torch.softmax(order.values / self.temperature, 0)
        count = len(share) if not self.top_k else min(self.top_k, len(share))
        if self.top_p < 1:
            share = share[:count] / share[:count].sum()
            count = int((share.cumsum(0) - share < self.top_p).sum())
        tokens, place = order.indices[:count].sort()
        share = share[place]
        return tokens, share / share.sum()

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """One token.  Raises RunError where the logits are not finite."""
        logits_V = logits_V.cpu()
        if not (math.isfinite(logits_V.sum().item()) or logits_V.isfinite().all()):  # a sum may be too large
            raise RunError("the logits of the next token are not finite", RUN_FAILED)
        if self.temperature == 0:
            return int(logits_V.argmax())
        if self.top_k or self.top_p < 1:
            tokens, share = self.shares(logits_V)
            return int(tokens[place_of(share, generator)])
        scaled = logits_V if self.temperature == 1 else logits_V.double() / self.temperature
        return place_of(torch.softmax(scaled, 0, torch.float64), generator)


def place_of(share: Tensor, generator: torch.Generator) -> int:
    """A number below len(share), each as often as its share."""
    point = torch.rand(1, generator=generator, dtype=torch.float64)
    return min(int(torch.searchsorted(share.cumsum(0), point, right=True)), share.numel() - 1)
