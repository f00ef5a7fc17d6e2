"""`memory` by the kernels of runtime.kernels.linear_memory: whole chunks, from a state that began as nothing.

Retention towards a start M_0 is retention towards nothing of M - M_0, since what a write sees of M_0 is known:
    M_t = a_t M_{t-1} + (1 - a_t) M_0 - u_t k_t^T   <=>   M_t - M_0 = a_t (M_{t-1} - M_0) - u_t k_t^T
    u_t = e_t (c_t M k_t - v_t)  with  v_t  less c M_0 k_t in the new one, c the number of reads that a write makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runtime.kernels.linear_memory.form import FEWEST, Form
from runtime.ops.naive import Call
from runtime.ops.recurrence import FLOOR
from runtime.ops.watch import Watch, Watched, squared

if TYPE_CHECKING:
    from runtime.kernels.linear_memory.function import Written

Register = dict[str, Tensor]
Result = tuple[tuple[Tensor, ...], Register]


def by_kernels(form: Form, call: Call, state: Any, otherwise: Callable[[Call, Any], Result]) -> Result:
    """All tokens; those that end a chunk which is running already, and too few to make one, go `otherwise`."""
    T, chunk = call.k.shape[1], call.write.chunk
    head = -call.phase % chunk
    if not head:
        return whole(form, call, state)
    if T - head < FEWEST:
        return otherwise(call, state)
    begun, state = otherwise(tokens(call, 0, head), state)
    rest, state = whole(form, tokens(call, head, T), state)
    return tuple(torch.cat(ys, 1) for ys in zip(begun, rest, strict=True)), state


def tokens(call: Call, first: int, end: int) -> Call:
    """The same call of some of its tokens."""
    cut = lambda x: x if x is None else x[:, first:end]
    return replace(
        call, k=cut(call.k), v=cut(call.v), rate=cut(call.rate), keep=cut(call.keep), point=cut(call.point),
        queries=tuple((cut(q), when) for q, when in call.queries), phase=(call.phase + first) % call.write.chunk,
    )  # fmt: skip


def whole(form: Form, call: Call, state: Any) -> Result:
    """From a chunk's first token on."""
    from runtime.kernels.linear_memory.function import Written

    write, start = call.write, None if call.start is None else call.start["M"]
    keep = None if call.keep is None else call.keep.clamp(min=FLOOR)
    M, v = state["M"], call.v
    if start is not None:
        M = M - start
        v = v - (form.erase + form.l2) * at_start(start, call.k)
    done = Written.by_kernels(form, call.low, call.k, v, call.rate, keep, M)
    reads = [done.read(q, "before" if when == "chunk" and not form.held else when) for q, when in call.queries]
    if Watched.by:
        observe(Watched.by, write.name, done, v, start)
    after = {"M": done.last}
    if write.chunk > 1:
        after["held.M"] = done.last if call.k.shape[1] % write.chunk == 0 else done.Ms[-1]
    if start is not None:
        reads = [y + at_start(start, q) for y, (q, _) in zip(reads, call.queries, strict=True)]
        after = {part: x + start for part, x in after.items()}
    return tuple(reads), after


def at_start(start: Tensor, x: Tensor) -> Tensor:
    """M_0 x of every token: start (H, V, K) or (B, H, V, K), x (B, T, H, K) to (B, T, H, V)."""
    return (x.transpose(1, 2) @ start.mT).transpose(1, 2)


@torch.no_grad()
def observe(by: Watch, name: str, done: Written, v: Tensor, start: Tensor | None) -> None:
    """The surprise |c M k - v| |k| of the first sequence, M the state that the gradient is at."""
    first, k, error = done.first_sequence(), done.k[:1], -v[:1]
    if done.form.l2:
        at = first.read(k, "chunk" if done.form.held else "before")
        error = error + (at if not done.form.kept or first.keep is None else first.keep.exp().unsqueeze(-1) * at)
    if done.form.erase and start is not None:  # v is less what erasing reads of the start, which is no error
        error = error - at_start(start if start.dim() == 3 else start[:1], k)
    by.add(name, "surprise", (squared(error) * squared(k)).sum(), k.shape[1])
