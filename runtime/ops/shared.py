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
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from runtime.ops import headless
from runtime.ops.linear import Rows, Solved, State, pace
from runtime.ops.past import Past, past
from runtime.ops.product import Kind, Transition, gradient, transition

Tensors = tuple[Tensor, ...]
Flow = Callable[[Tensors, Tensors, Tensors], tuple[Tensor, Tensor, Tensor, Tensor | None]]
Queries = Sequence[tuple[Tensor, Sequence[str]]]


@dataclass(frozen=True)
class Shared:
    """bounds: {box: (N, B, H, rows, K)} the first state of every chunk touched; k, v (B, T, H, K), rate, keep (B, T, H) or None;
    state: {box: {"M": ..., "held.M": ...}} after the last token."""

    bounds: dict[str, Tensor]
    k: Tensor | None
    v: Tensor | None
    rate: Tensor | None
    keep: Tensor | None
    state: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Layout:
    """Where things stand in the stack of rows.  reads: of every product with one query, (query, first row, last row, rows of each
    box), in the flow's order; rows: {box: (first, last)}."""

    flow: Flow
    kind: Kind
    reads: tuple[tuple[int, int, int, list[int]], ...]
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
    outputs: bool = True,
) -> Shared:
    """Write and read self-generated matrix memories that share keys, rates and retention.

    Per token, t' the first of its chunk:  reads z = S_{t'} x;  k, v, rate, keep = flow(z, extras, weights);  every box S:
    S_t = S_{t-1} (a I - x e k k^T) - e (gradient at S_{t'} towards S_{t'} v) k^T [+ (1 - a) S_0].  Source: arXiv 2512.24695, eqs. 83-90.

    flow(reads, extras, weights) -> k, v (B, T, H, K), rate (B, T, H), keep = log retention (B, T, H) or None: work of each token alone,
        in differentiable torch functions, for any number of tokens; reads (B, T, H, rows) in the order of `queries`.
    states: {box: {"M": (B, H, rows, K), "held.M": the chunk's first state, if chunk > 1}}; a box may have any number of rows
    queries: (x (B, T, H, K), (box, ...)), ...; x known before the loop.   extras: (B, T, ...) each.   weights: any
    phase: tokens already in the running chunk.   start: {box: (H, rows, K) or (B, H, rows, K)} where retention leads back to it
    learn=False: nothing is written or forgotten, yet chunks go on.   outputs=False: k, v, rate and keep are not returned.

    Gradients: of first order everywhere; of a token's own error (`own_errors`) of any order; else a second derivative raises RuntimeError.
    """
    if headless.is_headless(next(iter(states.values()))):
        more = {"chunk": chunk, "phase": phase, "erase": erase, "objective": objective, "kept": kept, "learn": learn, "outputs": outputs}
        return headless.call_shared(shared_product, flow, states, queries, extras, weights, start, **more)
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
            piece = plain(layout, inputs, tuple(weights), held, now, S0, (count, length), learn, outputs)
        else:
            piece = Piece(*Product.apply(layout, (count, length), outputs, now, S0, *inputs, *weights))
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
    """Stack boxes in the order they are read, the unread ones last, so that reads with one query are one product."""
    order = list(dict.fromkeys([box for _, boxes in queries for box in boxes] + list(states)))
    rows, first = {}, 0
    for box in order:
        rows[box] = (first, first + states[box]["M"].shape[-2])
        first = rows[box][1]
    reads: list[tuple[int, int, int, list[int]]] = []
    for i, boxes in enumerate(boxes for _, boxes in queries):
        for a, b in (rows[box] for box in boxes):
            if reads and reads[-1][0] == i and reads[-1][2] == a:
                _, first, _, sizes = reads.pop()
                reads.append((i, first, b, [*sizes, b - a]))
            else:
                reads.append((i, a, b, [b - a]))
    return Layout(flow, kind, tuple(reads), rows, len(queries), extras)


