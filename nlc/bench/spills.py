"""Registers that the kernels spill for sm_90, compiled ahead of time: no GPU is needed.

Of the self-referential cell: head width 64, bfloat16 operands.  Forward are the kernel of the chain and the read's,
backward the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nlc.bench.rows import Missing, Reading, Scale

ROOT = Path(__file__).parents[2]
FORWARD = ("forward", "read")
BACKWARD = ("prepare", "chain", "spread", "read gradient")


def compiled(chunk: int, kernels: tuple[str, ...]) -> Reading:
    """Spilled bytes of all of them together; each compiled in a process of its own, which does not interpret."""
    if find_spec("triton") is None:
        raise Missing("needs `triton`")
    if not (ROOT / "tests/kernels/ahead.py").is_file():
        raise Missing("needs a checkout of nlc, with tests/kernels/ahead.py")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.ahead", "shared_product", "--capability", "90"]
    command += ["--chunk", str(chunk), "--kernel", *kernels]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compiling ahead of time failed: {done.stderr.strip().splitlines()[-1]}")
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return Reading(sum(row["spill bytes"] for row in rows), details={"kernels": rows})


def forward(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    return {"spill-forward": compiled(64, FORWARD)}


def backward(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    with ThreadPoolExecutor() as pool:
        made = {id: pool.submit(compiled, int(id.rpartition("-")[2]), BACKWARD) for id in asked}
    return {id: one.result() for id, one in made.items()}
