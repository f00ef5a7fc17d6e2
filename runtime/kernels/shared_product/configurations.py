"""How many warps a kernel runs with, and what it loads ahead: one table, by kernel, head width, chunk and compute
capability.

Chosen by registers, spilled bytes (tests/golden/kernels/) and, for 90, time on a GPU.  Eight warps share tiles of 64
rows only where no product takes another's result in registers, which the chain's do not where operands are bfloat16; a
product of float32 to its last digits is three that follow one another.
"""

from __future__ import annotations

WIDE = 64  # head width or chunk above which a tile needs eight warps
WARPS = {("chain", 80): 8, ("chain", 90): 8, ("read gradient", 80): 8}  # bfloat16 operands
AHEAD = 2  # the cache to which a chain brings its next chunk: L2 has room for those of all programs
SHARE = 8  # chunks over which one program sums the gradient of the rows that are read, at most
BUSY = 4  # programs that a multiprocessor wants


def ahead(capability: int) -> int:
    """The interpreter knows no caches."""
    return AHEAD if capability else 0


def share(programs: int, multiprocessors: int) -> int:
    """Chunks of one program where `programs` is their number with one chunk each."""
    return max(1, min(SHARE, programs // (BUSY * multiprocessors)))


def warps(kernel: str, K: int, C: int, capability: int, low: bool, crowded: bool = False) -> int:
    """K head width, C tokens of a chunk; capability 80, 90, ..., 0 in the interpreter; low: bfloat16 operands.

    crowded: more programs than multiprocessors.  A chain of eight warps takes all registers of one; of four, half.
    """
    if max(K, C) > WIDE:
        return 8
    if not low or (crowded and kernel == "chain"):
        return 4
    return WARPS.get((kernel, capability), 4)
