"""The linear recurrence under every memory whose state moves by decay and rank-one terms, a block of tokens at a time.

    M_t = a_t M_{t-1} + (1 - a_t) M_0 + m_t,    m_t = b_t m_{t-1} - u_t k_t^T     (without momentum b = 0; no M_0: none)
    u_t = lr_t (M_{t-1} j_t + M_{t'} h_t + g_t)                                   (t': the first token of t's chunk)

Rows j (what the running state is read with: erase), h (what the chunk's first state is read with: an affine gradient)
and g (known beforehand) cover every linear memory; a layer of a deep one is j, g.  Between the tokens of a block
M_{t-1} is the block's first state, decayed, minus the rows u_s k_s^T answered by a response R_ts (with momentum the
product of the two decays), so a block's rows solve one unit lower triangular system (I + N) U = right, where
N_ts = lr_t (j_t . k_s) R_ts + ...  Derivation: chunked delta rules, arXiv 2406.06484, section 3.  Log space only;
every exponent is at most 0.

Tensors are head-major: (B, H, n, L, width), n blocks of L tokens; states (B, H, O, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runtime.ops.history import past
from runtime.ops.rows import Products, by_weight


@dataclass(frozen=True, slots=True)
class Block:
    """`count` blocks of `length` tokens from token `first` on.

    `outside`: the chunk's first state was made before these tokens (count is 1); else each block begins with one."""

    first: int
    count: int
    length: int
    outside: bool

    def cut(self, x: Tensor) -> Tensor:
        """The tokens of these blocks: (B, H, T, ...) -> (B, H, n, L, ...)."""
        part = x if self.first == 0 and self.count * self.length == x.shape[2] else x.narrow(2, self.first, self.tokens)
        return part.unflatten(2, (self.count, self.length))

    @property
    def tokens(self) -> int:
        return self.count * self.length


