"""What the state of many memories is written in while one product serves them all.

A chunk multiplies every box of a head by the same matrices, S' = S Phi [+ S_0 Psi] (product.py).  So after any number
of chunks the boxes are combinations of what they were,

    S = W P,    W = [S_first, S_0] (rows, 2 K), or S_0 alone where a box begins from its start,
    P' = P Phi [+ E Psi],    E: the block of P that stands for S_0

and only P, one for all boxes of a head, changes from chunk to chunk.

    H heads, B batch, K width; W (H, 1 or B, rows, I) by box, 1 where all sequences share it; P (H, B, I, K)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.stack import read

PRODUCT = "product"  # the part of a register that holds P where boxes are carried as S_0 P
Register = Mapping[str, Tensor]
Boxes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Spanned:
    """Boxes S = W P."""

    W: Boxes

    def of(self, P: Tensor, box: str) -> Tensor:
        """The box (H, B, rows, K)."""
        return self.W[box] @ P

    def rows(self, boxes: Sequence[str], readouts: Boxes) -> Tensor:
        """What is read of these boxes, stacked: S, or w S of a box with a read-out."""
        return joined([times(readouts[box], self.W[box]) if box in readouts else self.W[box] for box in boxes])

    def reads(self, x: Tensor, P: Tensor, boxes: Sequence[str], readouts: Boxes) -> Tensor:
        return read(x @ P.mT, self.rows(boxes, readouts))

    def height(self, box: str) -> int:
        return self.W[box].shape[-2]


@dataclass(frozen=True)
class Stacked:
    """Boxes side by side in one stack of rows: where no product is formed."""

    at: Mapping[str, tuple[int, int]]

    def of(self, stack: Tensor, box: str) -> Tensor:
        a, b = self.at[box]
        return stack[..., a:b, :]

    def height(self, box: str) -> int:
        a, b = self.at[box]
        return b - a

    def reads(self, x: Tensor, stack: Tensor, boxes: Sequence[str], readouts: Boxes) -> Tensor:
        found = [self.of(stack, box) for box in boxes]
        rows = [times(readouts[box], S) if box in readouts else S for box, S in zip(boxes, found, strict=True)]
        return read(x, joined(rows))


def stacked(boxes: Boxes) -> tuple[Stacked, Tensor]:
    """Boxes (H, B, rows, K) as one stack, and where each is in it."""
    at, first = {}, 0
    for box, S in boxes.items():
        at[box] = (first, first + S.shape[-2])
        first = at[box][1]
    return Stacked(at), torch.cat(list(boxes.values()), -2)


def times(w: Tensor, S: Tensor) -> Tensor:
    """w S: w (H, n, rows), S (H, 1 or B, rows, I).  One product a head where all sequences share S."""
    return torch.bmm(w, S.squeeze(1)).unsqueeze(1) if S.shape[1] == 1 else w.unsqueeze(1) @ S


def joined(rows: list[Tensor]) -> Tensor:
    """Rows (H, 1 or B, n, I) below one another."""
    if len(rows) == 1:
        return rows[0]
    B = max(x.shape[1] for x in rows)
    return torch.cat([x if x.shape[1] == B else x.expand(-1, B, -1, -1) for x in rows], -2)


def heads_first(S: Tensor) -> Tensor:
    """(B, H, rows, K) to (H, B, rows, K); (H, rows, K), which all sequences share, to (H, 1, rows, K)."""
    return S.transpose(0, 1) if S.dim() == 4 else S.unsqueeze(1)


def anchored(stack: Stacked, now: Tensor, start: Tensor | None) -> Spanned:
    """Boxes that go on from where they are: S = [S_first, S_0] P."""
    return Spanned({
        box: stack.of(now, box) if start is None else torch.cat((stack.of(now, box), stack.of(start, box)), -1)
        for box in stack.at
    })  # fmt: skip


def begins(register: Register, start: Tensor, phase: int) -> bool:
    """Whether a box is at its start, or carried as a product of it.

    The start itself, seen by all sequences, is told from an equal copy and from a state of somebody's own that lies on
    the same numbers: so the gradient too is the same whichever is used.
    """
    if PRODUCT in register:
        return True
    S = register["M"]
    return (
        phase == 0
        and start.dim() == S.dim() - 1
        and viewed(S) is viewed(start)
        and S.data_ptr() == start.data_ptr()
        and S.shape[1:] == start.shape
        and S.stride()[1:] == start.stride()
        and (S.shape[0] == 1 or S.stride(0) == 0)
        and S.requires_grad == start.requires_grad
    )


def viewed(x: Tensor) -> Tensor:
    """The tensor that `x` is a differentiable view of."""
    return x if x._base is None else x._base
