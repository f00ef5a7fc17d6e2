"""`shared_product`: many self-generated matrix memories with one transition, a chunk at a time.

Where every box writes towards its own value M(v), under one rate, retention and key, a chunk multiplies all of them by
the same matrices (product.py).  So at the first token of every chunk S = W P, with W fixed and P one small product for
all boxes of a head (basis.py).  Keys, values, rates and retention are read from the boxes themselves at the chunk's
first state, so chunks follow one another; within a chunk everything is parallel.

The gradient is explicit and keeps the inputs, the P of every chunk, and what its tokens were written with (L):
    1. chunks in parallel: reads and the flow again
    2. last chunk to first: gradient of the products, of the flow, of the chunk's P
    3. chunks in parallel: gradients of what was read with, and of W

    B batch, T tokens, H heads, K width, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runtime.kernels.shared_product.choose import chosen, readable
from runtime.kernels.shared_product.form import Form, Gates
from runtime.ops import headless
from runtime.ops.basis import PRODUCT, Boxes, Spanned, Stacked, anchored, begins, heads_first, stacked
from runtime.ops.chunk_reads import ReadChunks, along, joint
from runtime.ops.forms import Matrix
from runtime.ops.history import Past, past
from runtime.ops.product import Kind, advance, chunk_of, written
from runtime.ops.recurrence import Rows, Solved, State, pace
from runtime.ops.shared_gradient import Backward, own_gradient
from runtime.ops.stack import Flow, Layout, Tensors, by_chunk, by_token, cut, flat, read, reads
from runtime.ops.still import Still
from runtime.ops.watch import Watch, Watched, squared
from runtime.precision import exact, mixed

Queries = Sequence[tuple[Tensor, Sequence[str]]]
MATRIX = Matrix()


@dataclass(frozen=True)
class Shared:
    """What a call leaves.  k, v (B, T, H, K), rate, keep (B, T, H), or None; state: {box: {"M": ..., "held.M": ...}}
    after the last token."""

    pieces: Sequence[Piece]
    k: Tensor | None
    v: Tensor | None
    rate: Tensor | None
    keep: Tensor | None
    state: dict[str, dict[str, Tensor]]

    def read(self, box: str, q: Tensor) -> Tensor:
        """S_{t'} q_t of one box: q (B, T, H, K) to (B, T, H, rows)."""
        if q.dim() == 3:  # no heads
            return self.read(box, q.unsqueeze(2)).squeeze(2)
        lengths = [count * length for count, length in (piece.size for piece in self.pieces)]
        parts = q.split(lengths, 1) if len(lengths) > 1 else (q,)  # whose gradient would be one more copy
        with exact(q):
            return along(1, [piece.read(box, part) for piece, part in zip(self.pieces, parts, strict=True)])


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
    gates: Gates | None = None,
    name: str = "",
) -> Shared | Still:
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
        does, so only those rows are read
    learn=False: nothing is written or forgotten, yet chunks go on
    outputs=False: k, v, rate and keep are not returned
    final: nobody but a later call reads the states returned.  Boxes that began from their start go on as what it is
        multiplied by, {"product": (B, H, K, K), "held.product": ...}, the same for all
    gates: what `flow` computes, where it is one that a kernel knows; on a GPU whole chunks are then the kernel's
    name: what the boxes belong to, for who watches: a box is the memory <name>.<box>

    Everything is in the type of the states, float32 under autocast.  Gradients are of first order; a token's own error
    (`own_errors`) can be differentiated again.  Raises RuntimeError where any other second derivative is asked for.
    """
    if headless.is_headless(next(iter(states.values())), MATRIX):
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
            "gates": gates,
        }
        return headless.call_shared(shared_product, flow, states, queries, extras, weights, start, **more)
    phase, outputs = phase % chunk, outputs or Watched.by is not None
    if not (learn or outputs or any(PRODUCT in register for register in states.values())):
        return Still.of(states, queries[0][0].shape[1], chunk, phase)
    low = mixed(queries[0][0])
    with exact(queries[0][0]):
        kind = Kind(erase, objective == "l2", kept, start is not None)
        boxes = Running.from_start(states, start, phase) or Running.from_states(states, start, phase)
        asked, readouts = [asked for _, asked in queries], readouts or {}
        layout = Layout(flow, kind, tuple(boxes.rows(names, readouts) for names in asked), len(extras))
        xs, T = [x for x, _ in queries], queries[0][0].shape[1]
        whole = Call(layout, boxes, asked, readouts, xs, list(extras), tuple(weights), (1, T), outputs, low)
        pieces = whole.pieces(chunk, phase, gates, learn)
        boxes = pieces[-1].after
        if (phase + T) % chunk == 0:
            boxes = boxes.held_now()
        streams = [[piece.outs[i] for piece in pieces] for i in range(4)]
        made = Shared(
            pieces,
            *(None if x[0] is None else along(1, x) for x in streams),
            boxes.registers(list(states), chunk > 1, final),
        )
        if Watched.by and name and learn:
            observe(Watched.by, name, made, kind, start)
        return made


@torch.no_grad()
def observe(by: Watch, name: str, made: Shared, kind: Kind, start: Boxes | None) -> None:
    """The surprise of every box: |S_{t'} (c k - v) + (1 - c) S_0 k| |k|, c as in product.py; rates and retention."""
    assert made.k is not None and made.v is not None
    k, v, kept = made.k[:1], made.v[:1], kind.kept and kind.l2 and made.keep is not None
    c = made.keep[:1].exp().unsqueeze(-1) if kept and made.keep is not None else 1.0
    first = replace(made, pieces=[piece.first_sequence() for piece in made.pieces])
    for box in made.state:
        error = first.read(box, c * k - v if kind.l2 else -v)
        if kept and start is not None:
            error = error + (1 - c) * torch.einsum(
                "hok,bthk->btho", start[box] if start[box].dim() == 3 else start[box][0], k
            )
        by.add(f"{name}.{box}", "surprise", (squared(error) * squared(k)).sum(), k.shape[0] * k.shape[1])
        by.speed(f"{name}.{box}", made.rate, made.keep)


# ---- the boxes, as a call goes on


@dataclass(frozen=True)
class Running:
    """All boxes between two pieces of a call: now, and at the first token of the running chunk, in some basis.

    start: where retention leads, in the same basis.  fresh: `now` is the identity.
    """

    basis: Spanned | Stacked
    now: Tensor
    held: Tensor
    start: Tensor | None
    fresh: bool = False

    @classmethod
    def from_start(cls, states: Mapping[str, Boxes], start: Boxes | None, phase: int) -> Running | None:
        """Boxes that are their start times one product, (H, B, K, K); None where they are not."""
        if start is None or not all(begins(states[box], start[box], phase) for box in states):
            return None
        W = {box: heads_first(start[box]) for box in states}
        register, like = next(iter(states.values())), next(iter(W.values()))
        identity = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand(*like.shape[:1], 1, -1, -1)
        if PRODUCT not in register:
            now = identity.expand(-1, len(register["M"]), -1, -1)
            return cls(Spanned(W), now, now, identity, fresh=True)
        now = heads_first(register[PRODUCT])
        return cls(Spanned(W), now, heads_first(register[f"held.{PRODUCT}"]) if phase else now, identity)

    @classmethod
    def from_states(cls, states: Mapping[str, Boxes], start: Boxes | None, phase: int) -> Running:
        """Boxes as they are, their rows stacked."""
        basis, now = stacked({box: heads_first(register["M"]) for box, register in states.items()})
        held = stacked({box: heads_first(r["held.M"]) for box, r in states.items()})[1] if phase else now
        S0 = start and stacked({box: heads_first(start[box]).expand_as(basis.of(now, box)) for box in states})[1]
        return cls(basis, now, held, S0)

    def rows(self, boxes: Sequence[str], readouts: Boxes) -> tuple[int, ...]:
        """How many rows a read of each box has."""
        return tuple(readouts[box].shape[1] if box in readouts else self.basis.height(box) for box in boxes)

    def held_now(self) -> Running:
        return Running(self.basis, self.now, self.now, self.start, self.fresh)

    def few(self, tokens: int) -> bool:
        """Whether writing the rows themselves is less work than forming products and multiplying the rows by them."""
        return isinstance(self.basis, Stacked) and 4 * tokens < self.now.shape[-1]

    def registers(self, boxes: Sequence[str], hold: bool, final: bool) -> dict[str, dict[str, Tensor]]:
        if final and isinstance(self.basis, Spanned):
            parts = {PRODUCT: self.now} | ({f"held.{PRODUCT}": self.held} if hold else {})
            shared = {part: P.transpose(0, 1) for part, P in parts.items()}
            return {box: dict(shared) for box in boxes}
        found = {}
        for box in boxes:
            M = self.basis.of(self.now, box).transpose(0, 1)
            held = M if self.held is self.now else self.basis.of(self.held, box).transpose(0, 1)
            found[box] = {"M": M} | ({"held.M": held} if hold else {})
        return found


@dataclass(frozen=True)
class Piece:
    """(N, C): so many chunks of equal length.  k, v (B, T, H, K), rate, keep (B, T, H); the boxes after them, the basis
    and what is in it at the first token of every chunk, (N, H, B, ...), or at that of all of them, (H, B, ...)."""

    size: tuple[int, int]
    outs: Sequence[Tensor | None]
    after: Running
    basis: Spanned | Stacked
    first: Tensor
    form: Form | None = None  # of the kernels that computed it
    low: bool = False  # by products of bfloat16

    def first_sequence(self) -> Piece:
        """The same of the batch's first sequence alone, for reads."""
        basis = self.basis
        if isinstance(basis, Spanned):
            basis = Spanned({box: W[:, :1] for box, W in basis.W.items()})
        return replace(self, basis=basis, first=self.first[..., :1, :, :])

    def read(self, box: str, q: Tensor) -> Tensor:
        if isinstance(self.basis, Spanned) and self.first.dim() == 5:
            P, W = self.first, self.basis.W[box]
            if self.form and readable(W):
                from runtime.kernels.shared_product.product import KernelRead

                return KernelRead.apply(self.form.chunk, self.low, self.by_chunks, q, P, W)
            return self.by_chunks(q, P, W)
        y = self.basis.reads(q.permute(2, 0, 1, 3), past(self.first), [box], {})
        return y.movedim(0, 2)

    def by_chunks(self, q: Tensor, P: Tensor, W: Tensor) -> Tensor:
        return ReadChunks.apply(self.size, q, P, W)


# ---- pieces


@dataclass(frozen=True)
class Call:
    """One piece's work."""

    layout: Layout
    boxes: Running
    asked: Sequence[Sequence[str]]
    readouts: Boxes
    xs: list[Tensor]
    extras: list[Tensor]
    weights: Tensors
    size: tuple[int, int]
    outputs: bool
    low: bool

    def pieces(self, chunk: int, phase: int, gates: Gates | None, learn: bool) -> list[Piece]:
        """Cut where chunks begin; every piece begins from the boxes that the one before leaves."""
        boxes, found, t = self.boxes, list[Piece](), 0
        for count, length in cut(self.size[1], chunk, phase):
            tokens = slice(t, t + count * length)
            inside = bool(phase) and t == 0
            if not inside:
                boxes = boxes.held_now()
            xs, extras = [x[:, tokens] for x in self.xs], [x[:, tokens] for x in self.extras]
            call = replace(self, boxes=boxes, xs=xs, extras=extras, size=(count, length))
            by_row = inside or not learn or (count == 1 and boxes.few(length))
            found.append(call.plain(learn) if by_row else call.products(gates, chunk))
            boxes, t = found[-1].after, tokens.stop
        return found

    def products(self, gates: Gates | None, chunk: int) -> Piece:
        """Whole chunks, or the beginning of one, with an explicit gradient; by kernels where they can."""
        boxes, stack = self.boxes, self.boxes.basis
        if isinstance(stack, Spanned):
            span, first = stack, None if boxes.fresh else boxes.now
        else:
            span, first = anchored(stack, boxes.now, boxes.start), None
        W = [span.rows(names, self.readouts) for names in self.asked]
        form = chosen(gates, self.layout, chunk, self.asked, W[0], self.xs[0], self.low)
        if form and gates:
            *outs, Ps, P = self.launched(form, gates, first, W[0])
        else:
            *outs, Ps, P = Product.apply(
                self.layout, self.size, self.outputs, first, *W, *self.xs, *self.extras, *self.weights
            )
        if span is stack:
            after = Running(span, P, boxes.held, boxes.start)
        else:
            after = Running(stack, torch.cat([span.of(P, box) for box in stack.at], -2), boxes.held, boxes.start)
        return Piece(self.size, outs, after, span, Ps, form, self.low)

    def launched(self, form: Form, gates: Gates, first: Tensor | None, W: Tensor) -> list[Tensor | None]:
        """What `Product` returns, by kernels.

        Gates that are given are what the flow says, whatever the reads; streams that somebody wants are made again.
        """
        from runtime.kernels.shared_product.product import KernelProduct

        layout, (x,), given = self.layout, self.xs, list[Tensor | None]([None, None])
        if gates.rate_form == "given" or gates.keep_form == "given":
            blank = x.new_zeros(()).expand(x.shape[2], x.shape[0], x.shape[1], sum(layout.reads[0]))
            _, _, *said = layout.flowing(layout.apart([blank]), tuple(self.extras), self.weights)
            forms = (gates.rate_form, gates.keep_form)
            given = [
                g.movedim(0, 2) if g is not None and f == "given" else None for g, f in zip(said, forms, strict=True)
            ]
        scales = [float(s) for s in (gates.rate_scale, gates.rate_shift, gates.keep_shift)]
        Ps, P = KernelProduct.apply(form, scales, self.low, first, W, x, *given)
        outs: list[Tensor | None] = [None] * 4
        if self.outputs:
            Y = by_chunk(x, self.size) @ past(Ps).mT
            z = read(joint(Y), past(W))
            outs = [
                y if y is None else y.movedim(0, 2)
                for y in layout.flowing(layout.apart([z]), tuple(self.extras), self.weights)
            ]
        return [*outs, Ps, P]

    def plain(self, learn: bool) -> Piece:
        """The rest of a running chunk, or tokens that write nothing, by ordinary differentiable operations."""
        layout, boxes, kind = self.layout, self.boxes, self.layout.kind
        mark = past(boxes.held)
        zs = [
            boxes.basis.reads(x.permute(2, 0, 1, 3), mark, names, self.readouts)
            for x, names in zip(self.xs, self.asked, strict=True)
        ]
        k, v, rate, keep = layout.flowing(layout.apart(zs), tuple(self.extras), self.weights)
        now = boxes.now
        if learn:
            speed = pace((torch.zeros_like(rate) if keep is None else keep).unsqueeze(2), None)
            k5, v5 = k.unsqueeze(2), v.unsqueeze(2)
            h, g = -v5, None
            if kind.l2:
                a = speed.keep.exp().unsqueeze(-1)
                h = (a * k5 if kind.kept else k5) - v5
                if kind.kept and boxes.start is not None:
                    g = (1 - a) * (k5 @ boxes.start.unsqueeze(2).mT)
            rows = Rows(k5, rate.unsqueeze(2), j=k5 if kind.erase else None, h=h, g=g)
            now = Solved(rows, speed, State(now, boxes.held, None, boxes.start), self.size[1], True).now
        outs = [x if x is None else x.movedim(0, 2) for x in (k, v, rate, keep)] if self.outputs else [None] * 4
        after = Running(boxes.basis, now, boxes.held, boxes.start, boxes.fresh and not learn)
        return Piece(self.size, outs, after, boxes.basis, boxes.held)


class Product(torch.autograd.Function):
    """Whole chunks.  apply(layout, (N, C), outputs, P (H, B, I, K) or None, *rows read, *queries, *extras, *weights)
    -> k, v (B, T, H, K), rate, keep (B, T, H) where `outputs`; P at the first token of every chunk (N, H, B, I, K) and
    after the last.  None: P is [identity, 0]."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, size: tuple[int, int], outputs: bool, P: Tensor | None, *inputs: Tensor
    ) -> Any:
        W, xs, extras, weights = layout.split(inputs)
        (N, C), K = size, xs[0].shape[-1]
        Xs = [by_chunk(x, size) for x in xs]
        H, B = Xs[0].shape[1:3]
        Ps = W[0].new_empty(N + 1, H, B, W[0].shape[-1], K)
        if P is None:
            Ps[0] = torch.eye(W[0].shape[-1], K, dtype=Ps.dtype, device=Ps.device)
        else:
            Ps[0] = P
        Ls, inverses = [], []
        square = W[0].shape[-1] == K  # [identity, 0] is the identity
        rows, first_rows = layout.boxes(W), layout.boxes([w[..., :K] for w in W])
        kept, by_state = [], Ps.flatten(1, 2).unbind()
        for c in range(N):
            identity = P is None and c == 0
            Ys = [X[c] if identity else torch.bmm(flat(X[c]), by_state[c].mT).view(H, B, C, -1) for X in Xs]
            zs = [z for Y, w in zip(Ys, first_rows if identity else rows, strict=True) for z in reads(Y, w)]
            tokens = slice(c * C, (c + 1) * C)
            k, v, rate, keep = layout.flowing(zs, tuple(x[:, tokens] for x in extras), weights)
            keep_GC = None if keep is None else keep.reshape(-1, C)
            chunk = chunk_of(layout.kind, flat(k), flat(v), rate.reshape(-1, C), keep_GC)
            P_c = None if identity and square else by_state[c]
            Ls.append(written(chunk, P_c))
            advance(chunk, P_c, Ls[c], by_state[c + 1])
            inverses.append(chunk.inverses)
            if outputs:
                kept.append((k, v, rate, keep))
        outs = [None if x[0] is None else by_token(torch.stack(x)) for x in zip(*kept, strict=True)] or [None] * 4
        first = Ps[:N]
        ctx.layout, ctx.size, ctx.identity = layout, size, P is None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(first, *Ls, *inverses, *inputs)
        return (*outs, first, Ps[N].clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if all(g is None for g in (grads[:4] if Past.closed else grads)):  # a token's own error comes by reads alone
            return (None,) * len(ctx.needs_input_grad)
        first, *kept = ctx.saved_tensors
        N = ctx.size[0]
        Ls, inverses, inputs = kept[:N], kept[N : 2 * N], kept[2 * N :]
        with exact(first):
            if Past.closed:
                return (None,) * 4 + tuple(own_gradient(ctx.layout, ctx.size, first, inputs, grads[:4]))
            if torch.is_grad_enabled():
                raise RuntimeError("shared_product has no second derivative outside own_errors; use memory() for one")
            return (
                None,
                None,
                None,
                *Backward(ctx.layout, ctx.size, ctx.identity, first, Ls, inverses, inputs, grads).run(),
            )
