"""How `shared_product` lays out its work: boxes stacked by rows, tokens cut into chunks, reads handed to the flow.

B batch, T tokens, H heads, K width, R rows of all boxes together, N chunks, C tokens of a chunk
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runtime.ops.product import Kind

Tensors = tuple[Tensor, ...]
Flow = Callable[[Tensors, Tensors, Tensors], tuple[Tensor, Tensor, Tensor, Tensor | None]]
Queries = Sequence[tuple[Tensor, Sequence[str]]]


@dataclass(frozen=True)
class Layout:
    """Where things stand in the stack of rows.  reads: of every product with one query, (query, first row, last row,
    rows of each box), in the flow's order; rows: {box: (first, last)}."""

    flow: Flow
    kind: Kind
    reads: tuple[tuple[int, int, int, list[int]], ...]
    rows: dict[str, tuple[int, int]]
    queries: int
    extras: int


FOLDED = " read out"


def fold(
    states: Mapping[str, Mapping[str, Tensor]],
    start: Mapping[str, Tensor] | None,
    queries: Queries,
    readouts: Mapping[str, Tensor],
    final: bool,
) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Tensor] | None, Queries]:
    """Boxes read through a read-out w: a further box of the rows w S each, and S itself last, unread.

    `final`: nobody reads S afterwards, and the rows go on alone, from one call to the next.
    """
    rows = {box + FOLDED: rows_of(states[box], w) for box, w in readouts.items()}
    plain = {box: state for box, state in states.items() if box not in readouts}
    whole = {} if final else {box: states[box] for box in readouts}
    if start is not None:
        start = {**start, **{box + FOLDED: w @ start[box] for box, w in readouts.items()}}
    asked = [(x, [box + FOLDED if box in readouts else box for box in boxes]) for x, boxes in queries]
    return {**rows, **plain, **whole}, start, asked


def rows_of(state: Mapping[str, Tensor], w: Tensor) -> dict[str, Tensor]:
    """w S and its held value, of a box or of what `unfolded` left of it."""
    if "M" in state:
        return {part: w @ S for part, S in state.items()}
    return {part.replace("rows", "M"): rows for part, rows in state.items()}


def unfolded(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Registers by box: {"M", "held.M"}, or {"rows", "held.rows"} of a box whose rows went on alone."""
    named = {box: dict(register) for box, register in state.items() if not box.endswith(FOLDED)}
    for box, register in state.items():
        alone = box.removesuffix(FOLDED)
        if alone not in named:
            named[alone] = {part.replace("M", "rows"): x for part, x in register.items()}
    return named


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


def split(layout: Layout, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensors, Tensors]:
    """Queries, extras, weights."""
    q, e = layout.queries, layout.queries + layout.extras
    return tuple(inputs[:q]), tuple(inputs[q:e]), tuple(inputs[e:])
