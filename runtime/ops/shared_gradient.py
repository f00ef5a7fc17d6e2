"""The explicit gradient of `shared_product`: see the three phases in shared.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from runtime.ops.chunk_reads import along
from runtime.ops.history import past
from runtime.ops.product import Chunk, chunk_of, gradient
from runtime.ops.stack import Layout, Size, at_once, by_chunk, by_token, flat, read, reads, reads_gradient


def own_gradient(
    layout: Layout, size: tuple[int, int], first: Tensor, inputs: list[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """A token's own error: through the flow and the reads to what it read with, every state constant."""
    if all(g is None for g in grads):  # it came by the state alone
        return [None] * len(inputs)
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: the derivative is by these alone, whatever else in the graph one input may have to do with another.
        own = [x.view_as(x) for x in inputs]
        W, xs, extras, weights = layout.split(own)
        wanted = [len(W) + i for i, x in enumerate((*xs, *extras)) if x.requires_grad]
        P = past(first).unbind(0)
        zs = []
        for w, x in zip(W, xs, strict=True):
            chunks = [read(X @ Pc.mT, past(w)) for X, Pc in zip(by_chunk(x, size), P, strict=True)]
            zs.append(torch.cat(chunks, 2))
        outs = [x if x is None else x.movedim(0, 2) for x in layout.flowing(layout.apart(zs), extras, weights)]
        pairs = [
            (y, g) for y, g in zip(outs, grads, strict=True) if y is not None and g is not None and y.requires_grad
        ]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs and wanted:
            ys, gs = zip(*pairs, strict=True)
            found = torch.autograd.grad(ys, [own[i] for i in wanted], gs, create_graph=create, allow_unused=True)
    result: list[Tensor | None] = [None] * len(inputs)
    for i, g in zip(wanted, found, strict=True):
        result[i] = g
    return result


class Backward:
    """Gradients of P, rows read, queries, extras and weights, in the module's three phases, some chunks together."""

    def __init__(
        self,
        layout: Layout,
        size: Size,
        identity: bool,
        first: Tensor,
        Ls: Sequence[Tensor],
        inverses: Sequence[Tensor | None],
        inputs: list[Tensor],
        grads: Sequence[Tensor | None],
    ) -> None:
        self.layout, self.size, self.first, self.Ls, self.inverses = layout, size, first, Ls, inverses
        self.identity = identity  # the first P is [identity, 0], and nobody asks for its gradient
        self.W, self.xs, self.extras, self.weights = layout.split(inputs)
        self.given = [None if g is None else by_chunk(g, size) for g in grads[:4]]
        self.dfirst = grads[4]
        self.dP = torch.zeros_like(first[0]) if grads[5] is None else grads[5]
        self.unread = grads[5] is None and all(g is None for g in grads[:4])  # what the last chunk writes
        K = first.shape[-1]
        self.square = first.shape[-2] == K  # [identity, 0] is the identity
        self.rows, self.first_rows = layout.boxes(self.W), layout.boxes([w[..., :K] for w in self.W])
        self.drows = [[torch.zeros_like(w.flatten(0, 1)) for w in rows] for rows in self.rows]
        N, C = size
        self.dXs = [x.new_empty(N, *first.shape[1:3], C, x.shape[-1]) for x in self.xs]
        self.dextras = [torch.empty_like(x) for x in self.extras]
        self.dweights: list[Any] = [0] * len(self.weights)

    def run(self) -> list[Tensor | None]:
        together = at_once(self.xs[0], self.size[0])
        for last in range(self._after_the_unread(), 0, -together):
            self._group(max(0, last - together), last)
        dW = [torch.cat(rows, 1).view(w.shape) for rows, w in zip(self.drows, self.W, strict=True)]
        dweights = [d if isinstance(d, Tensor) else None for d in self.dweights]
        return [None if self.identity else self.dP, *dW, *map(by_token, self.dXs), *self.dextras, *dweights]

    def _after_the_unread(self) -> int:
        """How many chunks have a gradient: none reaches what the last one reads where nobody reads what it writes."""
        N, C = self.size
        if not self.unread:
            return N
        for dX in self.dXs:
            dX[N - 1].zero_()
        for d in self.dextras:
            d[:, (N - 1) * C :].zero_()
        if self.dfirst is not None:
            self.dP = self.dfirst[N - 1]
        return N - 1

    def _group(self, first: int, last: int) -> None:
        C, n = self.size[1], last - first
        # 1: reads, flow and products again
        Xs = [by_chunk(x[:, first * C : last * C], (n, C)) for x in self.xs]
        flows = [Flowed(first + c, [X[c] for X in Xs], self) for c in range(n)]
        k, v, rate, keep = (stacked([f.values[i] for f in flows]) for i in range(4))
        assert k is not None and v is not None and rate is not None
        known = [x for x in self.inverses[first:last] if x is not None]
        t = chunk_of(self.layout.kind, k, v, rate, keep, along(0, known) if known else None)
        # 2: last chunk to first
        for c, at in reversed(list(enumerate(chunks_of(t, n)))):
            self._chunk(first + c, at, flows[c])

    def _chunk(self, c: int, t: Chunk, flow: Flowed) -> None:
        """Take the gradient of P from the chunk's end to its beginning, and leave those of what was read."""
        identity = self.identity and c == 0
        P, dP = flat(self.first[c]), flat(self.dP)
        found, before = gradient(self.layout.kind, t, None if identity and self.square else P, self.Ls[c], dP)
        dzs = iter(flow.pull(found))
        for X, Y, w, dw, dX in zip(flow.Xs, flow.Ys, flow.rows, self.drows, self.dXs, strict=True):
            if identity:
                dw = [d[..., : P.shape[-1]] for d in dw]
            dY = reads_gradient(list(islice(dzs, len(w))), Y, w, dw)
            if identity:
                dX[c] = dY
            elif before is not None:
                torch.bmm(flat(dY), P, out=flat(dX[c]))
                before.baddbmm_(flat(dY).mT, flat(X))
        if before is not None:
            self.dP = before.view_as(self.dP)
            if self.dfirst is not None:
                self.dP += self.dfirst[c]


