"""Triangular systems in blocks, against the dense solution."""

from __future__ import annotations

import pytest
import torch

from runtime.ops.triangular import block, inverse_blocks, solve, solve_transposed


@pytest.mark.parametrize("C", [1, 5, 16, 20, 37, 48, 64, 128])
def test_substitution_in_blocks_solves_the_system_and_its_transpose(C: int) -> None:
    g = torch.Generator().manual_seed(C)
    N = torch.randn(3, C, C, generator=g, dtype=torch.float64).tril(-1) / C**0.5
    R = torch.randn(3, C, 7, generator=g, dtype=torch.float64)
    D, whole = inverse_blocks(N), torch.eye(C, dtype=torch.float64) + N
    torch.testing.assert_close(solve(N, D, R), torch.linalg.solve(whole, R), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solve_transposed(N, D, R), torch.linalg.solve(whole.mT, R), rtol=1e-9, atol=1e-9)


def test_a_key_that_repeats_at_rate_1_costs_no_digits() -> None:
    """(I + N)^-1 of a constant key is bidiagonal, though powers of N reach 1e18."""
    N = torch.ones(1, 64, 64).tril(-1)
    R = torch.eye(64).expand(1, -1, -1)
    exact = torch.eye(64) - torch.diag_embed(torch.ones(63), offset=-1)
    assert (solve(N, inverse_blocks(N), R)[0] - exact).abs().max() < 1e-5


@pytest.mark.parametrize(("C", "b"), [(64, 16), (40, 10), (60, 15), (36, 12), (7, 7), (37, 37), (128, 16)])
def test_blocks_are_even_shares(C: int, b: int) -> None:
    assert block(C) == b
