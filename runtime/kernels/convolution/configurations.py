"""How many tokens and channels a program takes, and its warps: a tile of 2048 numbers, 16 for each thread."""

from __future__ import annotations

CHANNELS = 128  # of a program where no norm binds a head's together
WARPS = 4
TILE = 2048


def tokens(channels: int) -> int:
    """Of a program with so many channels, a power of two."""
    return max(16, TILE // channels)
