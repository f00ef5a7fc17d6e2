"""Every kernel in Triton's interpreter, against a loop over tokens in float64.

In a process of its own: Triton decides when it is imported whether it interprets.  Operands are float32: a product of
bfloat16 is silently wrong in the interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest

from tests.kernels import cell, fused, memory

pytest.importorskip("triton")


@cache
def found(of: str) -> dict[str, dict[str, float]]:
    """By case, of all of `tests.kernels.<of>`."""
    kinds = ("shared_product", "a memory", "a convolution", "a gated norm")
    warnings = [f"error:{kind} runs its PyTorch form" for kind in kinds]
    told = [word for warning in warnings for word in ("-W", warning)]
    command = [sys.executable, *told, "-m", f"tests.kernels.{of}"]
    ran = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return {line["case"]: line["differences"] for line in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("case", [*cell.CASES, "own errors"])
def test_a_cell_and_its_gradients_equal_the_loop(case):
    differences = found("cell")[case]
    assert {"d x", "d q", "d key.M"} <= set(differences)
    near(differences, 3e-4)


@pytest.mark.parametrize("case", memory.CASES)
def test_a_memory_and_its_gradients_equal_the_loop(case):
    differences = found("memory")[case]
    assert {"d k", "d v", "d rate"} <= set(differences)
    near(differences, 3e-5)


@pytest.mark.parametrize("case", [*fused.CASES, "own errors"])
def test_operators_in_one_pass_and_their_gradients_equal_those_one_by_one(case):
    near(found("fused")[case], 2e-6)


def near(differences: dict[str, float], tolerance: float) -> None:
    worst = max(differences, key=lambda name: differences[name])
    assert differences[worst] < tolerance, f"{worst}: {differences[worst]:.1e}"