def stacked(values: list[Tensor | None]) -> Tensor | None:
    """One matrix stack of every chunk's values, (B, C, H, K) or (B, C, H) each."""
    values = [x if x is None else x.movedim(2, 0) for x in values]
    if values[0] is None:
        return None
    if len(values) == 1:
        return values[0].flatten(0, 1)
    return torch.stack([x for x in values if x is not None]).flatten(0, 2)


def chunks_of(t: Chunk, n: int) -> list[Chunk]:
    """Each of so many chunks by itself."""
    if n == 1:
        return [t]
    values = [getattr(t, f.name) for f in fields(t)]
    apart = [x.chunk(n) if isinstance(x, Tensor) else (x,) * n for x in values]
    return [Chunk(*of_one) for of_one in zip(*apart, strict=True)]


class Flowed:
    """One chunk's reads and flow, recorded, so that its gradient can be taken when the chunk's turn comes."""

    def __init__(self, c: int, Xs: list[Tensor], of: Backward) -> None:
        C = of.size[1]
        self.of, self.c, self.Xs, self.tokens = of, c, Xs, slice(c * C, (c + 1) * C)
        identity = of.identity and c == 0
        H, B = Xs[0].shape[:2]
        P = flat(of.first[c])
        self.Ys = Xs if identity else [torch.bmm(flat(X), P.mT).view(H, B, C, -1) for X in Xs]
        self.rows = of.first_rows if identity else of.rows
        zs = [z for Y, w in zip(self.Ys, self.rows, strict=True) for z in reads(Y, w)]
        zs = [z.permute(1, 2, 0, 3).requires_grad_() for z in zs]
        extras = [x[:, self.tokens].detach().requires_grad_(x.is_floating_point()) for x in of.extras]
        weights = [w.detach().requires_grad_(w.is_floating_point()) for w in of.weights]
        with torch.enable_grad():
            self.outs = of.layout.flowing_by_token(zs, tuple(extras), tuple(weights))
        self.inputs, self.reads = [*zs, *extras, *weights], len(zs)
        self.values = tuple(x if x is None else x.detach() for x in self.outs)

    def pull(self, found: Sequence[Tensor | None]) -> list[Tensor]:
        """Gradients of the reads; those of extras and weights go where they belong."""
        ys, gs, (B, C, H) = [], [], self.outs[0].shape[:3]
        for y, g, given in zip(self.outs, found, self.of.given, strict=True):
            if y is not None and y.requires_grad and g is not None:
                by_head = g.view(H, B, C, *g.shape[2:])
                ys.append(y)
                gs.append((by_head if given is None else by_head + given[self.c]).movedim(0, 2))
        asked = [x for x in self.inputs if x.requires_grad]
        back = iter(torch.autograd.grad(ys, asked, gs, allow_unused=True))
        full = [next(back) if x.requires_grad else None for x in self.inputs]
        dzs, rest = full[: self.reads], full[self.reads :]
        for d, g in zip(self.of.dextras, rest, strict=False):
            d[:, self.tokens] = 0 if g is None else g
        for i, g in enumerate(rest[len(self.of.extras) :]):
            if g is not None:
                self.of.dweights[i] = self.of.dweights[i] + g
        zs = self.inputs[: self.reads]
        dzs = [torch.zeros_like(z) if g is None else g for z, g in zip(zs, dzs, strict=True)]
        return [dz.permute(2, 0, 1, 3) for dz in dzs]
