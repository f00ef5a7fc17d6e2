"""Convolutions and gated norms on a GPU, against ordinary operations in float64."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.near import check
from tests.kernels.fused import CASES, LARGE, own_differences

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false"),
    pytest.mark.filterwarnings("error:a convolution runs its PyTorch form"),
    pytest.mark.filterwarnings("error:a gated norm runs its PyTorch form"),
]


@pytest.mark.parametrize("name", CASES)
def test_a_pass_equals_the_operations_one_by_one(name):
    check(CASES[name], low=False, tolerance=1e-5)


@pytest.mark.parametrize("name", LARGE)
def test_so_does_one_of_many_programs_under_autocast(name):
    check(LARGE[name], low=True, tolerance=1e-5)  # values stay in float32


def test_a_token_s_own_error_passes_the_last_tap():
    assert max(own_differences("cuda").values()) < 1e-5
