"""Every kernel of the shared product in Triton's interpreter, against a loop over tokens in float64.

In a process of its own: Triton decides when it is imported whether it interprets.  Operands are float32: a product of
bfloat16 is silently wrong in the interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.kernels.cell import CASES

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    command = [sys.executable, "-W", "error:shared_product runs its PyTorch form", "-m", "tests.kernels.cell"]
    ran = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return {line["case"]: line["differences"] for line in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("case", [*CASES, "own errors"])
def test_results_and_gradients_equal_the_loop(case, found):
    differences = found[case]
    assert {"d x", "d q", "d key.M"} <= set(differences)
    worst = max(differences, key=lambda name: differences[name])
    assert differences[worst] < 3e-4, f"{worst}: {differences[worst]:.1e}"
