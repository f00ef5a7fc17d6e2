"""`periodic`: a memory with an objective of its own that is written once in n tokens, from the sum of their gradients.

    W <- (prod_t a_t) W [+ (1 - prod_t a_t) W_0] + delta,   delta from the rule on  sum_t eta_t G_t(W_held)

    B batch, T tokens, H heads, I width in, O width out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from runtime.ops.forms import read
from runtime.ops.naive import Write, objective_slope
from runtime.ops.segment import Call, Learner, Register, held, now, segments

Queries = Sequence[tuple[Tensor, str]]


def periodic(
    write: Write,
    state: Register,
    k: Tensor,
    v: Tensor,
    rate: Tensor | None,
    keep: Tensor | None,
    start: Mapping[str, Tensor] | None = None,
    queries: Queries = (),
    *,
    period: int,
    chunk: int,
    clock: int,
    lr: Tensor | float = 1.0,
    gram: bool = False,
    params: Sequence[Tensor | float] = (),
    learn: bool = True,
) -> tuple[tuple[Tensor, ...], Register]:
    """Read and write a memory over T tokens.

    k, v, rate, keep, start, queries, params as in `runtime.ops.memory.memory`; rate weighs each token's gradient, None where
    it is the same for all and given as lr.  `clock`: tokens counted before these; `chunk`: tokens that read one state, 1 or a
    multiple of `period`.  Returns the reads and the register, in which a period still running keeps its sums.
    """
    if write.rule is None:
        raise ValueError("a memory written once in a period needs its rule")
    learner = Learner(
        "", write.form, write.rule, gram, first_order=write.meta == "first_order", to_start=start is not None, hold=chunk > period
    )
    parts = write.form.parts
    pieces: list[list[Tensor]] = [[] for _ in queries]
    for a, b in segments(k.shape[1], (clock, period)):
        frozen = {part: x for part, x in held(state).items() if part in parts}
        running = {part: x for part, x in now(state).items() if part in parts}
        call, errors = _gradients(learner, write, frozen, k[:, a:b], v[:, a:b], rate, keep, params, start, a, b)
        if learn:
            state = learner.gather(state, call, errors)
            if (clock + b) % period == 0:
                first = start if start is not None else running
                ends, updates = (clock + b) % max(chunk, 1) == 0, (clock + b) // period
                state = learner.write(state, first, lr=lr, count=updates, release=ends)
        for found, (q, when) in zip(pieces, queries, strict=True):
            seen = {"chunk": frozen, "before": running, "after": running}[when]
            y = read(write.form, _constant(seen, write), q[:, a:b])
            if when == "after" and learn and (clock + b) % period == 0:
                last = read(write.form, _constant(now(state), write), q[:, b - 1 : b])
                y = torch.cat((y[:, :-1], last), 1)
            found.append(y)
    return tuple(torch.cat(found, 1) for found in pieces), state


def _constant(parts: Mapping[str, Tensor], write: Write) -> Mapping[str, Tensor]:
    return {name: x.detach() for name, x in parts.items()} if write.meta == "none" else parts


def _gradients(
    learner: Learner,
    write: Write,
    frozen: Mapping[str, Tensor],
    k: Tensor,
    v: Tensor,
    rate: Tensor | None,
    keep: Tensor | None,
    params: Sequence[Tensor | float],
    start: Mapping[str, Tensor] | None,
    a: int,
    b: int,
) -> tuple[Call, tuple[Tensor, ...]]:
    """What the piece's pairs teach at the frozen state: taps and errors of every layer."""
    target = write.form.read(frozen, v)[0] if write.self_values else v
    p, taps = write.form.read(frozen, k)
    u = objective_slope(write.objective, p, k, target, [_piece(x, a, b) for x in params])
    errors = write.form.errors(frozen, taps, u)
    call = Call(learner, (taps,), None if rate is None else rate[:, a:b], None if keep is None else keep[:, a:b])
    return call, errors


def _piece(x: Tensor | float, a: int, b: int) -> Tensor | float:
    if not isinstance(x, Tensor) or x.dim() < 2:
        return x
    x = x[:, a:b] if x.shape[1] > 1 else x
    return x.unsqueeze(-1) if x.dim() == 3 else x
