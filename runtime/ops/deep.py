"""One block of tokens written to a memory of several layers, and its gradient by hand where that saves passes.

Every layer of a form moves by the rows of one block as `runtime.ops.recurrence` has it,

    W' = c W + (1 - c) S + U^T diag(r) X,     (I + N) U = -diag(e) (p X W^T + (1 - p) X S^T + E),
    N = diag(e) (X X^T * D)                   (without erase: U = -diag(e) E; without a start: no S)

with X the layer's inputs, E the errors at its outputs, e the rates, S the start, and p, c, r, D of the block's log
retention.  All but W' is as small as the tokens.  Autograd would make the gradient of W once for every product with it,
and one more for every term of W'; here the factors of those products are collected, and

    dW = c dW' + sum over products of (error at the output)^T (input),     dS likewise,     dc = <dW', W - S>

is one product of all of them.  The products are kept; what else is as small as the tokens is computed again in the
backward pass, by autograd.

    G batch x heads, C tokens of the block, I width in, O width out.   k (G, C, I), v (G, C, O), rate, keep (G, C)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.forms import Layer, Tap
from runtime.ops.naive import Write, objective_slope, parts
from runtime.ops.recurrence import FLOOR
from runtime.ops.rows import Products
from runtime.precision import exact

Parts = Mapping[str, Tensor]
Factors = list[tuple[Tensor, Tensor]]  # of a weight's gradient: (G, n, O), (G, n, I)


@dataclass(frozen=True)
class Weight:
    """A weight as products meet it, and the factors of its gradient; `gather` is None where autograd records it all.

    made: its products in their order: where they are put, or, with `gather`, whence they are taken."""

    value: Tensor
    gather: Factors | None = None
    made: list[Tensor] | None = None

    def forth(self, x: Tensor) -> Tensor:
        """x W^T."""
        return self._product(x, back=False)

    def back(self, e: Tensor) -> Tensor:
        """e W."""
        return self._product(e, back=True)

    def _product(self, x: Tensor, back: bool) -> Tensor:
        if self.gather is not None and self.made is not None:
            return Gathered.apply(x, self.value, back, self.gather, self.made.pop(0))
        y = torch.bmm(x, self.value if back else self.value.mT)
        if self.made is not None:
            self.made.append(y)
        return y

    def gradient(self, upon: Tensor | None) -> Tensor | None:
        """`upon` and the sum of its products' gradients."""
        if not self.gather:
            return upon
        e, a = (torch.cat(xs, 1) if len(xs) > 1 else xs[0] for xs in zip(*self.gather, strict=True))
        return torch.bmm(e.mT, a) if upon is None else upon.baddbmm_(e.mT, a)


class Gathered(torch.autograd.Function):
    """x W^T, or x W where `back`, which is `known`: the factors of the weight's gradient are put aside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, back: bool, gather: Factors, known: Tensor) -> Tensor:
        ctx.save_for_backward(x, W)
        ctx.back, ctx.gather = back, gather
        return known.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, W = ctx.saved_tensors
        own = x.detach()  # the list is part of the graph, and must not hold on to it
        ctx.gather.append((own, g) if ctx.back else (g, own))
        return torch.bmm(g, W.mT if ctx.back else W), None, None, None, None


@dataclass(frozen=True)
class Decayed:
    """What log retention leaves within a block: share before each token = p (G, C, 1), before = D (G, C, C), left = r
    (G, C, 1) of each token's row and kept = c (G, 1, 1) of the state at the end."""

    share: Tensor
    before: Tensor
    left: Tensor
    kept: Tensor

    @staticmethod
    def by(keep: Tensor) -> Decayed:
        """keep (G, C).  Every exponent is at most 0.  Few tokens are summed up to each by a mask, whose gradient is one
        too: that of a running sum turns it around twice."""
        C = keep.shape[-1]
        after = (keep.clamp(min=FLOOR).unsqueeze(-2) * keep.new_ones(C, C).tril()).sum(-1)
        share, last = F.pad(after[:, :-1], (1, 0)).unsqueeze(-1), after[:, -1:, None]
        before = (share - after.unsqueeze(-2)).tril(-1).exp().tril(-1)
        return Decayed(share.exp(), before, (last - after.unsqueeze(-1)).exp(), last.exp())


@dataclass(frozen=True)
class Moved:
    """What a block does to every matrix, as small as its tokens: W' = kept W + (1 - kept) S + U^T X.  biases: after it.

    taps, errors: of every layer at the tokens' own pairs."""

    kept: Tensor | None
    rows: dict[str, tuple[Tensor, Tensor]]  # U, diag(r) X
    biases: dict[str, Tensor]
    taps: Sequence[Tap]
    errors: Sequence[Tensor]


@dataclass(frozen=True)
class State:
    """The weights of a memory: at its gradient, now, and where retention leads; biases (G, O, 1) beside them."""

    held: Mapping[str, Weight]
    now: Mapping[str, Weight]
    start: Mapping[str, Weight]


