"""Systems (I + N) X = R with N strictly lower triangular, many small ones at once: by substitution in blocks.

Rows are taken BLOCK at a time, X_i = D_i (R_i - sum_{j<i} N_ij X_j), with D_i the inverse of the i-th block on the
diagonal.  Stable for repeated keys and rates near 1, where a series of powers of N loses every digit.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16  # rows that are faster to invert than to split


def inverse_blocks(N: Tensor) -> Tensor:
    """Inverses of the blocks on the diagonal of I + N: (G, C, C) to (G, C / b, b, b)."""
    G, C, _ = N.shape
    b = block(C)
    own = N.view(G, C // b, b, C // b, b).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    identity = torch.eye(b, dtype=N.dtype, device=N.device).expand_as(own)
    return torch.linalg.solve_triangular(own, identity, upper=False, unitriangular=True)


def block(C: int) -> int:
    """The largest even share of C rows that is a block; all of them where only small ones are."""
    return next((b for b in range(BLOCK, BLOCK // 2 - 1, -1) if C % b == 0), C)


def solve(N: Tensor, D: Tensor, R: Tensor) -> Tensor:
    """(I + N)^-1 R: N (G, C, C), D its `inverse_blocks`, R (G, C, I)."""
    n, b = D.shape[1:3]
    if n == 1:
        return torch.bmm(D[:, 0], R)
    X = torch.empty_like(R)
    for i in range(n):
        rows, before = slice(i * b, (i + 1) * b), slice(0, i * b)
        rest = torch.baddbmm(R[:, rows], N[:, rows, before], X[:, before], alpha=-1) if i else R[:, rows]
        X[:, rows] = torch.bmm(D[:, i], rest)
    return X


def solve_transposed(N: Tensor, D: Tensor, R: Tensor) -> Tensor:
    """(I + N)^-T R, from the last rows to the first."""
    n, b = D.shape[1:3]
    if n == 1:
        return torch.bmm(D[:, 0].mT, R)
    X = torch.empty_like(R)
    for i in reversed(range(n)):
        rows, after = slice(i * b, (i + 1) * b), slice((i + 1) * b, None)
        rest = torch.baddbmm(R[:, rows], N[:, after, rows].mT, X[:, after], alpha=-1) if i < n - 1 else R[:, rows]
        X[:, rows] = torch.bmm(D[:, i].mT, rest)
    return X
