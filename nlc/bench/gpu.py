"""The cell's kernels on a GPU, forward and backward: against the eager form, and the gated delta rule of fla-core.

d_model 1024, 16 heads of 64, chunks of 64, 16 sequences of 2,048 tokens, bfloat16 operands, CUDA events: the first
shape of bench/gpu_cell.py and of bench/gpu_fla.py, each in a process of its own, which say what is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from nlc.bench.packages import needed
from nlc.bench.rows import Missing, Reading, Scale
from nlc.bench.spills import ROOT


def measured(name: str) -> dict[str, Any]:
    """The first shape of bench/<name>.py: what it measured, checked there against the eager form."""
    script = ROOT / f"bench/{name}.py"
    if not torch.cuda.is_available():
        raise Missing("needs a GPU")
    if not script.is_file():
        raise Missing(f"needs a checkout of nlc, with bench/{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, str(script), folder, "--quick"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"bench/{name}.py failed: {done.stderr.strip().splitlines()[-1]}")
        found: dict[str, Any] = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    shape: dict[str, Any] = found["shapes"][0]
    return shape


def speed(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    shape = measured("gpu_cell")
    fast, slow = shape["times"]["both"].values()
    found = {
        "gpu-cell": Reading(fast["tokens per second"] / 1e6, details=shape),
        "gpu-eager": Reading(slow["milliseconds"] / fast["milliseconds"], details=shape),
    }
    return {id: found[id] for id in asked}


def fla(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Its fastest gradient over that of the cell."""
    if not torch.cuda.is_available():
        raise Missing("needs a GPU")
    needed("fla-core", "fla.ops.gated_delta_rule")
    shape = measured("gpu_fla")
    ours, _, *theirs = shape["times"]["both"].values()
    if not theirs:
        raise Missing("needs a `fla-core` that runs here: see bench/gpu_fla.py")
    took = min(times["milliseconds"] for times in theirs)
    return {"gpu-fla": Reading(took / ours["milliseconds"], details=shape)}
