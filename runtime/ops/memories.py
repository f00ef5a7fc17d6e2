"""`memory`: read and write one associative memory over T tokens, by the fastest form its meaning allows.

meaning       per token: read; write M <- a M [+ (1 - a) M_0] + rule(gradient at the chunk's first state); naive.py
affine        a matrix whose gradient is affine in the state (dot, l2): one triangular system per block, any chunk
pieces        any form and objective: gradients of a whole chunk at its first state by hand-written factors, then
              every layer is a linear recurrence whose keys are the layer's inputs
token loop    a rule without a closed form, retention per key channel, several pairs in a token's own error

B batch, T tokens, P pairs per token, H heads, I width in, O width out.  k (B, T, H, I); inside (B, H, T, I).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from runtime.kernels.linear_memory import choose
from runtime.ops import headless, naive, window
from runtime.ops.equations import inside_blocks
from runtime.ops.forms import Layer, Matrix, Vector
from runtime.ops.history import past
from runtime.ops.layered import Done, layered, written
from runtime.ops.memory_kernels import by_kernels
from runtime.ops.memory_rows import Tokens, affine_rows, factor_rows, head_major
from runtime.ops.naive import Write
from runtime.ops.recurrence import Block, Rows, Solved, State, plan
from runtime.ops.rows import products_of
from runtime.ops.watch import Watch, Watched
from runtime.precision import exact, mixed, widened

__all__ = ["Write", "memory"]

Queries = Sequence[tuple[Tensor, str]]
Reads = tuple[Tensor, ...]
Weights = Mapping[str, Tensor]


def memory(
    write: Write,
    state: Weights,
    k: Tensor,
    v: Tensor,
    rate: Tensor | float,
    keep: Tensor | None,
    start: Weights | None = None,
    queries: Queries = (),
    *,
    phase: int = 0,
    beta: Tensor | float | None = None,
    params: Sequence[Tensor | float] = (),
    rule_params: Weights | None = None,
    weigh: Tensor | None = None,
    learn: bool = True,
    block: int = 64,
    own: bool = True,
) -> tuple[Reads, dict[str, Tensor]]:
    """Read and write a memory over T tokens.

    Per token, with t' the first token of its chunk:  g_t = gradient of the objective at M_{t'} for (k_t, v_t);
    M_t = a_t M_{t-1} [+ (1 - a_t) M_0] + rule(g_t).  Source: arXiv 2512.24695, eqs. 57, 88-93; reference, section 2.

    state: {"M": now, "held.M": the chunk's first state if chunk > 1, "rule.m.M": momentum or a rule's state}, by the
        form's parts, weights (B, H, O, I), biases (B, H, O), vectors (B, H, I)
    k (B, T, H, I), or (B, T, P, H, I) for P pairs per token, written in order, retention with the first; v alike.
        Heads of k and v may divide those of the state.
    rate, beta: broadcastable to (B, T, H); beta is not below 0 unless block is 0
    keep: log retention, at most 0, broadcastable to (B, T, H), or per key channel (B, T, H, I), or None
    start: {part: M_0}, (H, ...) or (B, H, ...), where retention leads back to it
    queries: (q (B, T, H, I), "chunk" | "before" | "after"), ...
    weigh: of each pair in the windows that see it, broadcastable to (B, T, H).
    phase: tokens already in the running chunk.  params: of the objective; rule_params: of the rule, (B, T, H) each.
    learn=False: nothing is written or forgotten, yet chunks go on.
    own=False promises that no `own_errors` passes here: cheaper reads.  block: tokens per triangular system; 0 goes
    token by token.

    Returns the reads, each (B, T, H, O), and the state after the last token.
    Raises ValueError where shapes or settings do not fit together.
    """
    if headless.is_headless(state, write.form):
        more = {
            "phase": phase,
            "beta": beta,
            "params": params,
            "rule_params": rule_params,
            "weigh": weigh,
            "learn": learn,
            "block": block,
            "own": own,
        }
        return headless.call_memory(memory, write, state, k, v, rate, keep, start, queries, **more)
    low = mixed(k)
    tensors = state, k, v, rate, keep, start, queries, beta, params, rule_params, weigh
    with exact(k):
        return settled(write, *(widened(tensors) if low else tensors), phase % write.chunk, learn, block, own, low)


def settled(
    write: Write,
    state: Weights,
    k: Tensor,
    v: Tensor,
    rate: Tensor | float,
    keep: Tensor | None,
    start: Weights | None,
    queries: Queries,
    beta: Tensor | float | None,
    params: Sequence[Tensor | float],
    rule_params: Weights | None,
    weigh: Tensor | None,
    phase: int,
    learn: bool,
    block: int,
    own: bool,
    low: bool,
) -> tuple[Reads, dict[str, Tensor]]:
    """`memory` of heads, all in one type.  low: it was called under autocast."""
    if not isinstance(write.form, Matrix | Vector) and keep is not None and keep.dim() == 4:
        raise ValueError("retention per key channel needs form matrix or vector")
    if write.momentum and (write.erase or beta is None):
        raise ValueError("momentum needs beta, and goes without erase")
    H = state[write.form.parts[0]].shape[1]
    if write.meta == "none":
        state = {name: x.detach() for name, x in state.items()}
        start = None if start is None else {part: x.detach() for part, x in start.items()}
    k, v = share_heads(k, H), share_heads(v, H)
    B, T = k.shape[:2]
    spread = [x if x is None else at_tokens(x, (B, T, H), k) for x in (rate, beta)]
    if keep is not None and keep.dim() < 4:
        keep = at_tokens(keep, (B, T, H), k)
    call = naive.Call(
        write, k, v, spread[0], keep, spread[1], tuple(params), start, tuple(queries), phase, own, rule_params or {},
        low=low,
    )  # fmt: skip
    if not learn:
        return naive.idle(call, state)
    if Watched.by:
        for name in write.names:
            Watched.by.speed(name, call.rate, call.keep)
    if write.window > 1:
        weigh = None if weigh is None else weigh.expand(B, T, H)
        pairs, remembered = window.seen(state, write.window, k, v, weigh, params)
        at_once = block and (keep is None or keep.dim() < 4) and window_at_once(write)
        reads, after = (closed if at_once else by_token)(replace(call, seen=pairs), state, block)
        return reads, after | remembered
    return fastest(call, state, block)


def fastest(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    """By the closed form that fits the write, or token by token where none does."""
    write, k, own, queries = call.write, call.k, call.own, call.queries
    channels = call.keep is not None and call.keep.dim() == 4
    if channels and isinstance(write.form, Vector) and write.rule is None and k.dim() == 4 and block:
        return by_entries(call, state, block)
    pairs = k.shape[2] if k.dim() == 5 else 1
    own_pairs = pairs > 1 and own and any(when == "after" for _, when in queries)
    if block == 0 or write.rule is not None or channels or own_pairs:
        return naive.tokens(call, state)
    if pairs > 1:
        return micro_steps(call, state, block)
    if isinstance(write.form, Vector):
        return by_entries(call, state, block)
    return closed(call, state, block)


def by_token(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    return naive.tokens(call, state)


def window_at_once(write: Write) -> bool:
    """Whether all gradients of a chunk over windows are of one state each, and what is written adds up."""
    if write.rule is not None or write.erase or write.kept or isinstance(write.form, Vector):
        return False
    return write.chunk > 1 or without_state(write)


def without_state(write: Write) -> bool:
    """Whether the gradient is the same at every state."""
    return isinstance(write.form, Matrix) and write.objective == "dot"


# ---- shapes


def share_heads(x: Tensor, H: int) -> Tensor:
    """Repeat key heads for the state's heads: state head h uses key head h // (H / heads of x)."""
    if x.shape[-2] == H:
        return x
    if H % x.shape[-2]:
        raise ValueError(f"{x.shape[-2]} key heads do not divide {H} heads of the state")
    return x.repeat_interleave(H // x.shape[-2], -2)


def at_tokens(x: Tensor | float, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    x = x if isinstance(x, Tensor) else like.new_full((), x)
    return x.expand(shape)


def micro_steps(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    """P pairs per token as T P tokens: retention with the first pair, reads before the first or after the last."""
    P, chunk = call.k.shape[2], call.write.chunk

    def stretch(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(P, 1)

    def place(x: Tensor, slot: int) -> Tensor:
        wide = torch.zeros_like(x).unsqueeze(2).repeat(1, 1, P, *(1,) * (x.dim() - 2))
        return torch.cat((wide[:, :, :slot], x.unsqueeze(2), wide[:, :, slot + 1 :]), 2).flatten(1, 2)

    slots = [P - 1 if when == "after" else 0 for _, when in call.queries]
    longer = replace(
        call,
        write=replace(call.write, chunk=chunk * P if chunk > 1 else 1),
        k=call.k.flatten(1, 2),
        v=call.v.flatten(1, 2),
        rate=stretch(call.rate),
        keep=None if call.keep is None else place(call.keep, 0),
        point=stretch(call.keep) if chunk > 1 else None,
        beta=stretch(call.beta),
        params=tuple(stretch(x) if naive.by_token(x) else x for x in call.params),
        queries=tuple((place(q, slot), when) for (q, when), slot in zip(call.queries, slots, strict=True)),
        phase=call.phase * P,
    )
    body = by_entries if isinstance(call.write.form, Vector) else closed
    reads, state = body(longer, state, block)
    return tuple(y[:, slot::P] for y, slot in zip(reads, slots, strict=True)), state


def by_entries(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    """A vector memory as a matrix memory of 1 x 1 for every entry."""
    H, K = state["m"].shape[1:]

    def entries(x: Tensor) -> Tensor:
        return x.flatten(2, 3).unsqueeze(-1)

    def spread(x: Tensor | None) -> Tensor | None:
        return x if x is None else x.flatten(2, 3) if x.dim() == 4 else x.repeat_interleave(K, 2)

    objective = call.write.objective
    if objective not in ("dot", "l2"):
        objective = naive.entrywise(objective, K)
    form = Matrix()
    wide = replace(
        call,
        write=replace(call.write, form=form, objective=objective, erase=False),
        k=entries(call.k),
        v=entries(call.v),
        rate=spread(call.rate),
        keep=spread(call.keep),
        point=spread(call.point),
        beta=spread(call.beta),
        start=None if call.start is None else {"M": call.start["m"].flatten(-2)[..., None, None]},
        queries=tuple((entries(q), when) for q, when in call.queries),
    )
    vectors = {name: x for name, x in state.items() if name.rsplit(".", 1)[-1] == "m"}  # not a count or an origin
    inner = {name.removesuffix("m") + "M": x.flatten(1, 2)[..., None, None] for name, x in vectors.items()}
    reads, after = closed(wide, inner, 16 if block > 16 else block)
    outer = {name.removesuffix("M") + "m": x.flatten(1).unflatten(1, (H, K)) for name, x in after.items()}
    return tuple(y.squeeze(-1).unflatten(2, (H, K)) for y in reads), outer


# ---- closed forms


def closed(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    """Every form whose rule is a linear recurrence: gd, dgd, momentum.  On a GPU by kernels where they can."""
    form = choose.chosen(call, state[call.write.form.parts[0]], block)
    if form:
        return by_kernels(form, call, state, partial(by_blocks, block=block))
    return by_blocks(call, state, block)


def by_blocks(call: naive.Call, state: Weights, block: int) -> tuple[Reads, dict[str, Tensor]]:
    call = replace(call, write=replace(call.write, form=inside_blocks(call.write.form)))
    if call.write.meta == "none":
        with torch.no_grad():
            fixed = run(call, state, block, reading=False)
        return run_reads(call, fixed)
    if call.write.meta == "first_order":
        with torch.no_grad():
            known = run(call, state, block, reading=False).errors
        return run_reads(call, run(call, state, block, known=known))
    return run_reads(call, run(call, state, block))


@dataclass
class Piece:
    """A planned block after its writes: the recurrence of every part, and the rows that wrote it (for own errors)."""

    block: Block
    parts: Mapping[str, Solved | Done]
    rows: dict[str, Rows]


@dataclass
class Ran:
    """All tokens, written: the pieces, the state after them, and the gradient's error rows at every part, by piece."""

    pieces: list[Piece]
    state: dict[str, Tensor]
    errors: list[dict[str, Tensor]]


def lead(x: Tensor, axes: int) -> Tensor:
    """A start (H, ...) as (1, H, ...), or per sequence as it is."""
    return x if x.dim() == axes else x.unsqueeze(0)


def run(
    call: naive.Call, state: Weights, block: int, known: list[dict[str, Tensor]] | None = None, reading: bool = True
) -> Ran:
    """Write all tokens.  `known`: the gradients' error rows, as constants, by piece (meta: first_order)."""
    write, T = call.write, call.k.shape[1]
    affine = isinstance(write.form, Matrix) and write.objective in ("dot", "l2") and call.seen is None
    chunk = write.chunk
    size = block if affine or chunk > block or without_state(write) else chunk
    blocks = plan(T, chunk, call.phase, size)
    if not affine:
        blocks = [Block(b.first + i * b.length, 1, b.length, b.outside) for b in blocks for i in range(b.count)]
    tokens = Tokens(call)
    by_layers = not affine and layered(call)
    registers = open_registers(call, state)
    pieces, errors = [], []
    for i, at in enumerate(blocks):
        if not at.outside:
            registers = {part: replace(s, held=s.now) for part, s in registers.items()}
        mark = past if call.own else naive.unmarked
        if by_layers:
            done = written(call, tokens, at, registers, mark, partial(observe, Watched.by, write))
            pieces.append(Piece(at, done, {}))
            registers = {p: replace(s.first, now=s.now) for p, s in done.items()}
            continue
        given = None if known is None else known[i]
        gradient = affine_rows if affine else factor_rows
        rows, found = gradient(call, tokens, at, registers, given)
        speed = tokens.pace(at)
        if call.seen is None:
            solved = {p: Solved(r, speed, registers[p], chunk, at.outside, mark) for p, r in rows.items()}
        else:
            W = window.banded(at, call.seen, tokens.rate, write.window, mark)
            paced = (window.over(speed, W), W)
            solved = {p: window.WindowSolved(r, *paced, registers[p], chunk, at.outside, mark) for p, r in rows.items()}
        pieces.append(Piece(at, solved, rows if reading else {}))
        errors.append(found(solved) if callable(found) else found)
        if Watched.by and known is None:
            observe(Watched.by, write, *of_tokens(write, at.length, rows, errors[-1]))
        registers = {
            p: replace(
                registers[p], now=s.now, momentum=s.momentum, held=registers[p].held if at.outside else s.last_first
            )
            for p, s in solved.items()
        }
    return Ran(pieces, close_registers(call, registers), errors)


def of_tokens(
    write: Write, L: int, rows: dict[str, Rows], errors: dict[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Every layer's inputs and errors of a block's L tokens: the rows' keys are inputs, the last L the tokens' own."""
    inputs = [rows[part.weight].k[..., -L:, :] for part in write.form.layers]
    found = [errors[part.weight][..., -L:, :] for part in write.form.layers]  # perhaps without the axis of blocks
    return inputs, [e.reshape(*x.shape[:-1], -1) for e, x in zip(found, inputs, strict=True)]


@torch.no_grad()
def observe(by: Watch | None, write: Write, inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> None:
    """The surprise of tokens, from every layer's inputs and errors (B, H, ..., I) and (B, H, ..., O)."""
    squares = write.form.surprise([x[:1] for x in inputs], [e[:1] for e in errors])
    for n, name in enumerate(write.names if by else ()):
        own = squares[:, n :: len(write.names)]
        by.add(name, "surprise", own.sum(), own[:, 0].numel())


def open_registers(call: naive.Call, state: Weights) -> dict[str, State]:
    """The state by part, a bias as a matrix of one column."""
    found = {}
    for part, bias in naive.parts(call.write.form):
        shape = (lambda x: x.unsqueeze(-1)) if bias else (lambda x: x)
        now = shape(state[part])
        held = shape(state["held." + part]) if call.write.chunk > 1 and call.phase % call.write.chunk else now
        momentum = shape(state["rule.m." + part]) if call.write.momentum else None
        first = None if call.start is None else call.start[part]
        start = None if first is None else lead(shape(first), 4)
        sums = products_of(first) if first is not None and not bias and first.dim() == 3 else None
        found[part] = State(now, held, momentum, start, sums)
    return found


def close_registers(call: naive.Call, registers: dict[str, State]) -> dict[str, Tensor]:
    write = call.write
    whole = (call.phase + call.k.shape[1]) % write.chunk == 0
    state = {}
    for part, bias in naive.parts(write.form):
        s = registers[part]
        found = {part: s.now}
        if write.chunk > 1:
            found["held." + part] = s.now if whole else s.held
        if write.momentum and s.momentum is not None:
            found["rule.m." + part] = s.momentum
        state |= {name: x.squeeze(-1) if bias else x for name, x in found.items()}
    return state


# ---- reads


def run_reads(call: naive.Call, ran: Ran) -> tuple[Reads, dict[str, Tensor]]:
    """All queries, block by block."""
    return tuple(head_major(read_all(call, ran, head_major(q), when)) for q, when in call.queries), ran.state


def read_all(call: naive.Call, ran: Ran, q: Tensor, when: str) -> Tensor:
    form = call.write.form
    open_write = call.own and call.write.meta != "none"
    answers = []
    for piece in ran.pieces:

        def ask(part: str, x: Tensor, piece: Piece = piece) -> Tensor:
            solved = piece.parts[part]
            if when == "chunk":
                return solved.read_held(x)
            if when == "before":
                return solved.read_before(x)
            return solved.read_after_own(x, piece.rows[part]) if open_write else solved.read_after(x)

        def layer(part: Layer, x: Tensor, ask: Callable[[str, Tensor], Tensor] = ask) -> Tensor:
            z = ask(part.weight, x)
            return z + ask(part.bias, torch.ones_like(x[..., :1])) if part.bias else z

        answers.append(form.run(layer, piece.block.cut(q))[0].flatten(2, 3))
    return torch.cat(answers, 2) if len(answers) > 1 else answers[0]
