"""Which calls the kernels take, and what is said where they do not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from runtime.kernels.linear_memory import choose as choose_memory
from runtime.kernels.shared_product import choose
from tests.kernels.cell import Cell
from tests.kernels.memory import Memory


@pytest.fixture(autouse=True)
def interpreting(monkeypatch):
    """As on a GPU; no kernel runs, for what is refused falls back to PyTorch."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    choose.say.cache_clear()
    choose_memory.say.cache_clear()


def computed(cell: Cell, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return cell.fast(cell.inputs("cpu", dtype))["y"]


@pytest.mark.parametrize(
    ("cell", "dtype", "why"),
    [
        (Cell(C=8), torch.float32, "chunks of 8 tokens, expected 16, 32, 64"),
        (Cell(K=8), torch.float32, "heads of width 8, expected 16 to 128"),
        (Cell(K=80, T=16), torch.float32, "heads of width 80 in float32"),
        (Cell(), torch.float64, "states in torch.float64"),
    ],
    ids=["chunk", "width", "wide in float32", "type"],
)
def test_a_call_no_kernel_takes_is_computed_by_pytorch_and_says_why(cell, dtype, why):
    with pytest.warns(UserWarning, match=f"without a kernel: {why}"):
        got = computed(cell, dtype)
    torch.testing.assert_close(got, cell.slow(cell.inputs("cpu", dtype))["y"], rtol=1e-3, atol=1e-4)


def test_it_is_said_once():
    cell = Cell(C=8, T=8)
    with pytest.warns(UserWarning):
        computed(cell)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computed(cell)


def test_a_cpu_needs_no_kernel_and_says_nothing(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computed(replace(Cell(), C=8))


@pytest.mark.parametrize(
    ("case", "dtype", "why"),
    [
        (Memory(block=8), torch.float32, "chunks of 8 tokens, expected 16, 32, 64"),
        (Memory(K=8), torch.float32, "keys of width 8 and values of width 16, expected 16 to 128"),
        (Memory(), torch.float64, "a state in torch.float64"),
    ],
    ids=["chunk", "width", "type"],
)
def test_a_memory_no_kernel_takes_is_computed_by_pytorch_and_says_why(case, dtype, why):
    p = case.inputs("cpu", dtype)
    with pytest.warns(UserWarning, match=f"without a kernel: {why}"):
        got = case.run(p, case.block)["y0"]
    torch.testing.assert_close(
        got, case.run(case.inputs("cpu", torch.float64), 0)["y0"].to(dtype), rtol=1e-3, atol=1e-4
    )


def test_few_tokens_need_no_kernel_and_nothing_is_said():
    case = Memory(T=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.run(case.inputs("cpu", torch.float32), case.block)
