"""`periodic`: a memory with an objective of its own that is written once in n tokens, from the sum of their gradients.

W <- (prod_t a_t) W [+ (1 - prod_t a_t) W_0] + delta,   delta from the rule on  sum_t eta_t G_t(W_held)

B batch, T tokens, P pairs a token, H heads, I width in, O width out
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from runtime.ops.boundaries import marked, sources
from runtime.ops.forms import Layer, Matrix, Tap, Vector, bias_of, product, read
from runtime.ops.headless import is_headless
from runtime.ops.memories import share_heads
from runtime.ops.naive import Write, objective_slope
from runtime.ops.saving import Found, Saving
from runtime.ops.segment import Call, Learner, Register, held, now, segments

Queries = Sequence[tuple[Tensor, str]]
Parts = Mapping[str, Tensor]


def periodic(
    write: Write,
    state: Register,
    k: Tensor,
    v: Tensor,
    rate: Tensor | None,
    keep: Tensor | None,
    start: Parts | None = None,
    queries: Queries = (),
    *,
    period: int,
    chunk: int,
    clock: int,
    lr: Tensor | float = 1.0,
    gram: bool = False,
    params: Sequence[Tensor | float] = (),
    rule_params: Parts | None = None,
    learn: bool = True,
) -> tuple[tuple[Tensor, ...], Register]:
    """Read and write a memory over T tokens.

    k, v, rate, keep, start, queries, params as in `runtime.ops.memories.memory`; rate weighs each gradient (relative to
    the period's mean, the rule's lr then, if `write.relative`), None where it is the same for all and given as lr.
    rule_params: (B, T, H) each; the token that writes says them.
    clock: tokens counted before these.  chunk: tokens that read one state, 1 or a multiple of `period`.

    Returns the reads and the register, in which a period still running keeps its sums.
    """
    learner = learner_of(write, state, start, gram, chunk > period)
    flat = is_headless(state, write.form)
    back = start if write.to_start else None
    held_reads = write.meta != "none" and not (write.kept and keep is not None)  # a gradient reads as a query does
    shared = [held_reads and when == "chunk" and q is k for q, when in queries]
    if not flat:
        k, v = (share_heads(x, state[write.form.parts[0]].shape[1]) for x in (k, v))
    pairs = list(zip(k.unbind(2), v.unbind(2), strict=True)) if k.dim() == (4 if flat else 5) else [(k, v)]
    ticks = [(clock, period)]
    if any(when == "after" for _, when in queries):
        ticks.append((clock + 1, period))  # the token that writes goes alone: its own error passes through its own pair
    found: list[list[Tensor]] = [[] for _ in queries]
    for a, b in segments(k.shape[1], *ticks):
        state = marked(state)
        frozen = {part: x for part, x in held(state).items() if part in write.form.parts}
        running = {part: x for part, x in now(state).items() if part in write.form.parts}
        written = running
        again = sources(state)
        if learn:
            share = None if keep is None else keep[:, a:b]
            taught = [
                gradient(write, frozen, x[:, a:b], y[:, a:b], share, back, [piece(p, a, b) for p in params], again)
                for x, y in pairs
            ]
            moving = {name: x[:, a:b] for name, x in (rule_params or {}).items()}
            call = Call(
                learner, tuple(taps for _, taps, _ in taught), None if rate is None else rate[:, a:b], share, moving
            )
            state = learner.gather(state, call, [e for *_, errors in taught for e in errors])
            if (clock + b) % period == 0:
                state = learner.write(state, start or {}, lr=lr)
                again = [*again, *sources(state)]
                written = {part: x for part, x in now(state).items() if part in write.form.parts}
        if learner.hold and (clock + b) % chunk == 0:
            state = learner.released(state)
        with Saving(again):
            for reads, (q, when), known in zip(found, queries, shared, strict=True):
                if known and learn:
                    reads.append(taught[0][0])
                    continue
                seen = {"chunk": frozen, "before": running, "after": written}[when]
                seen = constant(seen) if write.meta == "none" else seen
                reads.append(
                    write.form.read(seen, q[:, a:b])[0] if when == "after" else read(write.form, seen, q[:, a:b])
                )
    # a walk reads the register itself
    return tuple(torch.cat(reads, 1) for reads in found), constant(state) if write.meta == "none" else state


def ended(
    write: Write, state: Register, start: Parts | None = None, *, hold: bool, lr: Tensor | float = 1.0
) -> Register:
    """The write of a period that ends early (tail: flush)."""
    state = learner_of(write, state, start, False, hold).write(state, start or {}, lr=lr)
    return constant(state) if write.meta == "none" else state


def constant(state: Parts) -> Register:
    """The state as all see it under `meta: none`: no gradient reaches the writes behind it."""
    return {part: x.detach() for part, x in state.items()}


def learner_of(write: Write, state: Register, start: Parts | None, gram: bool, hold: bool) -> Learner:
    """How the sums of a period are written."""
    if write.rule is None:
        raise ValueError("a memory written once in a period needs its rule")
    return Learner(
        "", write.form, write.rule, gram, first_order=write.meta != "full",
        to_start=start is not None and write.to_start, hold=hold,
        counts="rule.count" in state, keep=write.keep, name=write.name, relative=write.relative,
        descends=write.descends,
    )  # fmt: skip


def gradient(
    write: Write,
    W: Parts,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    start: Parts | None,
    params: Sequence[Tensor | float],
    again: Found,
) -> tuple[Tensor, Sequence[Tap], tuple[Tensor, ...]]:
    """What pairs teach at the frozen state: what it says of their keys, and taps and errors of every layer.

    again: how its tensors are found.
    """
    form = write.form
    with Saving(again):
        target = form.read(W, v)[0] if write.self_values else v
    if not write.kept or keep is None:
        with Saving(again):
            p, taps = form.read(W, k)
        u = slope(write, p, k, target, params)
        with Saving(again):
            return p, taps, form.errors(W, taps, u)
    a = keep.exp()
    channels = isinstance(form, Matrix) and a.dim() == k.dim()
    a = a if a.dim() == k.dim() else a.unsqueeze(-1)

    def mixed(
        take: Callable[[Parts, Tensor], Tensor], x: Tensor
    ) -> Tensor:  # at retain * state [+ (1 - retain) * start]
        y = take(W, a * x) if channels else a * take(W, x)
        if start is None:
            return y
        return y + (take(start, (1 - a) * x) if channels else (1 - a) * take(start, x))

    def layer(part: Layer, x: Tensor) -> Tensor:
        if isinstance(form, Vector):
            return mixed(lambda M, x: bias_of(M[part.weight], x) * x, x)
        z = mixed(lambda M, x: product(M[part.weight].unsqueeze(-1) if part.vector else M[part.weight], x), x)
        return z + mixed(lambda M, z: bias_of(M[part.bias], z), z) if part.bias else z

    with Saving(again):
        p, taps = form.run(layer, k)
    u = slope(write, p, k, target, params)
    with Saving(again):
        return p, taps, form.pull(lambda part, e: mixed(lambda M, e: product(M[part.weight].mT, e), e), taps, u)


def slope(write: Write, p: Tensor, k: Tensor, v: Tensor, params: Sequence[Tensor | float]) -> Tensor:
    """The objective's, its parameters with the axis of the width where there is none."""
    if not callable(write.objective):
        params = [x.unsqueeze(-1) if isinstance(x, Tensor) and x.dim() == p.dim() - 1 else x for x in params]
    return objective_slope(write.objective, p, k, v, params)


def piece(x: Tensor | float, a: int, b: int) -> Tensor | float:
    """A parameter of tokens a ... b."""
    return x[:, a:b] if isinstance(x, Tensor) and x.dim() >= 2 and x.shape[1] > 1 else x