class Piece:
    """Some chunks of equal length: k, v (B, T, H, K), rate, keep (B, T, H), the state after them, first states by box."""

    def __init__(
        self, k: Tensor | None, v: Tensor | None, rate: Tensor | None, keep: Tensor | None, now: Tensor, *bounds: Tensor
    ) -> None:
        self.k, self.v, self.rate, self.keep, self.now, self.bounds = k, v, rate, keep, now, bounds


def gather(layout: Layout, pieces: list[Piece], now: Tensor, held: Tensor, chunk: int) -> Shared:
    def along(dim: int, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    bounds = {box: along(0, [p.bounds[i] for p in pieces]) for i, box in enumerate(layout.rows)}
    state = {}
    for box, (a, b) in layout.rows.items():
        state[box] = {"M": now[..., a:b, :]} | ({"held.M": held[..., a:b, :]} if chunk > 1 else {})
    streams = [[getattr(p, name) for p in pieces] for name in ("k", "v", "rate", "keep")]
    return Shared(bounds, *(None if x[0] is None else along(1, x) for x in streams), state)


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


# ---- the flow


def boxes_of(layout: Layout, zs: Sequence[Tensor]) -> list[Tensor]:
    """Cut the products with a query into the reads of each box."""
    return [z for wide, (*_, sizes) in zip(zs, layout.reads, strict=True) for z in wide.split(sizes, -1)]


def call_flow(
    layout: Layout, zs: Sequence[Tensor], extras: Tensors, weights: Tensors
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """k, v, rate, keep head-major, (B, H, T, ...), from the reads (B, H, T, rows), one of each box."""
    k, v, rate, keep = layout.flow(tuple(z.transpose(1, 2) for z in zs), extras, weights)
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


def by_chunk(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, T, H, K) to (N, B, H, C, K), dense."""
    B, _, H, K = x.shape
    return x.reshape(B, *size, H, K).permute(1, 0, 3, 2, 4).contiguous()


def by_token(x: Tensor) -> Tensor:
    """(N, B, H, C, ...) to (B, T, H, ...)."""
    return x.movedim(0, 2).flatten(2, 3).transpose(1, 2)


def flat(x: Tensor) -> Tensor:
    """Leading axes of a stack of matrices as one."""
    return x.reshape(-1, *x.shape[-2:])


class Product(torch.autograd.Function):
    """Whole chunks.  apply(layout, (N, C), outputs, S (B, H, R, K), S_0 or None, *queries, *extras, *weights)
    -> k, v (B, T, H, K), rate, keep (B, T, H) where `outputs`, the last state, the first states (N, B, H, rows, K) by box."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, size: tuple[int, int], outputs: bool, S: Tensor, S0: Tensor | None, *inputs: Tensor
    ) -> Any:
        xs, extras, weights = split(layout, inputs)
        (N, C), (B, H) = size, S.shape[:2]
        Xs = [by_chunk(x, size) for x in xs]
        bounds = S.new_empty(N + 1, *S.shape)
        bounds[0] = S
        start = None if S0 is None else flat(S0)
        kept = []
        for c in range(N):
            zs = [Xs[i][c] @ bounds[c, ..., a:b, :].mT for i, a, b, _ in layout.reads]
            k, v, rate, keep = call_flow(layout, boxes_of(layout, zs), tuple(x[:, c * C : (c + 1) * C] for x in extras), weights)
            t = transition(layout.kind, flat(k), flat(v), rate.reshape(-1, C), None if keep is None else keep.reshape(-1, C))
            after = flat(bounds[c + 1])
            if start is None or t.Psi is None:
                torch.bmm(flat(bounds[c]), t.Phi, out=after)
            else:
                torch.bmm(start, t.Psi, out=after)
                after.baddbmm_(flat(bounds[c]), t.Phi)
            if outputs:
                kept.append((k, v, rate, keep))
        outs = [None if x[0] is None else by_token(torch.stack(x)) for x in zip(*kept, strict=True)] if outputs else [None] * 4
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


def split(layout: Layout, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensors, Tensors]:
    """Queries, extras, weights."""
    q, e = layout.queries, layout.queries + layout.extras
    return tuple(inputs[:q]), tuple(inputs[q:e]), tuple(inputs[e:])


def own_gradient(
    layout: Layout, size: tuple[int, int], boxes: list[Tensor], inputs: list[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """A token's own error: through the flow and the reads to what it read with, every state constant."""
    xs, extras, weights = split(layout, inputs)
    wanted = [i for i, x in enumerate((*xs, *extras)) if x.requires_grad]
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        stack = past(torch.cat(boxes, -2))
        zs = [(by_chunk(xs[i], size) @ stack[..., a:b, :].mT).movedim(0, 2).flatten(2, 3) for i, a, b, _ in layout.reads]
        outs = [x if x is None else x.transpose(1, 2) for x in call_flow(layout, boxes_of(layout, zs), extras, weights)]
        pairs = [(y, g) for y, g in zip(outs, grads, strict=True) if y is not None and g is not None and y.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs and wanted:
            ys, gs = zip(*pairs, strict=True)
            found = torch.autograd.grad(ys, [inputs[i] for i in wanted], gs, create_graph=create, allow_unused=True)
    result: list[Tensor | None] = [None] * len(inputs)
    for i, g in zip(wanted, found, strict=True):
        result[i] = g
    return result


class Backward:
    """Gradients of S, S_0, queries, extras and weights, in the module's three phases, some chunks together at a time.

    A processor's cache holds the work of one chunk, not of all of them; a GPU wants as many as there are.
    """

    def __init__(
        self,
        layout: Layout,
        size: tuple[int, int],
        S0: Tensor | None,
        bounds: Tensor,
        inputs: list[Tensor],
        grads: Sequence[Tensor | None],
    ) -> None:
        self.layout, self.size, self.S0, self.bounds = layout, size, S0, bounds
        self.xs, self.extras, self.weights = split(layout, inputs)
        self.given = [self._by_chunk(g) for g in grads[:4]]
        self.boxes = [(g, rows) for g, rows in zip(grads[5:], layout.rows.values(), strict=True) if g is not None]
        self.dS = torch.zeros_like(bounds[0]) if grads[4] is None else grads[4].clone()
        self.dS0 = None if S0 is None else torch.zeros_like(S0)
        self.dXs = [bounds.new_empty(size[0], *bounds.shape[1:3], size[1], bounds.shape[-1]) for _ in self.xs]
        self.dextras = [torch.empty_like(x) for x in self.extras]
        self.dweights: list[Any] = [0] * len(self.weights)

    def _by_chunk(self, g: Tensor | None) -> Tensor | None:
        if g is None:
            return None
        return by_chunk(g, self.size) if g.dim() == 4 else by_chunk(g.unsqueeze(-1), self.size).squeeze(-1)

    def run(self) -> list[Tensor | None]:
        N = self.size[0]
        together = 1 if self.bounds.device.type == "cpu" else N
        for last in range(N, 0, -together):
            self._group(max(0, last - together), last)
        return [self.dS, self.dS0, *map(by_token, self.dXs), *self.dextras, *self.dweights]

    def _group(self, first: int, last: int) -> None:
        layout, C = self.layout, self.size[1]
        tokens = slice(first * C, last * C)
        size = (last - first, C)
        # 1: reads, flow and products again
        Xs = [by_chunk(x[:, tokens], size) for x in self.xs]
        chunks = range(last - first)
        flows = [Flowed(layout, C, first + c, [X[c] for X in Xs], self) for c in chunks]
        k, v, rate, keep = (stacked([f.values[i] for f in flows]) for i in range(4))
        assert k is not None and v is not None and rate is not None
        t = transition(layout.kind, k, v, rate, keep)
        # 2: last chunk to first
        BH = self.dS.shape[0] * self.dS.shape[1]
        dzs: list[list[Tensor]] = [[] for _ in layout.reads]
        for c in reversed(chunks):
            at = t if len(chunks) == 1 else of_chunk(t, slice(c * BH, (c + 1) * BH))
            for dz, part in zip(dzs, self._chunk(first + c, at, flows[c], [X[c] for X in Xs]), strict=True):
                dz.insert(0, part)
        # 3: what was read with
        done: set[int] = set()
        for parts, (i, a, b, _) in zip(dzs, layout.reads, strict=True):
            out = self.dXs[i][first:last]
            dz, S = torch.stack(parts), self.bounds[first:last, ..., a:b, :]
            if i in done:
                out += dz @ S
            else:
                torch.matmul(dz, S, out=out)
            done.add(i)

    def _chunk(self, c: int, t: Transition, flow: Flowed, Xs: list[Tensor]) -> list[Tensor]:
        """Take dS from the chunk's end to its beginning; returns the gradients of its reads."""
        S, dS = flat(self.bounds[c]), flat(self.dS)
        dPsi = None
        if self.S0 is not None and self.dS0 is not None and t.Psi is not None:
            dPsi = torch.bmm(flat(self.S0).mT, dS)
            flat(self.dS0).baddbmm_(dS, t.Psi.mT)
        found = gradient(self.layout.kind, t, torch.bmm(S.mT, dS), dPsi)
        dzs = flow.pull(found, [g if g is None else g[c] for g in self.given])
        self.dS = torch.bmm(dS, t.Phi.mT).view_as(self.dS)
        for dz, (i, a, b, _) in zip(dzs, self.layout.reads, strict=True):
            self.dS[..., a:b, :] += dz.mT @ Xs[i]
        for g, (a, b) in self.boxes:
            self.dS[..., a:b, :] += g[c]
        return dzs


def stacked(values: list[Tensor | None]) -> Tensor | None:
    """One matrix stack of every chunk's values, (B, H, C[, K]) each."""
    if values[0] is None:
        return None
    axes = values[0].dim() - 2
    return torch.cat([x.reshape(-1, *x.shape[-axes:]) for x in values if x is not None])


def of_chunk(t: Transition, rows: slice) -> Transition:
    values = [getattr(t, f.name) for f in fields(t)]
    return Transition(*(x[rows] if isinstance(x, Tensor) else x for x in values))


class Flowed:
    """One chunk's reads and flow, recorded, so that its gradient can be taken when the chunk's turn comes."""

    def __init__(self, layout: Layout, C: int, c: int, Xs: list[Tensor], of: Backward) -> None:
        self.of, self.tokens = of, slice(c * C, (c + 1) * C)
        wide = [Xs[i] @ of.bounds[c, ..., a:b, :].mT for i, a, b, _ in layout.reads]
        zs = [z.detach().contiguous().requires_grad_() for z in boxes_of(layout, wide)]
        extras = [x[:, self.tokens].detach().requires_grad_(x.is_floating_point()) for x in of.extras]
        weights = [w.detach().requires_grad_(w.is_floating_point()) for w in of.weights]
        with torch.enable_grad():
            self.outs = call_flow(layout, zs, tuple(extras), tuple(weights))
        self.inputs, self.reads = [*zs, *extras, *weights], len(zs)
        self.values = tuple(x if x is None else x.detach() for x in self.outs)

    def pull(self, found: Sequence[Tensor | None], given: Sequence[Tensor | None]) -> list[Tensor]:
        """Gradients of the reads; those of extras and weights go where they belong."""
        ys, gs = [], []
        for y, g, more in zip(self.outs, found, given, strict=True):
            if y is not None and y.requires_grad and g is not None:
                ys.append(y)
                gs.append(g.view(y.shape) if more is None else g.view(y.shape) + more)
        asked = [x for x in self.inputs if x.requires_grad]
        back = iter(torch.autograd.grad(ys, asked, gs, allow_unused=True))
        full = [next(back) if x.requires_grad else None for x in self.inputs]
        dzs, rest = full[: self.reads], full[self.reads :]
        for d, g in zip(self.of.dextras, rest, strict=False):
            d[:, self.tokens] = 0 if g is None else g
        for i, g in enumerate(rest[len(self.of.extras) :]):
            if g is not None:
                self.of.dweights[i] = self.of.dweights[i] + g
        each = iter(torch.zeros_like(z) if g is None else g for z, g in zip(self.inputs, dzs, strict=False))
        return [torch.cat([next(each) for _ in sizes], -1) for *_, sizes in self.of.layout.reads]
