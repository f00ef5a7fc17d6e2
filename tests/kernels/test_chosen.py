"""Which calls the kernels take, and what is said where they do not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from runtime.kernels.convolution import choose as choose_convolution
from runtime.kernels.gated_norm import choose as choose_gated
from runtime.kernels.linear_memory import choose as choose_memory
from runtime.kernels.shared_product import choose
from runtime.ops.basic import causal_conv
from runtime.ops.gated import gated, gated_norm
from runtime.ops.short_convolution import convolution, followed
from tests.kernels.cell import Cell
from tests.kernels.fused import Convolution, Gated
from tests.kernels.memory import Memory


@pytest.fixture(autouse=True)
def interpreting(monkeypatch):
    """As on a GPU; no kernel runs, for what is refused falls back to PyTorch."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for one in (choose, choose_memory, choose_convolution, choose_gated):
        one.say.cache_clear()


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


@pytest.mark.parametrize(
    ("case", "dtype", "why"),
    [
        (Convolution(), torch.float64, "values in torch.float64 and taps in torch.float64, expected float32"),
        (Convolution(taps=9), torch.float32, "9 taps, expected 2 to 8"),
        (Convolution(D=8, heads=1), torch.float32, "a norm over 8 channels, expected 16 to 256"),
    ],
    ids=["type", "taps", "width"],
)
def test_a_convolution_no_kernel_takes_is_computed_by_pytorch_and_says_why(case, dtype, why):
    p = case.inputs("cpu", dtype)
    follows = (case.act, case.heads, case.norm)
    with pytest.warns(UserWarning, match=f"a convolution runs its PyTorch form on the GPU, without a kernel: {why}"):
        got, _ = convolution(p["x"], p["w"], p["past"], *follows)
    torch.testing.assert_close(got, followed(causal_conv(p["x"], p["w"], p["past"])[0], *follows, None))


def test_a_gated_norm_no_kernel_takes_is_computed_by_pytorch_and_says_why():
    p = Gated((1, 20, 9000)).inputs("cpu", torch.float32)
    said = "a gated norm runs its PyTorch form on the GPU, without a kernel: rows of 9000 numbers, expected 8192"
    with pytest.warns(UserWarning, match=said):
        got = gated_norm(p["x"], p["gain"], p["z"], "silu")
    torch.testing.assert_close(got, gated(p["x"], p["gain"], p["z"], "silu"))


def test_few_tokens_of_these_need_no_kernel_either():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.randn(1, 3, 32, dtype=torch.float64)
        convolution(x, torch.randn(4, 32, dtype=torch.float64), x)
        gated_norm(x, x[0, 0], x, "silu")
