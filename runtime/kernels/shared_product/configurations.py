"""How many warps a kernel runs with: one table, by kernel, head width, chunk and compute capability.

Chosen by registers, spilled bytes (tests/golden/kernels/) and, for 90, time on a GPU.  Eight warps share tiles of 64
rows only where no product takes another's result in registers, which the chain's do not.
"""

from __future__ import annotations

WIDE = 64  # head width or chunk above which a tile needs eight warps
WARPS = {("chain", 80): 8, ("chain", 90): 8, ("read gradient", 80): 8}


def warps(kernel: str, K: int, C: int, capability: int) -> int:
    """K head width, C tokens of a chunk; capability 80, 90, ..., 0 in the interpreter."""
    return 8 if max(K, C) > WIDE else WARPS.get((kernel, capability), 4)
