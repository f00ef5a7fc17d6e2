"""What a block of tokens asks of every layer of a memory, for `runtime.ops.memories`: rows of its linear recurrence.

affine_rows    a matrix under dot or l2: the error is affine in the state at the chunk's first token
factor_rows    any form and objective: errors by hand-written factors at that state, of the tokens' own pairs or of
               every pair that their windows see
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from runtime.ops import naive
from runtime.ops.forms import Form, Layer, Tap
from runtime.ops.history import past
from runtime.ops.recurrence import Block, Pace, Rows, Solved, State, log_share, pace


def head_major(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous()


class Tokens:
    """The call's token streams, head-major, cut by block; the pace of a block is made once for all parts."""

    def __init__(self, call: naive.Call) -> None:
        self.k, self.v, self.rate = head_major(call.k), head_major(call.v), head_major(call.rate)
        keep = torch.zeros_like(self.rate) if call.keep is None else head_major(call.keep)
        self.keep = keep
        self.point = keep if call.point is None else head_major(call.point)
        self.inertia = None if call.beta is None else log_share(head_major(call.beta))

    def pace(self, at: Block) -> Pace:
        return pace(at.cut(self.keep), None if self.inertia is None else at.cut(self.inertia))


def affine_rows(
    call: naive.Call, tokens: Tokens, at: Block, registers: dict[str, State], given: dict[str, Tensor] | None
) -> tuple[dict[str, Rows], Callable[[dict[str, Solved]], dict[str, Tensor]]]:
    """Rows of a matrix under dot or l2: the error is M_{t'} h + g, with h = k - v (l2, its own value), k, -v or
    nothing."""
    write, start = call.write, registers["M"].start
    k, v, lr = at.cut(tokens.k), at.cut(tokens.v), at.cut(tokens.rate)
    j = k if write.erase else None
    if given is not None:
        return {"M": Rows(k, lr, j=j, g=given["M"], constant=k.detach())}, lambda solved: given
    h, g = None, None
    if write.objective == "l2":
        h = k
        if write.kept:
            a = at.cut(tokens.point).exp().unsqueeze(-1)
            h = a * k
            if start is not None:
                g = (1 - a) * (k @ start.unsqueeze(2).mT)
    if write.self_values:
        h = -v if h is None else h - v
    else:
        g = -v if g is None else g - v

    def errors(solved: dict[str, Solved]) -> dict[str, Tensor]:
        known = 0 if g is None else g
        return {"M": known if h is None else solved["M"].read_held(h) + known}

    return {"M": Rows(k, lr, j=j, h=h, g=g)}, errors


def factor_rows(
    call: naive.Call, tokens: Tokens, at: Block, registers: dict[str, State], given: dict[str, Tensor] | None
) -> tuple[dict[str, Rows], dict[str, Tensor]]:
    """Rows of every layer of any form, from hand-written factors of the gradient at the chunk's first state."""
    write, form = call.write, call.write.form
    mark = past if call.own else naive.unmarked
    count = at.tokens + write.window - 1
    if call.seen is None:
        k, v, lr = (at.cut(x).squeeze(2) for x in (tokens.k, tokens.v, tokens.rate))
    else:  # of every pair that one of these tokens sees; their rates are the window's
        k, v = (x.narrow(1, at.first, count).transpose(1, 2) for x in (call.seen.k, call.seen.v))
        lr, call = torch.ones_like(k[..., 0]), replace(call, params=call.seen.params)
    held = {part: mark(s.held) for part, s in registers.items()}
    a = at.cut(tokens.point).squeeze(2).exp().unsqueeze(-1) if write.kept else None

    def mixed(part: str, take: Callable[[Tensor], Tensor]) -> Tensor:
        y, start = take(held[part]), registers[part].start
        if a is None:
            return y
        return a * y if start is None else a * y + (1 - a) * take(start)

    def layer(part: Layer, x: Tensor) -> Tensor:
        z = mixed(part.weight, lambda W: x @ W.mT)
        return z + mixed(part.bias, lambda b: b.mT) if part.bias else z

    p, taps = form.run(layer, k)
    if given is None:
        if write.self_values:
            v = form.run(lambda part, x: plain_layer(held, part, x), v)[0]
        u = naive.slope(call, p, k, v, at.first, count, heads=1)
        errors = form.pull(lambda part, e: mixed(part.weight, lambda W: e @ W), taps, u)
        found = {part.weight: e for part, e in zip(form.layers, errors, strict=True)}
    else:
        found = given
    return layer_rows(form, taps, found, lr, write.erase, given is not None), found


def plain_layer(W: dict[str, Tensor], part: Layer, x: Tensor) -> Tensor:
    z = x @ W[part.weight].mT
    return z + W[part.bias].mT if part.bias else z


def layer_rows(
    form: Form, taps: Sequence[Tap], errors: dict[str, Tensor], lr: Tensor, erase: bool, constant: bool
) -> dict[str, Rows]:
    """Each layer's write: its input is the key, the error at its output the known row; a bias has key 1 and is not
    erased."""
    rows = {}
    for part, (x, *_) in zip(form.layers, taps, strict=True):
        x, e, r = x.unsqueeze(2), errors[part.weight].unsqueeze(2), lr.unsqueeze(2)
        erases = erase and not part.vector
        rows[part.weight] = Rows(x, r, j=x if erases else None, g=e, constant=x.detach() if constant else None)
        if part.bias:
            rows[part.bias] = Rows(torch.ones_like(x[..., :1]), r, g=e)
    return rows