def moved(
    write: Write, params: Sequence[Any], s: State, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor | None
) -> Moved:
    form = write.form
    taps: Sequence[Tap]
    asked: dict[str, Tensor] = {}

    def layer(part: Layer, x: Tensor) -> Tensor:
        asked[part.weight] = z = s.held[part.weight].forth(x)
        return z + s.held[part.bias].value.mT if part.bias else z

    if write.self_values:  # the tokens twice: what is read for their targets, then for their keys
        C = k.shape[1]
        both, all_taps = form.run(layer, torch.cat((v, k), 1))
        target, y = both.split(C, 1)
        taps = [tuple(x[:, C:] for x in tap) for tap in all_taps]
        for part, (_, z, *_) in zip(form.layers, taps, strict=True):
            asked[part.weight] = asked[part.weight][:, C:] if part.bias else z
    else:
        target, (y, taps) = v, form.run(layer, k)
    u = objective_slope(write.objective, y, k, target, params)
    errors = form.pull(lambda part, e: s.held[part.weight].back(e), taps, u)
    d = None if keep is None else Decayed.by(keep)
    kept, left = (None, None) if d is None else (d.kept, d.left)
    e, same = rate.unsqueeze(-1), s.now is s.held
    minus = -e
    rows, biases = {}, {}
    for part, (x, *_), error in zip(form.layers, taps, errors, strict=True):
        if not write.erase or part.vector:
            U = minus * error
        else:
            z = asked[part.weight] if same else s.now[part.weight].forth(x)
            gram = torch.bmm(x, x.mT)
            if d is not None:
                z = torch.lerp(s.start[part.weight].forth(x), z, d.share) if s.start else d.share * z
            N = e * (gram * d.before if d is not None else gram.tril(-1))
            U = torch.linalg.solve_triangular(N, minus * (z + error), upper=False, unitriangular=True)
        rows[part.weight] = U, x if left is None else left * x
        if part.bias:
            added = (minus * error).mT @ (torch.ones_like(e) if left is None else left)
            biases[part.bias] = blend(s.now[part.bias].value, s.start.get(part.bias), kept) + added
    return Moved(kept, rows, biases, taps, errors)


def blend(W: Tensor, start: Weight | None, kept: Tensor | None) -> Tensor:
    """kept W [+ (1 - kept) S]."""
    if kept is None:
        return W
    return kept * W if start is None else torch.lerp(start.value, W, kept)


