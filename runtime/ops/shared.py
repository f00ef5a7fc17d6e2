"""`shared_product`: many self-generated matrix memories with one transition, a chunk at a time.

Where every box writes towards its own value M(v), under one rate, retention and key, a chunk multiplies all of them by the same
matrices (see product.py): S' = S Phi [+ S_0 Psi].  Keys, values, rates and retention are read from the boxes themselves at the
chunk's first state, so chunks follow one another; within a chunk everything is parallel.

The gradient is explicit and keeps the inputs and the first state of every chunk only:
    1. all chunks at once: reads and the flow again, U, Phi, W
    2. last chunk to first: gradient of the products, of the flow, of the chunk's first state
    3. all chunks at once: gradients of what was read with, and of the start

    B batch, T tokens, H heads, K width, R rows of all boxes together, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.ops.linear import Rows, Solved, State, pace
from runtime.ops.past import Past, past
from runtime.ops.product import Kind, Transition, gradient, reflect, transition

Flow = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor, Tensor, Tensor, Tensor | None]]
Queries = Sequence[tuple[Tensor, Sequence[str]]]


@dataclass(frozen=True)
class Shared:
    """bounds: {box: (B, H, N, rows, K)} the first state of every chunk touched; k, v (B, T, H, K), rate, keep (B, T, H) or None;
    state: {box: {"M": ..., "held.M": ...}} after the last token."""

    bounds: dict[str, Tensor]
    k: Tensor
    v: Tensor
    rate: Tensor
    keep: Tensor | None
    state: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Layout:
    """Where things stand in the stack of rows.  reads: (query, first row, last row) of every read, in the flow's order;
    spans: the same with neighbours joined; rows: {box: (first, last)}."""

    flow: Flow
    kind: Kind
    reads: tuple[tuple[int, int, int], ...]
    spans: tuple[tuple[int, int, int], ...]
    rows: dict[str, tuple[int, int]]
    queries: int
    extras: int


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
    erase: bool = True,
    objective: str = "l2",
    kept: bool = False,
    learn: bool = True,
) -> Shared:
    """Write and read self-generated matrix memories that share keys, rates and retention.

    Per token, t' the first of its chunk:  reads z = S_{t'} x;  k, v, rate, keep = flow(z, extras, weights);  every box S:
    S_t = S_{t-1} (a I - x e k k^T) - e (gradient at S_{t'} towards S_{t'} v) k^T [+ (1 - a) S_0].  Source: arXiv 2512.24695, eqs. 83-90.

    flow(reads, extras, weights) -> k, v (B, T, H, K), rate (B, T, H), keep = log retention (B, T, H) or None: work of each token alone,
        in differentiable torch functions, for any number of tokens; reads (B, T, H, rows) in the order of `queries`.
    states: {box: {"M": (B, H, rows, K), "held.M": the chunk's first state, if chunk > 1}}; a box may have any number of rows
    queries: (x (B, T, H, K), (box, ...)), ...; x known before the loop.   extras: (B, T, ...) each.   weights: any
    phase: tokens already in the running chunk.   start: {box: (H, rows, K) or (B, H, rows, K)} where retention leads back to it
    learn=False: nothing is written or forgotten, yet chunks go on.

    Gradients: of first order everywhere; of a token's own error (`own_errors`) of any order; else a second derivative raises RuntimeError.
    """
    phase = phase % chunk
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
            piece = plain(layout, inputs, tuple(weights), held, now, S0, (count, length), learn)
        else:
            piece = Piece(*Product.apply(layout, (count, length), now, S0, *inputs, *weights))
        now = piece.now
        pieces.append(piece)
        t += count * length
    held = now if (phase + T) % chunk == 0 else held
    return gather(layout, pieces, now, held, chunk)


def cut(T: int, chunk: int, phase: int) -> list[tuple[int, int]]:
    """(count, length) of the rest of a running chunk, the whole chunks, and the unfinished one."""
    head = min(T, -phase % chunk)
    whole, rest = divmod(T - head, chunk)
    return [(n, length) for n, length in ((1, head), (whole, chunk), (1, rest)) if n and length]


def lay(flow: Flow, kind: Kind, states: Mapping[str, Any], queries: Queries, extras: int) -> Layout:
    """Stack boxes in the order they are read, the unread ones last, so that one product serves neighbours."""
    order = list(dict.fromkeys([box for _, boxes in queries for box in boxes] + list(states)))
    rows, first = {}, 0
    for box in order:
        rows[box] = (first, first + states[box]["M"].shape[-2])
        first = rows[box][1]
    reads = tuple((i, *rows[box]) for i, (_, boxes) in enumerate(queries) for box in boxes)
    spans: list[tuple[int, int, int]] = []
    for i, a, b in reads:
        if spans and spans[-1][0] == i and spans[-1][2] == a:
            spans[-1] = (i, spans[-1][1], b)
        else:
            spans.append((i, a, b))
    return Layout(flow, kind, reads, tuple(spans), rows, len(queries), extras)


@dataclass
class Piece:
    """Some chunks of equal length: k, v (B, T, H, K), rate, keep (B, T, H), the state after them, first states by box."""

    k: Tensor
    v: Tensor
    rate: Tensor
    keep: Tensor | None
    now: Tensor
    bounds: tuple[Tensor, ...]

    def __init__(self, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None, now: Tensor, *bounds: Tensor) -> None:
        self.k, self.v, self.rate, self.keep, self.now, self.bounds = k, v, rate, keep, now, bounds


def gather(layout: Layout, pieces: list[Piece], now: Tensor, held: Tensor, chunk: int) -> Shared:
    def along(dim: int, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    bounds = {box: along(2, [p.bounds[i] for p in pieces]) for i, box in enumerate(layout.rows)}
    state = {}
    for box, (a, b) in layout.rows.items():
        state[box] = {"M": now[..., a:b, :]} | ({"held.M": held[..., a:b, :]} if chunk > 1 else {})
    keeps = [p.keep for p in pieces if p.keep is not None]
    k, v, rate = (along(1, [getattr(p, name) for p in pieces]) for name in ("k", "v", "rate"))
    return Shared(bounds, k, v, rate, along(1, keeps) if keeps else None, state)


def read_chunks(bounds: Tensor, q: Tensor, chunk: int, phase: int = 0) -> Tensor:
    """Reads of one box at each chunk's first state.  bounds (B, H, N, rows, K), q (B, T, H, K); returns (B, T, H, rows)."""
    S, answers, t, first = past(bounds), [], 0, 0
    x = q.transpose(1, 2)
    for count, length in cut(q.shape[1], chunk, phase % chunk):
        part = x[:, :, t : t + count * length].unflatten(2, (count, length))
        answers.append((part @ S[:, :, first : first + count].mT).flatten(2, 3))
        t, first = t + count * length, first + count
    y = answers[0] if len(answers) == 1 else torch.cat(answers, 2)
    return y.transpose(1, 2)


# ---- the flow


def call_flow(
    layout: Layout, zs: Sequence[Tensor], extras: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """k, v, rate, keep head-major, (B, H, T, ...), from the spans' reads (B, H, T, rows)."""
    views = []
    for query, a, b in layout.reads:
        z, first = next((z, s[1]) for z, s in zip(zs, layout.spans, strict=True) if s[0] == query and s[1] <= a and b <= s[2])
        views.append(z[..., a - first : b - first].transpose(1, 2))
    k, v, rate, keep = layout.flow(tuple(views), extras, weights)
    shape = k.shape[:3]
    rate = rate.expand(shape).transpose(1, 2)
    keep = keep if keep is None else keep.expand(shape).transpose(1, 2)
    return k.transpose(1, 2), v.transpose(1, 2), rate, keep


def plain(
    layout: Layout,
    inputs: list[Tensor],
    weights: tuple[Tensor, ...],
    held: Tensor,
    now: Tensor,
    S0: Tensor | None,
    size: tuple[int, int],
    learn: bool,
) -> Piece:
    """The rest of a running chunk, or tokens that write nothing, by ordinary differentiable operations."""
    xs, extras = inputs[: layout.queries], tuple(inputs[layout.queries :])
    mark = past(held)
    zs = [xs[i].transpose(1, 2) @ mark[..., a:b, :].mT for i, a, b in layout.spans]
    k, v, rate, keep = call_flow(layout, zs, extras, weights)
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
    bounds = [held[..., a:b, :].unsqueeze(2).expand(-1, -1, size[0], -1, -1) for a, b in layout.rows.values()]
    out = [x if x is None else x.transpose(1, 2) for x in (k, v, rate, keep)]
    return Piece(*out, after, *bounds)


# ---- whole chunks, with an explicit gradient


def by_chunk(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, T, H, K) to (B, H, N, C, K), dense."""
    B, _, H, K = x.shape
    return x.reshape(B, *size, H, K).permute(0, 3, 1, 2, 4).contiguous()


def by_token(x: Tensor) -> Tensor:
    """(B, H, N, C, ...) to (B, T, H, ...)."""
    return x.flatten(2, 3).transpose(1, 2)


class Product(torch.autograd.Function):
    """Whole chunks.  apply(layout, (N, C), S (B, H, R, K), S_0 or None, *queries, *extras, *weights)
    -> k, v (B, T, H, K), rate, keep (B, T, H), the last state, then the first states (B, H, N, rows, K) of every box."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, size: tuple[int, int], S: Tensor, S0: Tensor | None, *inputs: Tensor) -> Any:
        xs, extras, weights = split(layout, inputs)
        N, C = size
        Xs = [by_chunk(x, size) for x in xs]
        K = S.shape[-1]
        bounds = S.new_empty(*S.shape[:2], N, *S.shape[2:])
        kept = []
        both = S if S0 is None else torch.cat((S, S0), -1)
        for c in range(N):
            bounds[:, :, c] = S
            zs = [Xs[i][:, :, c] @ S[..., a:b, :].mT for i, a, b in layout.spans]
            k, v, rate, keep = call_flow(layout, zs, tuple(x[:, c * C : (c + 1) * C] for x in extras), weights)
            PhiPsi = transition(layout.kind, k, v, rate, keep).product()
            S = both @ PhiPsi
            if S0 is None:
                both = S
            else:
                both[..., :K] = S
            kept.append((k, v, rate, keep))
        outs = [None if x[0] is None else by_token(torch.stack(x, 2)) for x in zip(*kept, strict=True)]
        boxes = [bounds[..., a:b, :] for a, b in layout.rows.values()]
        ctx.layout, ctx.size = layout, size
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(S0, bounds, *boxes, *inputs)
        return (*outs, S, *boxes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        S0, bounds, *rest = ctx.saved_tensors
        boxes, inputs = rest[: len(ctx.layout.rows)], rest[len(ctx.layout.rows) :]
        if Past.closed:
            return (None, None, None, None, *own_gradient(ctx, boxes, inputs, grads[:4]))
        if torch.is_grad_enabled():
            raise RuntimeError("shared_product has no second derivative outside own_errors; use memory() where one is needed")
        return (None, None, *full_gradient(ctx.layout, ctx.size, S0, bounds, inputs, grads))


def split(layout: Layout, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Queries, extras, weights."""
    q, e = layout.queries, layout.queries + layout.extras
    return tuple(inputs[:q]), tuple(inputs[q:e]), tuple(inputs[e:])


def own_gradient(ctx: Any, boxes: list[Tensor], inputs: list[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """A token's own error: through the flow and the reads to what it read with, every state constant."""
    layout, size = ctx.layout, ctx.size
    xs, extras, weights = split(layout, inputs)
    wanted = [i for i, x in enumerate((*xs, *extras)) if x.requires_grad]
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        stack = past(torch.cat(boxes, -2))
        zs = [(by_chunk(xs[i], size) @ stack[..., a:b, :].mT).flatten(2, 3) for i, a, b in layout.spans]
        outs = [x if x is None else x.transpose(1, 2) for x in call_flow(layout, zs, extras, weights)]
        pairs = [(y, g) for y, g in zip(outs, grads, strict=True) if y is not None and g is not None and y.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs and wanted:
            ys, gs = zip(*pairs, strict=True)
            found = torch.autograd.grad(ys, [inputs[i] for i in wanted], gs, create_graph=create, allow_unused=True)
    result: list[Tensor | None] = [None] * len(inputs)
    for i, g in zip(wanted, found, strict=True):
        result[i] = g
    return result


def full_gradient(
    layout: Layout,
    size: tuple[int, int],
    S0: Tensor | None,
    bounds: Tensor,
    inputs: list[Tensor],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of S, S_0, queries, extras and weights; the three phases of the module."""
    xs, extras, weights = split(layout, inputs)
    Xs = [by_chunk(x, size) for x in xs]
    flows = [Flowed(layout, size, c, Xs, bounds, extras, weights) for c in range(size[0])]
    k, v, rate, keep = (None if x[0] is None else torch.stack(x, 2) for x in zip(*(f.values for f in flows), strict=True))
    t = transition(layout.kind, k, v, rate, keep)
    W, PhiPsi = reflect(layout.kind, t), t.product()

    given = [None if g is None else by_chunk(g.unsqueeze(-1) if g.dim() == 3 else g, size) for g in grads[:4]]
    given[2:] = [None if g is None else g.squeeze(-1) for g in given[2:]]
    dS = torch.zeros_like(bounds[:, :, 0]) if grads[4] is None else grads[4]
    dafter = torch.empty_like(bounds)
    dzs = [x.new_empty(*x.shape[:4], b - a) for x, (_, a, b) in ((Xs[s[0]], s) for s in layout.spans)]
    K = bounds.shape[-1]
    for c in reversed(range(size[0])):
        dafter[:, :, c] = dS
        S = bounds[:, :, c]
        dPhiPsi = S.mT @ dS if S0 is None else torch.cat((S.mT @ dS, S0.mT @ dS), -2)
        at = Transition(*(x[:, :, c] for x in vars(t).values()))
        found = gradient(layout.kind, at, W[:, :, c], dPhiPsi)
        dS = dS @ PhiPsi[:, :, c, :K].mT
        for dz, part, (i, a, b) in zip(dzs, flows[c].pull(found, [g if g is None else g[:, :, c] for g in given]), layout.spans, strict=True):
            dz[:, :, c] = part
            dS[..., a:b, :] += part.mT @ Xs[i][:, :, c]
        for g, (a, b) in zip(grads[5:], layout.rows.values(), strict=True):
            if g is not None:
                dS[..., a:b, :] += g[:, :, c]

    dXs: list[Any] = [None] * len(xs)
    for dz, (i, a, b) in zip(dzs, layout.spans, strict=True):
        part = dz @ bounds[..., a:b, :]
        dXs[i] = part if dXs[i] is None else dXs[i] + part
    dS0 = None if S0 is None else (dafter @ PhiPsi[:, :, :, K:].mT).sum(2)
    dextras = [torch.cat(parts, 1) for parts in zip(*(f.extras for f in flows), strict=True)]
    dweights = [sum(parts[1:], parts[0]) for parts in zip(*(f.weights for f in flows), strict=True)]
    return [dS, dS0, *map(by_token, dXs), *dextras, *dweights]


class Flowed:
    """One chunk's reads and flow, recorded, so that its gradient can be taken when the chunk's turn comes."""

    def __init__(
        self,
        layout: Layout,
        size: tuple[int, int],
        c: int,
        Xs: list[Tensor],
        bounds: Tensor,
        extras: tuple[Tensor, ...],
        weights: tuple[Tensor, ...],
    ) -> None:
        tokens = slice(c * size[1], (c + 1) * size[1])
        with torch.enable_grad():
            zs = [(Xs[i][:, :, c] @ bounds[:, :, c, a:b].mT).detach().requires_grad_() for i, a, b in layout.spans]
            ex = [x[:, tokens].detach().requires_grad_(x.is_floating_point()) for x in extras]
            ws = [w.detach().requires_grad_(w.is_floating_point()) for w in weights]
            outs = call_flow(layout, zs, tuple(ex), tuple(ws))
        self.inputs, self.outs, self.counts = [*zs, *ex, *ws], outs, (len(zs), len(ex))
        self.values = tuple(x if x is None else x.detach() for x in outs)
        self.extras: list[Tensor] = []
        self.weights: list[Tensor] = []

    def pull(self, found: Sequence[Tensor], given: Sequence[Tensor | None]) -> list[Tensor]:
        """Gradient of the reads; those of extras and weights are kept here."""
        pairs = [
            (y, g if more is None else g + more)
            for y, g, more in zip(self.outs, found, given, strict=True)
            if y is not None and y.requires_grad
        ]
        ys, gs = zip(*pairs, strict=True)
        asked = [x for x in self.inputs if x.requires_grad]
        back = iter(torch.autograd.grad(ys, asked, gs, allow_unused=True))
        full = [next(back) if x.requires_grad else None for x in self.inputs]
        done = [torch.zeros_like(x) if g is None else g for x, g in zip(self.inputs, full, strict=True)]
        z, e = self.counts
        self.extras, self.weights = done[z : z + e], done[z + e :]
        return done[:z]
