"""The kernels of a linear memory on a GPU, in float32 and with bfloat16 operands, against a loop in float64."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.near import check
from tests.kernels.memory import CASES, WIDE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false"),
    pytest.mark.filterwarnings("error:a memory runs its PyTorch form"),
]
# Compiling takes most of the time: every kind of write is run in the interpreter, here those that differ in sizes.
EXACT = ("gated delta rule", "dgd at the chunk's first state", "block 32, width 24 and 80", "one head, one chunk")


@pytest.mark.parametrize("name", WIDE)
def test_bfloat16_operands_stay_near_the_loop(name):
    check(WIDE[name], low=True, tolerance=5e-2)


@pytest.mark.parametrize("name", EXACT)
def test_float32_equals_the_loop(name):
    check(CASES[name], low=False, tolerance=1e-3)
