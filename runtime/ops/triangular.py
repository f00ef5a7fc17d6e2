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
    Ds, X = D.unbind(1), torch.empty_like(R)
    for i, (N_i, R_i, X_i) in enumerate(zip(N.chunk(n, 1), R.chunk(n, 1), X.chunk(n, 1), strict=True)):
        if i:
            R_i = torch.baddbmm(R_i, N_i.narrow(2, 0, i * b), X.narrow(1, 0, i * b), alpha=-1)
        X_i.copy_(torch.bmm(Ds[i], R_i))
    return X


def solve_transposed(N: Tensor, D: Tensor, R: Tensor) -> Tensor:
    """(I + N)^-T R, from the last rows to the first."""
    n, b = D.shape[1:3]
    N, Ds, X = N.mT, D.mT.unbind(1), torch.empty_like(R)
    Ns, Rs, Xs = N.chunk(n, 1), R.chunk(n, 1), X.chunk(n, 1)
    for i in reversed(range(n)):
        R_i, at, after = Rs[i], (i + 1) * b, (n - 1 - i) * b
        if after:
            R_i = torch.baddbmm(R_i, Ns[i].narrow(2, at, after), X.narrow(1, at, after), alpha=-1)
        Xs[i].copy_(torch.bmm(Ds[i], R_i))
    return X
