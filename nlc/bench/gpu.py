"""The cell's kernels on a GPU, forward and backward: against the eager form, and the gated delta rule of fla-core.

d_model 1024, 16 heads of 64, chunks of 64, 16 sequences of 2,048 tokens, bfloat16 operands, CUDA events.  The first two
are the numbers of bench/gpu_cell.py, in a process of its own.  Of fla-core it is `chunk_gated_delta_rule` at equal
shapes: one matrix memory per head, given keys, values, rates and decays; ours writes five, and makes its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nlc.bench.packages import needed
from nlc.bench.rows import Missing, Reading, Scale
from nlc.bench.spills import ROOT

SCRIPT = ROOT / "bench/gpu_cell.py"
B, T, H, K = 16, 2048, 16, 64
REPEATS, WARM = 10, 2


def cell() -> dict[str, Any]:
    """The first shape of bench/gpu_cell.py: what it measured, checked there against the eager form."""
    if not torch.cuda.is_available():
        raise Missing("needs a GPU")
    if not SCRIPT.is_file():
        raise Missing("needs a checkout of nlc, with bench/gpu_cell.py")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, str(SCRIPT), folder, "--quick"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"bench/gpu_cell.py failed: {done.stderr.strip().splitlines()[-1]}")
        found: dict[str, Any] = json.loads((Path(folder) / "gpu_cell.json").read_text(encoding="utf-8"))
    shape: dict[str, Any] = found["shapes"][0]
    return shape


def speed(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    shape = cell()
    fast, slow = shape["times"]["both"].values()
    found = {
        "gpu-cell": Reading(fast["tokens per second"] / 1e6, details=shape),
        "gpu-eager": Reading(slow["milliseconds"] / fast["milliseconds"], details=shape),
    }
    return {id: found[id] for id in asked}


def fla(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    if not torch.cuda.is_available():
        raise Missing("needs a GPU")
    (rule,) = needed("fla-core", "fla.ops.gated_delta_rule")
    ours, _ = cell()["times"]["both"].values()
    run = theirs(rule)
    took = [milliseconds(run) for _ in range(WARM + REPEATS)][WARM:]
    details = {"milliseconds": {"nlc": ours["milliseconds"], "fla": statistics.median(took)}, "shape": [B, T, H, K]}
    return {"gpu-fla": Reading(statistics.median(took) / ours["milliseconds"], details=details)}


def theirs(rule: Any) -> Callable[[], None]:
    """A forward and a backward pass; keys and queries of unit length, as ours are."""
    draw = partial(torch.randn, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    q, k, v, e, a = draw(B, T, H, K), draw(B, T, H, K), draw(B, T, H, K), draw(B, T, H), draw(B, T, H)
    weigh = torch.randn_like(v)

    def both() -> None:
        q_unit, k_unit = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        o, _ = rule.chunk_gated_delta_rule(q_unit, k_unit, v, F.logsigmoid(a.float() + 4), e.sigmoid())
        torch.autograd.grad(o, (q, k, v, e, a), weigh)

    return both


def milliseconds(run: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))
