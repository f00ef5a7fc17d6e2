"""How many warps a kernel runs with, and what it loads ahead: one table, by kernel, head width, chunk, compute
capability and whether programs share a multiprocessor.

Chosen by registers, spilled bytes (tests/golden/kernels/) and, for 90, time on a GPU.  Eight warps share tiles of 64
rows only where no product takes another's result in registers, which the chain's do not where operands are bfloat16; a
product of float32 to its last digits is three that follow one another.
"""

from __future__ import annotations

WIDE = 64  # head width or chunk above which a tile needs eight warps
WARPS = {("chain", 80): 8, ("chain", 90): 8, ("read gradient", 80): 8}  # bfloat16 operands
AHEAD = 2  # the cache to which a program brings its next chunk
SHARE = 8  # chunks over which one program sums the gradient of the rows that are read, at most
BUSY = 4  # programs that a multiprocessor wants


def ahead(kernel: str, capability: int, crowded: bool = False) -> int:
    """The cache to which a program brings what it loads next, or 0.  The interpreter knows none.

    In bfloat16 a chain brings 82 KiB, works on as much and leaves 40: of 128 programs 26 MB, of 256 what all of L2
    holds (50 MB).  It is slower by bringing then, 0.87 ms on an H200 and 0.71 without: what was brought goes before it
    is used, perhaps, and of two on a multiprocessor one computes anyway while the other waits.  Forward brings 8 KiB.
    """
    return AHEAD if capability and not (kernel == "chain" and crowded) else 0


def share(programs: int, multiprocessors: int) -> int:
    """Chunks of one program where `programs` is their number with one chunk each."""
    return max(1, min(SHARE, programs // (BUSY * multiprocessors)))


def warps(kernel: str, K: int, C: int, capability: int, low: bool, crowded: bool = False) -> int:
    """K head width, C tokens of a chunk; capability 80, 90, ..., 0 in the interpreter; low: bfloat16 operands.

    crowded: more programs than multiprocessors.  A chain of eight warps takes all registers of one; of four, half: it
        spills one tile a step, and yet 256 programs take 0.87 ms on an H200 where those of eight warps take 0.95.
    """
    if max(K, C) > WIDE:
        return 8
    if not low or (crowded and kernel == "chain"):
        return 4
    return WARPS.get((kernel, capability), 4)
