"""Gradients over a window: each token's write descends the objective of the last c pairs, weighted (Omega, Atlas).

M_t = a_t M_{t-1} [+ (1 - a_t) M_0] + rule(G_t),   G_t = sum_{s = t - c + 1 .. t} w_s grad L(M_{t'}; k_s, v_s)

Source: arXiv 2505.23735, section 3.2; reference, section 2.  The c - 1 pairs before the first token are in the state:

    window.k (B, c-1, H, I)  window.v (B, c-1, H, O)  window.weigh (B, c-1, H)  window.param0 ...  the newest last
    window.count (B,)        how many of them there are; zeros stand in front

Where all of a chunk's gradients are taken at one state, they are taken once for each pair and not for each token that
sees it: with e_s the error of pair s, a layer's writes are

    M_t = a_t ... M_{t'} - sum_s D_ts e_s k_s^T,   D = R W,   W_ts = lr_t w_s for t - c < s <= t, else 0

for R the response of the recurrence to the rows of its tokens (runtime.ops.recurrence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runtime.ops.recurrence import Block, Pace, Rows, Solved

PREFIX = "window."


@dataclass(frozen=True)
class Seen:
    """The pairs of c - 1 + T tokens: those the state remembers, and the call's own.  k, v (B, c-1+T, H, .); weigh
    (B, c-1+T, H), 0 where there is no pair; params: of the objective, by pair where they differ between tokens."""

    k: Tensor
    v: Tensor
    weigh: Tensor | None  # None: 1
    params: tuple[Any, ...]

    def at(self, t: int, c: int, mark: Callable[[Tensor], Tensor]) -> Seen:
        """The window of token t; what is not its own pair is of earlier tokens."""

        def cut(x: Any) -> Any:
            if not by_pair(x, self.k.shape[1]):
                return x
            return torch.cat((mark(x[:, t : t + c - 1]), x[:, t + c - 1 : t + c]), 1)

        return Seen(cut(self.k), cut(self.v), cut(self.weigh), tuple(map(cut, self.params)))


def by_pair(x: Any, pairs: int) -> bool:
    return isinstance(x, Tensor) and x.dim() >= 2 and x.shape[1] == pairs


def seen(
    state: Mapping[str, Tensor], c: int, k: Tensor, v: Tensor, weigh: Tensor | None, params: Sequence[Any]
) -> tuple[Seen, dict[str, Tensor]]:
    """The pairs that a call's tokens see, and what the state remembers after it.

    Where a sequence has no pair yet, the call's first stands with weight 0: a gradient that is taken and not used."""
    B, T = k.shape[:2]
    count = state[PREFIX + "count"]
    slots = torch.arange(c - 1, device=k.device)
    there = slots >= c - 1 - count.to(k.device).unsqueeze(-1)  # (B, c - 1)
    weigh = torch.ones_like(k[..., 0]) if weigh is None else weigh

    def joined(name: str, x: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        before = state[PREFIX + name].to(x.dtype)
        full = torch.where(there[(..., *(None,) * (x.dim() - 2))], before, empty)
        return torch.cat((full, x), 1), torch.cat((before, x), 1)[:, T:]

    found, kept = {}, {}
    for name, x in (("k", k), ("v", v)):
        found[name], kept[PREFIX + name] = joined(name, x, x[:, :1])
    found["weigh"], kept[PREFIX + "weigh"] = joined("weigh", weigh, torch.zeros_like(weigh[:, :1]))
    given, n = [], 0
    for x in params:
        if isinstance(x, Tensor) and x.dim() >= 2:
            x = x.expand(B, T, *x.shape[2:])
            x, kept[f"{PREFIX}param{n}"] = joined(f"param{n}", x, x[:, :1])
            n += 1
        given.append(x)
    kept[PREFIX + "count"] = (count + T).clamp(max=c - 1)
    return Seen(found["k"], found["v"], found["weigh"], tuple(given)), kept


def banded(at: Block, pairs: Seen, rate: Tensor, c: int, mark: Callable[[Tensor], Tensor]) -> Tensor:
    """W of a block's tokens: (B, H, 1, L, L + c - 1); a weight is of an earlier token but on the last diagonal.
    rate (B, H, T)."""
    L = at.length
    lr = rate.narrow(2, at.first, L).unsqueeze(-1)
    weigh = pairs.weigh.narrow(1, at.first, L + c - 1).transpose(1, 2).unsqueeze(-2)
    age = torch.arange(L + c - 1, device=rate.device) - torch.arange(L, device=rate.device).unsqueeze(-1)
    weigh = torch.where(age == c - 1, weigh, mark(weigh))
    return torch.where((age >= 0) & (age < c), lr * weigh, 0).unsqueeze(2)


def over(pace: Pace, W: Tensor) -> Pace:
    """The pace of tokens as the response to the pairs they see."""
    answer, inertia = pace.answer, pace.answer.inertia
    if inertia is not None:
        inertia = replace(inertia, before=inertia.before @ W, after=inertia.after @ W)
    return replace(pace, answer=replace(answer, before=answer.before @ W, after=answer.after @ W, inertia=inertia))


class WindowSolved(Solved):
    """A block whose rows are pairs, more than its tokens: see the module."""

    def __init__(self, rows: Rows, pace: Pace, W: Tensor, *more: Any) -> None:
        """`pace`: that of the block's pairs (`over`)."""
        self.W = W
        super().__init__(rows, pace, *more)

    def read_after_own(self, x: Tensor, own: Rows) -> Tensor:
        """M_t x_t, open along the token's own pair and its rate, retention and momentum; earlier pairs are marked.

        M_t x = a_t M_{t-1} x + (1 - a_t) M_0 x + b_t m_{t-1} x - sum_s W_ts e_s (k_s . x).
        """
        mark, L, y = self.mark, x.shape[-2], self._before_own(x)
        k, e = own.k if own.constant is None else own.constant, own.g
        assert e is not None
        before = self.W.shape[-1] - L
        y = y - ((x @ mark(k).mT) * self.W.tril(before - 1)) @ mark(e)
        mine = self.W.diagonal(before, -2, -1).unsqueeze(-1)
        return y - mine * e[..., -L:, :] * (k[..., -L:, :] * x).sum(-1, keepdim=True)
