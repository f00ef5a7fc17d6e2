"""The explicit gradient of `shared_product`: see the three phases in shared.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.history import past
from runtime.ops.product import Transition, gradient, transition
from runtime.ops.stack import Layout, boxes_of, by_chunk, by_token, call_flow, flat, split


def own_gradient(
    layout: Layout, size: tuple[int, int], boxes: list[Tensor], inputs: list[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """A token's own error: through the flow and the reads to what it read with, every state constant."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: the derivative is by these alone, whatever else in the graph one input may have to do with another.
        own = [x.view_as(x) for x in inputs]
        xs, extras, weights = split(layout, own)
        wanted = [i for i, x in enumerate((*xs, *extras)) if x.requires_grad]
        stack = past(torch.cat(boxes, -2))
        zs = [
            (by_chunk(xs[i], size) @ stack[..., a:b, :].mT).movedim(0, 2).flatten(2, 3) for i, a, b, _ in layout.reads
        ]
        outs = [x if x is None else x.transpose(1, 2) for x in call_flow(layout, boxes_of(layout, zs), extras, weights)]
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
        self.rows = active(layout, grads)  # of the stack; nothing is asked of those below
        self.all_rows = bounds.shape[-2]
        self.layout, self.size, self.bounds = layout, size, bounds[..., : self.rows, :]
        self.S0 = None if S0 is None else S0[..., : self.rows, :]
        self.xs, self.extras, self.weights = split(layout, inputs)
        self.given = [self._by_chunk(g) for g in grads[:4]]
        self.boxes = [(g, rows) for g, rows in zip(grads[5:], layout.rows.values(), strict=True) if g is not None]
        first = self.bounds[0]
        self.dS = first.new_zeros(first.shape) if grads[4] is None else grads[4].clone()
        self.dS0 = None if S0 is None else first.new_zeros(first.shape)
        self.dXs = [bounds.new_empty(size[0], *bounds.shape[1:3], size[1], bounds.shape[-1]) for _ in self.xs]
        self.dextras = [torch.empty_like(x) for x in self.extras]
        self.dweights: list[Any] = [0] * len(self.weights)

    def _by_chunk(self, g: Tensor | None) -> Tensor | None:
        if g is None:
            return None
        return by_chunk(g, self.size) if g.dim() == 4 else by_chunk(g.unsqueeze(-1), self.size).squeeze(-1)

    @staticmethod
    def together(device: torch.device, N: int) -> int:
        return 1 if device.type == "cpu" else N

    def run(self) -> list[Tensor | None]:
        N = self.size[0]
        together = self.together(self.bounds.device, N)
        for last in range(N, 0, -together):
            self._group(max(0, last - together), last)
        spare = (0, 0, 0, self.all_rows - self.rows)
        dS, dS0 = (x if x is None or not spare[3] else F.pad(x, spare) for x in (self.dS, self.dS0))
        return [dS, dS0, *map(by_token, self.dXs), *self.dextras, *self.dweights]

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


def active(layout: Layout, grads: Sequence[Tensor | None]) -> int:
    """Rows of the stack, from the first, that a gradient can reach: those read in the loop, and boxes whose states
    are used."""
    used = [b for g, (_, b) in zip(grads[5:], layout.rows.values(), strict=True) if g is not None]
    return max([b for _, _, b, _ in layout.reads] + used) if grads[4] is None else layout.rows[[*layout.rows][-1]][1]


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
