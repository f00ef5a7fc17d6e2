"""Which linear memory it is: everything a kernel takes as a constant."""

from __future__ import annotations

from typing import NamedTuple

FEWEST = 16  # tokens of a call; fewer, as in generation, are not worth a chunk
READS = ("chunk", "before", "after")  # the state at the chunk's first token, before a token's write, after it


class Form(NamedTuple):
    """chunk: tokens that a kernel takes at once.  held: the gradient is at the first state of them, not at the one
    before each token; kept: at the state after retention.  keeps: there is a retention."""

    chunk: int
    erase: int
    l2: int
    kept: int
    held: int
    keeps: int