@dataclass(frozen=True)
class Task:
    """What is written and how its tensors lie in a row: k, v, rate[, keep], now[, held][, start].

    seen: told the taps and errors, where somebody watches.  sums: who sums the gradients of a part's start, which all
    of `batch` sequences share, instead of autograd."""

    write: Write
    params: tuple[Any, ...]
    kept: bool
    outside: bool
    to_start: bool
    seen: Callable[[Sequence[Tap], Sequence[Tensor]], None] | None
    batch: int = 1
    sums: Mapping[str, Products] = field(default_factory=dict)

    def sum_start(self, name: str, weight: Weight, dW: Tensor | None, kept: Tensor | None) -> None:
        """The gradient of a shared start, sum over sequences of (1 - kept) dW' + its products, to who sums it."""
        owner, B = self.sums[name], self.batch
        for e, a in weight.gather or ():
            owner.add(*(x if B == 1 else x.unflatten(0, (B, -1)).transpose(0, 1).flatten(1, 2) for x in (e, a)))
        if dW is not None and kept is not None:
            owner.add_share(dW.unflatten(0, (B, -1)), (1 - kept).unflatten(0, (B, -1)))

    def state(self, tensors: Sequence[Tensor], gather: bool, made: list[Tensor] | None) -> State:
        names = [name for name, _ in parts(self.write.form)]
        vectors = {name for name, bias in parts(self.write.form) if bias}
        rest = list(tensors[4 if self.kept else 3 :])

        def take() -> dict[str, Weight]:
            return {
                name: Weight(rest.pop(0)) if name in vectors else Weight(rest.pop(0), [] if gather else None, made)
                for name in names
            }

        now = take()
        return State(now=now, held=take() if self.outside else now, start=take() if self.to_start else {})

    def move(
        self, tensors: Sequence[Tensor], gather: bool = False, made: list[Tensor] | None = None
    ) -> tuple[State, Moved]:
        """made: the products with matrices; `gather` takes them from there."""
        k, v, rate, *rest = tensors
        s = self.state(tensors, gather, made)
        return s, moved(self.write, self.params, s, k, v, rate, rest[0] if self.kept else None)

    def whole(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The parts after the block, by ordinary operations."""
        s, m = self.move(tensors)
        after = {}
        for name, (U, x) in m.rows.items():
            after[name] = blend(s.now[name].value, s.start.get(name), m.kept) + U.mT @ x
        return [(after | m.biases)[name] for name in s.now]


class Written(torch.autograd.Function):
    """apply(task, k, v, rate[, keep], *now[, *held][, *start]) -> the parts after the block, in the forms' order."""

    @staticmethod
    def forward(ctx: Any, task: Task, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.task = task
        made: list[Tensor] = []
        s, m = task.move(tensors, made=made)
        ctx.save_for_backward(*tensors, *made)
        ctx.set_materialize_grads(False)
        if task.seen is not None:
            task.seen(m.taps, m.errors)
        after = {}
        for name, (U, x) in m.rows.items():
            W = blend(s.now[name].value, s.start.get(name), m.kept)
            after[name] = torch.baddbmm(W, U.mT, x) if m.kept is None else W.baddbmm_(U.mT, x)
        return tuple((after | m.biases)[name] for name in s.now)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        task, count = ctx.task, len(ctx.needs_input_grad) - 1
        tensors, made = ctx.saved_tensors[:count], list(ctx.saved_tensors[count:])
        given = [(i, g) for i, g in enumerate(grads) if g is not None]
        if not given:  # a token's own error does not pass through what is written
            return (None,) * (1 + len(tensors))
        needed = ctx.needs_input_grad[1:]
        with exact(given[0][1]):
            if torch.is_grad_enabled():
                return None, *ordinary(task, tensors, needed, given)
            return None, *pulled(task, tensors, made, needed, dict(given))


def ordinary(
    task: Task, tensors: Sequence[Tensor], needed: Sequence[bool], given: Sequence[tuple[int, Tensor]]
) -> list[Tensor | None]:
    """A gradient that is itself differentiated: by autograd."""
    own = [x.view_as(x) for x in tensors]  # aliases: by these alone
    out = task.whole(own)
    wanted = [i for i, want in enumerate(needed) if want]
    outs, gs = [out[i] for i, _ in given], [g for _, g in given]
    found = torch.autograd.grad(outs, [own[i] for i in wanted], gs, create_graph=True, allow_unused=True)
    grads: list[Tensor | None] = [None] * len(tensors)
    for i, g in zip(wanted, found, strict=True):
        grads[i] = g
    return grads


def pulled(
    task: Task, tensors: Sequence[Tensor], made: list[Tensor], needed: Sequence[bool], given: Mapping[int, Tensor]
) -> list[Tensor | None]:
    """Gradients of all tensors: those as small as the tokens by autograd, those of matrices from their factors."""
    form = parts(task.write.form)
    names, vectors = [name for name, _ in form], {name for name, bias in form if bias}
    small = 4 if task.kept else 3
    groups = ["now", *["held"] * task.outside, *["start"] * task.to_start]
    places = [(group, name) for group in groups for name in names]
    with torch.enable_grad():
        own = [x.detach() for x in tensors]
        leaves = [i for i in range(len(own)) if i < small or places[i - small][1] in vectors]
        for i in leaves:
            own[i].requires_grad_()
        s, m = task.move(own, gather=True, made=made)
    outs, gs = list[Tensor](), list[Tensor]()
    dkept: Tensor | None = None
    after = {name: given[i] for i, name in enumerate(names) if i in given}
    for name, (U, x) in m.rows.items():
        if name not in after:
            continue
        dW = after[name]
        outs += [U, x]
        gs += [torch.bmm(x.detach(), dW.mT), torch.bmm(U.detach(), dW)]
        if m.kept is not None:
            W = s.now[name].value
            along = dots(dW, W - s.start[name].value if s.start else W)
            dkept = along if dkept is None else dkept + along
    if dkept is not None and m.kept is not None:
        outs.append(m.kept)
        gs.append(dkept)
    for name, b in m.biases.items():
        if name in after:
            outs.append(b)
            gs.append(after[name])
    found = torch.autograd.grad(outs, [own[i] for i in leaves], gs, allow_unused=True)
    grads: list[Tensor | None] = [None] * len(tensors)
    for i, g in zip(leaves, found, strict=True):
        grads[i] = g
    kept = None if m.kept is None else m.kept.detach()
    for i, (group, name) in enumerate(places, small):
        if name in vectors or not needed[i]:
            continue
        weight: Weight = getattr(s, group)[name]
        if group == "start" and name in task.sums:
            task.sum_start(name, weight, after.get(name), kept)
            continue
        grads[i] = weight.gradient(share_of(group, after.get(name), kept))
    return grads


def share_of(group: str, dW: Tensor | None, kept: Tensor | None) -> Tensor | None:
    """What of a gradient goes on to the state before, or to the start: a tensor that may be changed."""
    if dW is None or group == "held":
        return None
    if kept is None:
        return dW.clone() if group == "now" else None
    return dW * (kept if group == "now" else 1 - kept)


def dots(x: Tensor, y: Tensor) -> Tensor:
    """<x, y> of each of G matrices, (G, 1, 1).  As products of a row and a column it takes 2.5 times as long."""
    return (x * y).sum((-2, -1), keepdim=True)