def plan(T: int, chunk: int, phase: int, block: int) -> list[Block]:
    """Cut T tokens, the first of which is token `phase` of its chunk, into blocks of at most `block` tokens.

    A block is whole chunks or a part of one; an unfinished chunk at the end is a block of its own.
    """
    blocks: list[Block] = []
    t = 0
    if phase % chunk:
        head = min(T, chunk - phase % chunk)
        blocks += [Block(i, 1, min(block, head - i), True) for i in range(0, head, block)]
        t = head
    if chunk > block:
        for i in range(t, T, chunk):
            end = min(T, i + chunk)
            blocks += [Block(j, 1, min(block, end - j), j > i) for j in range(i, end, block)]
        return blocks
    for length in (block // chunk * chunk, (T - t) % (block // chunk * chunk) // chunk * chunk, (T - t) % chunk):
        count = (T - t) // length if length else 0
        if count:
            blocks.append(Block(t, count, length, False))
            t += count * length
    return blocks


@dataclass(frozen=True)
class Decay:
    """Products of a decay within a block: what is left of its beginning (B, H, n, L), and of each token's row (B, H,
    n, L, L)."""

    share_before: Tensor
    share_after: Tensor
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Response:
    """How the state before and after each token answers the block's first state (share), first momentum (push) and
    rows.

    `inertia`: the same of the momentum itself.  push_*, inertia: None without momentum.
    """

    share_before: Tensor
    share_after: Tensor
    before: Tensor
    after: Tensor
    push_before: Tensor | None = None
    push_after: Tensor | None = None
    inertia: Decay | None = None


FLOOR = -30.0  # of a log decay: e^-30 is nothing, and differences of sums of larger ones lose their digits
ROUNDING = -1e-3  # of a share, which is never negative


def log_share(share: Tensor) -> Tensor:
    """The logarithm of what is kept, in [0, 1].  At 0 it is that of the smallest number; below 0 it is not a number.

    The gradient of a share of 0 is 0, and in chunks that of a share below e^FLOOR, about 1e-13, which counts as that
    much; the interpreter's are not.  A share that rounding has brought a little below 0 counts as 0."""
    return torch.where(share < ROUNDING, math.nan, share.clamp_min(torch.finfo(share.dtype).tiny)).log()


def decay(log: Tensor) -> Decay:
    """D_ts = exp(c_t - c_s) of the running sum c, for s < t before token t and s <= t after it.  log (..., L), at
    most 0."""
    c = log.clamp(min=FLOOR).cumsum(-1)
    b = shift(c, -1)
    column = c.unsqueeze(-2)
    D_before = (b.unsqueeze(-1) - column).tril(-1).exp().tril(-1)
    D_after = (c.unsqueeze(-1) - column).tril(-1).exp().tril()
    return Decay(b.exp(), c.exp(), D_before, D_after)


def shift(x: Tensor, dim: int) -> Tensor:
    """x_{t-1} along `dim`, 0 for the first."""
    return torch.cat((torch.zeros_like(x.narrow(dim, 0, 1)), x.narrow(dim, 0, x.shape[dim] - 1)), dim)


@dataclass(frozen=True)
class Pace:
    """Log retention and log momentum (or None) of every token (B, H, n, L), and the response made from them."""

    keep: Tensor
    inertia: Tensor | None
    answer: Response


def pace(keep: Tensor, inertia: Tensor | None) -> Pace:
    return Pace(keep, inertia, respond(keep, inertia))


def respond(keep: Tensor, inertia: Tensor | None) -> Response:
    """The response to log retention `keep` and, with momentum, its log `inertia`: R = D(a) @ D(b)."""
    d = decay(keep)
    if inertia is None:
        return Response(d.share_before, d.share_after, d.before, d.after)
    m = decay(inertia)
    push = (d.after @ m.share_after.unsqueeze(-1)).squeeze(-1)
    after = d.after @ m.after
    return Response(d.share_before, d.share_after, shift(after, -2), after, shift(push, -1), push, m)


@dataclass(frozen=True)
class Rows:
    """What a block's tokens ask of one part.  k: rows of the write; j, h, g as in the module's equation (None: absent).

    `constant`: the key of the known rows g where it differs from k (first order: the gradient is a constant, erase is
        not)."""

    k: Tensor
    lr: Tensor
    j: Tensor | None = None
    h: Tensor | None = None
    g: Tensor | None = None
    constant: Tensor | None = None


@dataclass(frozen=True)
class State:
    """One part's tensors between blocks: now, the chunk's first state, momentum, start (None: absent).

    sums: who sums the gradients of a start that all sequences share, if anybody does."""

    now: Tensor
    held: Tensor
    momentum: Tensor | None = None
    start: Tensor | None = None
    sums: Products | None = None


def row(x: Tensor, W: Tensor) -> Tensor:
    """W x for rows: (B, H, n, L, I) with W (B, H, O, I) or, one for each block, (B, H, n, O, I)."""
    if W.dim() == 5 or W.shape[:2] != x.shape[:2]:
        return x @ (W if W.dim() == 5 else W.unsqueeze(2)).mT
    return by_weight(x.flatten(2, 3), W).unflatten(2, x.shape[2:4])


def stack(blocks: list[Tensor]) -> Tensor:
    """(B, H, ...) of every block to (B, H, n, ...)."""
    return torch.stack(blocks, 2) if len(blocks) > 1 else blocks[0].unsqueeze(2)


class Solved:
    """A group of blocks after its writes: answers reads at any of its tokens, and holds the state after it."""

    def __init__(
        self, rows: Rows, pace: Pace, state: State, chunk: int, outside: bool, mark: Callable[[Tensor], Tensor] = past
    ) -> None:
        """`outside`: of the planned block.  `mark`: what is read of earlier tokens; `past`, or nothing to be done."""
        self.answer, self.pace, self.first, self.outside, self.mark = pace.answer, pace, state, outside, mark
        L = self.answer.before.shape[-2]
        self.inside: Tensor | None = None  # for each token the first one of its chunk, where that lies within the block
        if not outside and chunk < L:
            index = torch.arange(L, device=rows.k.device)
            self.inside = index - index % chunk
        self.streams: list[tuple[Tensor, Tensor]] = []  # rows k and their u, each (B, H, n, L, .)
        self._write(self._two_streams(rows), state)

    # ---- writes

    def _two_streams(self, rows: Rows) -> Rows:
        """First order: the gradient's key is a constant, the erase's is not; so they are rows apart, the gradient's
        known."""
        if rows.constant is None:
            return rows
        if rows.j is None or rows.g is None:
            return replace(rows, k=rows.constant)
        U = rows.lr.unsqueeze(-1) * rows.g
        self.streams.append((rows.constant, U))
        answered = ((rows.j @ rows.constant.mT) * self.answer.before) @ U
        return replace(rows, g=-answered)

    def _held(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Share, response and push of the chunk's first state, where it lies within the block; Nones at its first
        token."""
        answer, i = self.answer, self.inside
        if i is None:
            return None, None, None
        push = None if answer.push_before is None else answer.push_before[..., i]
        return answer.share_before[..., i], answer.before[..., i, :], push

    def _system(self, rows: Rows) -> tuple[Tensor | None, list[Tensor], list[Tensor], list[Tensor]]:
        """N, and the right side: rows that meet the first state, rows that meet the first momentum, known rows."""
        answer, start = self.answer, self.first.start
        N: Tensor | None = None
        by_state: list[Tensor] = []
        by_momentum: list[Tensor] = []
        known = [] if rows.g is None else [rows.g]
        terms = [] if rows.j is None else [(rows.j, answer.share_before, answer.before, answer.push_before)]
        if rows.h is not None and self.outside:
            known.append(row(rows.h, self.first.held))
        elif rows.h is not None:
            terms.append((rows.h, *self._held()))
        for x, share, response, push in terms:
            if response is not None:
                part = (x @ rows.k.mT) * response
                N = part if N is None else N + part
            by_state.append(x if share is None else share.unsqueeze(-1) * x)
            if push is not None:
                by_momentum.append(push.unsqueeze(-1) * x)
            if start is not None and share is not None:
                known.append((1 - share).unsqueeze(-1) * row(x, start))
        return N, by_state, by_momentum, known

    def _write(self, rows: Rows, state: State) -> None:
        N, *sides = self._system(rows)
        columns = [sum(side[1:], side[0]) for side in sides if side]
        lr = rows.lr.unsqueeze(-1)
        right = lr * (torch.cat(columns, -1) if len(columns) > 1 else columns[0])
        if N is not None:
            right = torch.linalg.solve_triangular(lr * N, right, upper=False, unitriangular=True)
        parts = iter(right.split([x.shape[-1] for x in columns], -1))
        by_state, by_momentum, known = (next(parts) if side else None for side in sides)

        firsts, momenta, U = self._scan(rows.k, by_state, by_momentum, known, state)
        self.streams.insert(0, (rows.k, U))
        self.firsts, self.momenta = firsts, momenta

    def _scan(
        self, k: Tensor, by_state: Tensor | None, by_momentum: Tensor | None, known: Tensor | None, state: State
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Block after block: first states, first momenta, and the rows u of every block."""
        answer, extra = self.answer, self.streams
        left, kept = answer.after[..., -1, :, None], answer.share_after[..., -1, None, None]
        k_left = left * k
        fixed = [U.mT @ (left * key) for key, U in extra]
        if state.start is not None:
            fixed.append((kept - 1) * state.start.unsqueeze(2))
        if answer.inertia is not None and answer.push_after is not None:
            left_m, pushed = answer.inertia.after[..., -1, :, None], answer.push_after[..., -1, None, None]
            kept_m = answer.inertia.share_after[..., -1, None, None]
            k_left_m = left_m * k
            fixed_m = [U.mT @ (left_m * key) for key, U in extra]
        now, momentum = state.now, state.momentum
        firsts, momenta, rows = [], [], []
        for c in range(k.shape[2]):
            firsts.append(now)
            terms = [] if known is None else [known[:, :, c]]
            if by_state is not None:
                terms.append(by_state[:, :, c] @ now.mT)
            if by_momentum is not None and momentum is not None:
                terms.append(by_momentum[:, :, c] @ momentum.mT)
            U = sum(terms[1:], terms[0])
            rows.append(U)
            now = kept[:, :, c] * now - U.mT @ k_left[:, :, c]
            for x in fixed:
                now = now - x[:, :, c]
            if momentum is not None:
                momenta.append(momentum)
                now = now + pushed[:, :, c] * momentum
                momentum = kept_m[:, :, c] * momentum - U.mT @ k_left_m[:, :, c]
                for x in fixed_m:
                    momentum = momentum - x[:, :, c]
        self.now, self.momentum, self.last_first = now, momentum, firsts[-1]
        return stack(firsts), stack(momenta) if momenta else None, stack(rows)

    # ---- reads

    def _answer(self, x: Tensor, share: Tensor, response: Tensor, push: Tensor | None) -> Tensor:
        """A state within the block applied to rows x (B, H, n, L, I), all of earlier tokens marked."""
        mark = self.mark
        y = mark(share).unsqueeze(-1) * row(x, mark(self.firsts))
        if push is not None and self.momenta is not None:
            y = y + mark(push).unsqueeze(-1) * row(x, mark(self.momenta))
        if self.first.start is not None:
            y = y + (1 - mark(share)).unsqueeze(-1) * row(x, mark(self.first.start))
        for k, U in self.streams:
            y = y - ((x @ mark(k).mT) * mark(response)) @ mark(U)
        return y

    def read_before(self, x: Tensor) -> Tensor:
        """M_{t-1} x_t."""
        return self._answer(x, self.answer.share_before, self.answer.before, self.answer.push_before)

    def read_held(self, x: Tensor) -> Tensor:
        """M_{t'} x_t, t' the first token of t's chunk."""
        if self.outside:
            return row(x, self.mark(self.first.held))
        share, response, push = self._held()
        if share is None:
            return row(x, self.mark(self.firsts))
        return self._answer(x, share, response, push)

    def read_after(self, x: Tensor) -> Tensor:
        """M_t x_t."""
        answer = self.answer
        return self._answer(x, answer.share_after, answer.after, answer.push_after)

    def _before_own(self, x: Tensor) -> Tensor:
        """a_t M_{t-1} x_t + (1 - a_t) M_0 x_t + b_t m_{t-1} x_t: all of M_t x_t but the token's own write."""
        mark, inertia = self.mark, self.answer.inertia
        a = self.pace.keep.clamp(min=FLOOR).exp().unsqueeze(-1)
        y = a * self.read_before(x)
        if self.first.start is not None:
            y = y + (1 - a) * row(x, mark(self.first.start))
        if inertia is not None and self.pace.inertia is not None and self.momenta is not None:
            m = mark(inertia.share_before).unsqueeze(-1) * row(x, mark(self.momenta))
            for k, U in self.streams:
                m = m - ((x @ mark(k).mT) * mark(inertia.before)) @ mark(U)
            y = y + self.pace.inertia.clamp(min=FLOOR).exp().unsqueeze(-1) * m
        return y

    def read_after_own(self, x: Tensor, own: Rows) -> Tensor:
        """M_t x_t, open along the token's own write (a_t, b_t, lr_t, k_t, j_t, h_t, g_t); all that is earlier is
        marked.

        M_t x = a_t M_{t-1} x + (1 - a_t) M_0 x + b_t m_{t-1} x - u_t (k_t . x).
        """
        y = self._before_own(x)
        erase = None if own.j is None else self.read_before(own.j)
        gradient = own.g
        if own.h is not None:
            at = self.read_held(own.h)
            gradient = at if gradient is None else gradient + at
        for u, k in ((erase, own.k), (gradient, own.k if own.constant is None else own.constant)):
            if u is not None:
                y = y - own.lr.unsqueeze(-1) * u * (k * x).sum(-1, keepdim=True)
        return y
