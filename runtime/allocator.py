"""What the C library does with the memory of tensors on a processor that are no longer there."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate

import torch
from torch import Tensor

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for its options, malloc.h
KEPT = (1 << 31) - 1  # bytes
HUGE, LINE = 1 << 21, 64  # bytes of a huge page, of a line of a cache
BLOCKS: list[mmap.mmap] = []  # all that hold tensors, or did
IDLE = 3  # references to one that no tensor lies in: the list, whoever asks and the question


def keep_freed_memory() -> bool:
    """From now on this process keeps what it has freed for what it allocates next; False where it cannot be told so.

    By itself glibc gives tensors of a few MiB back to the system as soon as they are freed, and the next one is made
    of pages that the system has to find and clear first: a training step of hope takes 8 % longer, and a chain of
    pointwise operations on 2 MiB ten times as long.  What a process holds stays at what it once needed.
    """
    try:
        option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(option(TRIM_THRESHOLD, KEPT)) and bool(option(MMAP_THRESHOLD, KEPT))


def in_huge_pages(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of tensors on the processor, side by side in pages of 2 MiB where the system has them.

    A processor foresees what is read next up to the end of a page, and knows where few of the small ones are: the
    weights of a model that are all read once a token come 1.5 times as fast.  Each copy has a storage of its own.
    """
    places = list(accumulate((-(-x.nbytes // LINE) * LINE for x in tensors), initial=0))
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return list(tensors)
    block = block_of(places[-1] + HUGE)
    first = -torch.frombuffer(block, dtype=torch.uint8).data_ptr() % HUGE
    made = []
    for x, at in zip(tensors, places, strict=False):
        copy = torch.frombuffer(block, dtype=x.dtype, count=x.numel(), offset=first + at).view(x.shape)
        made.append(copy.copy_(x))
    return made


def block_of(size: int) -> mmap.mmap:
    """So many bytes, or more, that no tensor lies in: where some were that are gone, or new ones, which the system has
    to find and clear first."""
    for block in BLOCKS:
        if len(block) >= size and sys.getrefcount(block) == IDLE:
            return block
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without: pages as any
        block.madvise(mmap.MADV_HUGEPAGE)
    BLOCKS.append(block)
    return block
