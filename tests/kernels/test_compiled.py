"""Every kernel compiled ahead of time for GPUs that are not here.

Registers, spilled bytes and shared memory are a golden table; a matrix product that leaves the tensor cores shows
there too.  Compiled in a process of its own, which does not interpret.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("triton")

GOLDEN = Path(__file__).parents[1] / "golden" / "kernels"


@pytest.fixture(scope="module", params=["shared_product", "linear_memory", "convolution", "gated_norm"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def compiled(family: str) -> list[dict[str, object]]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.ahead", family]
    ran = subprocess.run(command, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_registers_and_spills_are_those_of_the_table(family, compiled, golden):
    names = list(compiled[0])
    rows = [names, *([str(x) for x in row.values()] for row in compiled)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    golden(GOLDEN / f"{family}.txt", "\n".join([f"triton {version('triton')}", "", *lines]))


def test_every_product_is_on_tensor_cores(family, compiled):
    if family in ("convolution", "gated_norm"):
        return  # which multiply no matrices
    assert {row["tensor cores"] for row in compiled if row["capability"] == 80} == {"mma"}
    assert {row["tensor cores"] for row in compiled if row["capability"] == 90} == {"wgmma"}


def test_no_kernel_but_a_crowded_chain_spills_a_register_on_sm_90(family, compiled):
    """That one leaves a tile of a step in memory, 128 bytes a thread there and back, and is faster than with more warps
    (runtime/kernels/shared_product/configurations.py)."""
    spills = {row["kernel"]: row["spill bytes"] for row in compiled if row["capability"] == 90 and row["spill bytes"]}
    assert spills == ({"chain, crowded": 256} if family == "shared_product" else {})
