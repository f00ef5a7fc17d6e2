"""Random numbers of single items: what an item draws depends on its own key alone, however many are drawn with it.

A counter and a key go through the finaliser of SplitMix64 (Steele, Lea, Flood 2014; constants of its variant 13).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2^64 / golden ratio; 64-bit arithmetic wraps around
FIRST, SECOND = -4658895280553007687, -7723592293110705685
BITS = 31  # of a whole number that is drawn


def shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros coming in: int64 has no other shift than the one that repeats its sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mixed(x: Tensor) -> Tensor:
    """A bijection of 64-bit numbers in which every bit depends on every other."""
    x = (x ^ shifted(x, 30)) * FIRST
    x = (x ^ shifted(x, 27)) * SECOND
    return x ^ shifted(x, 31)


def key_of(words: str) -> int:
    """A 64-bit number that stands for some words."""
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big", signed=True)


def digest(content_BN: Tensor) -> Tensor:
    """(B,) one number for each row, the same for equal rows alone as far as 64 bits can tell."""
    places_N = mixed(torch.arange(1, content_BN.shape[1] + 1) * GOLDEN)
    return mixed(mixed(content_BN * GOLDEN + places_N).sum(1) + content_BN.shape[1])


class Draw:
    """Numbers for B items.  Every call gives others; shapes are behind the axis of items."""

    def __init__(self, key_B: Tensor) -> None:
        self.key_B, self.drawn = key_B, 0

    @property
    def items(self) -> int:
        return len(self.key_B)

    def bits(self, *shape: int) -> Tensor:
        """(B, *shape) int64, any."""
        count = int(torch.Size(shape).numel())
        counter = torch.arange(self.drawn + 1, self.drawn + count + 1) * GOLDEN
        self.drawn += count
        return mixed(mixed(self.key_B[:, None] + counter)).view(self.items, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float64 in [0, 1)."""
        return shifted(self.bits(*shape), 11).double() * 2.0**-53

    def whole(self, below: int | Tensor, *shape: int) -> Tensor:
        """(B, *shape) int64 from 0 up to `below`, left out, which may differ from number to number."""
        return (shifted(self.bits(*shape), 64 - BITS) * below) >> BITS

    def order(self, count: int) -> Tensor:
        """(B, count) the numbers 0 ... count - 1 in any order."""
        return self.bits(count).argsort(dim=1, stable=True)
