"""How many warps a kernel runs with and how many chunks ahead it loads: one table, as for the shared product."""

from __future__ import annotations

WIDE = 64  # head width or chunk above which a tile needs eight warps
WARPS = {("read gradient", 80): 8, ("spread", 80): 8, ("spread", 90): 8}
STAGES = {"chain": 3, "pull": 2}


def warps(kernel: str, K: int, C: int, capability: int) -> int:
    """K the widest head, C tokens of a chunk; capability 80, 90, ..., 0 in the interpreter."""
    return 8 if max(K, C) > WIDE else WARPS.get((kernel, capability), 4)


def stages(kernel: str, low: bool) -> int:
    """Operands of float32 leave no room in shared memory for those of a later chunk."""
    return STAGES.get(kernel, 1) if low else 1
