"""Whether the kernels take a call of `memory`; if not on a GPU, why not, in one loud line."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from runtime.kernels.device import runs, too_old
from runtime.kernels.linear_memory.form import FEWEST, Form
from runtime.ops.forms import Matrix
from runtime.ops.naive import Call

CHUNKS = (16, 32, 64)
WIDTHS = (16, 128)


def chosen(call: Call, M: Tensor, block: int) -> Form | None:
    """The kernels' constants, or None where the PyTorch form computes this call.  block: tokens of one system."""
    if not runs(M) or call.k.shape[1] < FEWEST:
        return None
    chunk = call.write.chunk if call.write.chunk > 1 else block
    against = refusal(call, M, chunk)
    if against:
        say(against)
        return None
    write = call.write
    return Form(
        chunk=chunk,
        erase=int(write.erase),
        l2=int(write.objective == "l2"),
        kept=int(write.kept),
        held=int(write.chunk > 1),
        keeps=int(call.keep is not None),
    )


def refusal(call: Call, M: Tensor, chunk: int) -> str:
    """Why the kernels cannot take this call; empty where they can."""
    write, (V, K) = call.write, M.shape[-2:]
    if not write.kernel:
        why = "it was compiled for the cpu, or nlc explain --target cuda says why"
        return f"the program names none for {write.name or 'it'}: {why}"
    if chunk not in CHUNKS:
        return f"chunks of {chunk} tokens, expected {', '.join(map(str, CHUNKS))}"
    if not all(WIDTHS[0] <= width <= WIDTHS[1] for width in (K, V)):
        return f"keys of width {K} and values of width {V}, expected {WIDTHS[0]} to {WIDTHS[1]}"
    if M.dtype != torch.float32:
        return f"a state in {M.dtype}, expected float32"
    affine = isinstance(write.form, Matrix) and write.objective in ("dot", "l2") and not write.self_values
    if not affine or call.beta is not None or call.seen is not None or write.meta != "full":
        return "a write that is more than retention and one row a token"
    if call.own:
        return "a level learns from each token's own error"
    if call.point is not None and write.kept:
        return "several pairs a token whose gradient is at the kept state of a chunk"
    return "a GPU older than compute capability 8.0" if too_old(M) else ""


@cache
def say(against: str) -> None:
    """Once for each reason."""
    warnings.warn(f"a memory runs its PyTorch form on the GPU, without a kernel: {against}", stacklevel=4)
