"""`shared_product`: many self-generated matrix memories with one transition, a chunk at a time.

Where every box writes towards its own value M(v), under one rate, retention and key, a chunk multiplies all of them by
the same matrices (see product.py): S' = S Phi [+ S_0 Psi].  Keys, values, rates and retention are read from the boxes
themselves at the chunk's first state, so chunks follow one another; within a chunk everything is parallel.

The gradient is explicit and keeps the inputs and the first state of every chunk only:
    1. chunks in parallel: reads and the flow again, U, Phi
    2. last chunk to first: gradient of the products, of the flow, of the chunk's first state
    3. chunks in parallel: gradients of what was read with

    B batch, T tokens, H heads, K width, R rows of all boxes together, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.ops import headless
from runtime.ops.history import Past, past
from runtime.ops.product import Kind, transition
from runtime.ops.recurrence import Rows, Solved, State, pace
from runtime.ops.shared_gradient import Backward, own_gradient
from runtime.ops.stack import (
    FOLDED,
    Flow,
    Layout,
    Queries,
    boxes_of,
    by_chunk,
    by_token,
    call_flow,
    cut,
    flat,
    fold,
    lay,
    split,
    unfolded,
)
from runtime.ops.watch import Watch, Watched, squared


@dataclass(frozen=True)
class Shared:
    """What a call leaves.  bounds: {box: (N, B, H, rows, K)}, the first state of every chunk touched; k, v (B, T, H,
    K), rate, keep (B, T, H), or None; state: {box: {"M": ..., "held.M": ...}} after the last token."""

    bounds: dict[str, Tensor]
    k: Tensor | None
    v: Tensor | None
    rate: Tensor | None
    keep: Tensor | None
    state: dict[str, dict[str, Tensor]]


def shared_product(
    flow: Flow,
    states: Mapping[str, Mapping[str, Tensor]],
    queries: Queries,
    extras: Sequence[Tensor] = (),
    weights: Sequence[Tensor] = (),
    *,
    chunk: int,
    phase: int = 0,
    start: Mapping[str, Tensor] | None = None,
    readouts: Mapping[str, Tensor] | None = None,
    erase: bool = True,
    objective: str = "l2",
    kept: bool = False,
    learn: bool = True,
    outputs: bool = True,
    final: bool = False,
    name: str = "",
) -> Shared:
    """Write and read self-generated matrix memories that share keys, rates and retention.

    Per token, t' the first of its chunk:  reads z = S_{t'} x;  k, v, rate, keep = flow(z, extras, weights);  every box
        S_t = S_{t-1} (a I - x e k k^T) - e (gradient at S_{t'} towards S_{t'} v) k^T [+ (1 - a) S_0]
    with x = 1 where `erase`.  Source: arXiv 2512.24695, eqs. 83-90.

    flow(reads, extras, weights) -> k, v (B, T, H, K), rate (B, T, H), keep = log retention (B, T, H) or None: work of
        each token alone, in differentiable torch functions, for any number of tokens; reads (B, T, H, rows) in the
        order of `queries`
    states: {box: {"M": (B, H, rows, K), "held.M": the chunk's first state, if chunk > 1}}; a box may have any number
        of rows
    queries: (x (B, T, H, K), (box, ...)), ...; x known before the loop
    extras: (B, T, ...) each, for the flow.  weights: any tensors, for the flow
    phase: tokens already in the running chunk
    start: {box: (H, rows, K) or (B, H, rows, K)} where retention leads back to it
    readouts: {box: w (H, n, rows)}: in the loop this box is read as w S x, n rows wide.  w S obeys the product that S
        does, so only those rows are carried along; S itself costs nothing backward where its state is not used
    learn=False: nothing is written or forgotten, yet chunks go on
    outputs=False: k, v, rate and keep are not returned
    final: nobody but a later call with the same readouts reads the states returned.  A box read through one goes on
        as its rows {"rows": w S, "held.rows": ...}, (B, H, n, K), and is neither advanced nor among the bounds
    name: what the boxes belong to, for who watches: a box is the memory <name>.<box>

    Gradients are of first order; a token's own error (`own_errors`) can be differentiated again.  Raises RuntimeError
    where any other second derivative is asked for.
    """
    if headless.is_headless(next(iter(states.values()))):
        more = {
            "chunk": chunk,
            "phase": phase,
            "readouts": readouts,
            "erase": erase,
            "objective": objective,
            "kept": kept,
            "learn": learn,
            "outputs": outputs,
            "final": final,
            "name": name,
        }
        return headless.call_shared(shared_product, flow, states, queries, extras, weights, start, **more)
    phase, outputs = phase % chunk, outputs or Watched.by is not None
    if readouts:
        states, start, queries = fold(states, start, queries, readouts, final)
    kind = Kind(erase, objective == "l2", kept, start is not None)
    layout = lay(flow, kind, states, queries, len(extras))
    now = torch.cat([states[box]["M"] for box in layout.rows], -2)
    held = torch.cat([states[box]["held.M"] for box in layout.rows], -2) if phase else now
    S0 = None if start is None else torch.cat([start[box].expand_as(states[box]["M"]) for box in layout.rows], -2)
    xs = tuple(x for x, _ in queries)
    T = xs[0].shape[1]

    pieces: list[Piece] = []
    t = 0
    for count, length in cut(T, chunk, phase):
        tokens = slice(t, t + count * length)
        inputs = [x[:, tokens] for x in (*xs, *extras)]
        inside = bool(phase) and t == 0
        held = held if inside else now
        if inside or not learn:
            piece = plain(layout, inputs, tuple(weights), held, now, S0, (count, length), learn, outputs)
        else:
            piece = Piece(*Product.apply(layout, (count, length), outputs, now, S0, *inputs, *weights))
        now = piece.now
        pieces.append(piece)
        t += count * length
    held = now if (phase + T) % chunk == 0 else held
    made = gather(layout, pieces, now, held, chunk)
    if Watched.by and name and learn:
        observe(Watched.by, name, made, layout, S0, chunk, phase)
    return made


class Piece:
    """Some chunks of equal length: k, v (B, T, H, K), rate, keep (B, T, H), the state after them, first states by
    box."""

    def __init__(
        self, k: Tensor | None, v: Tensor | None, rate: Tensor | None, keep: Tensor | None, now: Tensor, *bounds: Tensor
    ) -> None:
        self.k, self.v, self.rate, self.keep, self.now, self.bounds = k, v, rate, keep, now, bounds


def gather(layout: Layout, pieces: list[Piece], now: Tensor, held: Tensor, chunk: int) -> Shared:
    def along(dim: int, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    named = {box: i for i, box in enumerate(layout.rows) if not box.endswith(FOLDED)}
    bounds = {box: along(0, [p.bounds[i] for p in pieces]) for box, i in named.items()}
    running = unstacked(layout, now)
    frozen = running if held is now else unstacked(layout, held)
    state = {box: {"M": running[box]} | ({"held.M": frozen[box]} if chunk > 1 else {}) for box in layout.rows}
    streams = [[getattr(p, name) for p in pieces] for name in ("k", "v", "rate", "keep")]
    return Shared(bounds, *(None if x[0] is None else along(1, x) for x in streams), unfolded(state))


def observe(by: Watch, name: str, made: Shared, layout: Layout, S0: Tensor | None, chunk: int, phase: int) -> None:
    """The surprise of every box: |M_{t'} (c k - v) + (1 - c) M_0 k| |k|, c as in product.py; rates and retention."""
    k, v, kind = made.k, made.v, layout.kind
    assert k is not None and v is not None
    c = made.keep.exp().unsqueeze(-1) if kind.kept and made.keep is not None else 1.0
    asked = (c * k if kind.l2 else 0.0) - v
    starts = None if S0 is None or not (kind.kept and kind.l2) else unstacked(layout, S0)
    for box, bounds in made.bounds.items():
        error = read_chunks(bounds, asked, chunk, phase)
        if starts is not None:
            error = error + (1 - c) * torch.einsum("bhok,bthk->btho", starts[box], k)
        by.add(f"{name}.{box}", "surprise", (squared(error) * squared(k)).sum(), k.shape[0] * k.shape[1])
        by.speed(f"{name}.{box}", made.rate, made.keep)


def unstacked(layout: Layout, stack: Tensor) -> dict[str, Tensor]:
    """The rows of each box.  (One split: the gradients come back in one piece.)"""
    return dict(zip(layout.rows, stack.split([b - a for a, b in layout.rows.values()], -2), strict=True))


def read_chunks(bounds: Tensor, q: Tensor, chunk: int, phase: int = 0) -> Tensor:
    """Reads of one box at each chunk's first state: bounds (N, B, H, rows, K), q (B, T, H, K) to (B, T, H, rows)."""
    if q.dim() == 3:  # no heads
        return read_chunks(bounds, q.unsqueeze(2), chunk, phase).squeeze(2)
    S, answers, t, first = past(bounds), [], 0, 0
    for count, length in cut(q.shape[1], chunk, phase % chunk):
        part = by_chunk(q[:, t : t + count * length], (count, length))
        answers.append(by_token(part @ S[first : first + count].mT))
        t, first = t + count * length, first + count
    return answers[0] if len(answers) == 1 else torch.cat(answers, 1)


# ---- pieces


def plain(
    layout: Layout,
    inputs: list[Tensor],
    weights: tuple[Tensor, ...],
    held: Tensor,
    now: Tensor,
    S0: Tensor | None,
    size: tuple[int, int],
    learn: bool,
    outputs: bool,
) -> Piece:
    """The rest of a running chunk, or tokens that write nothing, by ordinary differentiable operations."""
    xs, extras = inputs[: layout.queries], tuple(inputs[layout.queries :])
    mark = past(held)
    zs = [xs[i].transpose(1, 2) @ mark[..., a:b, :].mT for i, a, b, _ in layout.reads]
    k, v, rate, keep = call_flow(layout, boxes_of(layout, zs), extras, weights)
    kind, after = layout.kind, now
    if learn:
        speed = pace((torch.zeros_like(rate) if keep is None else keep).unsqueeze(2), None)
        k5, v5 = k.unsqueeze(2), v.unsqueeze(2)
        h, g = -v5, None
        if kind.l2:
            a = speed.keep.exp().unsqueeze(-1)
            h = (a * k5 if kind.kept else k5) - v5
            if kind.kept and S0 is not None:
                g = (1 - a) * (k5 @ S0.unsqueeze(2).mT)
        rows = Rows(k5, rate.unsqueeze(2), j=k5 if kind.erase else None, h=h, g=g)
        after = Solved(rows, speed, State(now, held, None, S0), size[1], True).now
    bounds = [held[..., a:b, :].expand(size[0], -1, -1, -1, -1) for a, b in layout.rows.values()]
    out = [x if x is None or not outputs else x.transpose(1, 2) for x in (k, v, rate, keep)]
    return Piece(*(out if outputs else [None] * 4), after, *bounds)


# ---- whole chunks, with an explicit gradient


class Product(torch.autograd.Function):
    """Whole chunks.  apply(layout, (N, C), outputs, S (B, H, R, K), S_0 or None, *queries, *extras, *weights)
    -> k, v (B, T, H, K), rate, keep (B, T, H) where `outputs`, the last state, the first states (N, B, H, rows, K) by
    box."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, size: tuple[int, int], outputs: bool, S: Tensor, S0: Tensor | None, *inputs: Tensor
    ) -> Any:
        xs, extras, weights = split(layout, inputs)
        N, C = size
        Xs = [by_chunk(x, size) for x in xs]
        bounds = S.new_empty(N + 1, *S.shape)
        bounds[0] = S
        start = None if S0 is None else flat(S0)
        kept = []
        for c in range(N):
            zs = [Xs[i][c] @ bounds[c, ..., a:b, :].mT for i, a, b, _ in layout.reads]
            k, v, rate, keep = call_flow(
                layout, boxes_of(layout, zs), tuple(x[:, c * C : (c + 1) * C] for x in extras), weights
            )
            t = transition(
                layout.kind, flat(k), flat(v), rate.reshape(-1, C), None if keep is None else keep.reshape(-1, C)
            )
            after = flat(bounds[c + 1])
            if start is None or t.Psi is None:
                torch.bmm(flat(bounds[c]), t.Phi, out=after)
            else:
                torch.bmm(start, t.Psi, out=after)
                after.baddbmm_(flat(bounds[c]), t.Phi)
            if outputs:
                kept.append((k, v, rate, keep))
        outs = (
            [None if x[0] is None else by_token(torch.stack(x)) for x in zip(*kept, strict=True)]
            if outputs
            else [None] * 4
        )
        boxes = [bounds[:N, ..., a:b, :] for a, b in layout.rows.values()]
        ctx.layout, ctx.size = layout, size
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(S0, bounds, *boxes, *inputs)
        return (*outs, bounds[N].clone(), *boxes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        S0, bounds, *rest = ctx.saved_tensors
        boxes, inputs = rest[: len(ctx.layout.rows)], rest[len(ctx.layout.rows) :]
        if Past.closed:
            return (None,) * 5 + tuple(own_gradient(ctx.layout, ctx.size, boxes, inputs, grads[:4]))
        if torch.is_grad_enabled():
            raise RuntimeError("shared_product has no second derivative outside own_errors; use memory() for one")
        return (None, None, None, *Backward(ctx.layout, ctx.size, S0, bounds, inputs, grads).run())
