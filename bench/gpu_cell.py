"""The self-referential cell on a GPU: its kernels against the eager PyTorch form there, interleaved, medians.

    python bench/gpu_cell.py OUT [--repeats 10] [--quick]

The cell of nlc/bench/specs/cell.yaml: five boxes, rate and retention read out of two of them; d_model 1024,
16 heads of 64, chunks of 64 tokens.  It needs torch and triton alone.  Every shape is first checked against the eager
form.  Times are by CUDA events; the kernels take bfloat16 operands (float32 states); the eager form is timed in float32
with TF32 products, the fastest it has.  Writes OUT/gpu_cell.json and OUT/gpu_cell.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from runtime.kernels import Gates
from runtime.ops import l2norm, shared_product

H, K, C = 16, 64, 64
SHAPES = ((16, 2048), (8, 8192))
GATES = Gates("key", "value", "eta", "alpha", rate_form="sigmoid", keep_form="sigmoid", keep_shift=4.0)
READ = ("key", "value", "eta", "alpha")


def flow(reads: Any, extras: Any, weights: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z_key, z_value, z_rate, z_keep = reads
    return l2norm(z_key), l2norm(z_value), z_rate.squeeze(-1).sigmoid(), F.logsigmoid(z_keep.squeeze(-1) + 4)


class Cell:
    """Inputs and parameters of one shape, and the calls that are timed."""

    def __init__(self, B: int, T: int) -> None:
        g = torch.Generator("cuda").manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, device="cuda")
        self.start = {box: normal(H, K, K) * K**-0.5 for box in (*READ, "memory")}
        self.out = {box: normal(H, 1, K) * K**-0.5 for box in ("eta", "alpha")}
        self.u, self.q, self.weigh = normal(B, T, H, K), l2norm(normal(B, T, H, K)), normal(B, T, H, K)
        self.leaves = [self.u, self.q, *self.start.values(), *self.out.values()]
        for x in self.leaves:
            x.requires_grad_()

    def forward(self, gates: Gates | None, low: bool) -> Tensor:
        B = self.u.shape[0]
        states = {box: {"M": S.expand(B, *S.shape)} for box, S in self.start.items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            shared = shared_product(
                flow, states, ((self.u, READ),), chunk=C, start=self.start, readouts=self.out, outputs=False,
                final=True, gates=gates,
            )  # fmt: skip
        return shared.read("memory", self.q)

    def both(self, gates: Gates | None, low: bool) -> tuple[Tensor, ...]:
        y = self.forward(gates, low)
        return torch.autograd.grad(y, self.leaves, self.weigh.to(y.dtype))


KERNELS, EAGER = "kernels, bfloat16 operands", "eager PyTorch, TF32"
VARIANTS: dict[str, tuple[Gates | None, bool]] = {KERNELS: (GATES, True), EAGER: (None, False)}


def difference(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def agreement(cell: Cell) -> float:
    """The largest relative difference of the output and all gradients to the eager form in full float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    want = [cell.forward(*VARIANTS[EAGER]).detach(), *cell.both(*VARIANTS[EAGER])]
    torch.backends.cuda.matmul.allow_tf32 = True
    got = [cell.forward(*VARIANTS[KERNELS]).detach(), *cell.both(*VARIANTS[KERNELS])]
    return max(difference(a, b) for a, b in zip(got, want, strict=True))


def milliseconds(run: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def timed(cell: Cell, work: str, repeats: int) -> dict[str, dict[str, float]]:
    """Every variant in turn; two turns warm up, and the eager form, which is slow, stops after five."""
    run, tokens = getattr(cell, work), cell.u.shape[0] * cell.u.shape[1]
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(repeats + 2):
        for name, (gates, low) in VARIANTS.items():
            if name == EAGER and turn > 4:
                continue
            took = milliseconds(partial(run, gates, low))
            if turn > 1:
                times[name].append(took)
    return {
        name: {
            "milliseconds": statistics.median(x),
            "fastest": min(x),
            "slowest": max(x),
            "tokens per second": tokens / statistics.median(x) * 1e3,
        }
        for name, x in times.items()
    }


def measure(B: int, T: int, repeats: int) -> dict[str, Any]:
    cell = Cell(B, T)
    agree = agreement(cell)
    times = {work: timed(cell, work, repeats) for work in ("forward", "both")}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cell.both(*VARIANTS[KERNELS])
    peak = torch.cuda.max_memory_allocated() - before
    return {"batch": B, "tokens": T, "largest relative difference": agree, "times": times, "peak bytes": peak}


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}; {found['what']}", "",
        "| batch x tokens | work | kernels, bf16 | eager, TF32 | times eager | million tokens/s |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for shape in found["shapes"]:
        for work, label in (("forward", "forward"), ("both", "forward + backward")):
            fast, slow = (shape["times"][work][name]["milliseconds"] for name in (KERNELS, EAGER))
            rate = shape["times"][work][KERNELS]["tokens per second"] / 1e6
            size = f"{shape['batch']} x {shape['tokens']}"
            lines.append(f"| {size} | {label} | {fast:.2f} ms | {slow:.1f} ms | {slow / fast:.1f} | {rate:.1f} |")
    lines += [
        "",
        "Largest relative difference of output and gradients to eager float32, and peak memory of the kernels:",
    ]
    for shape in found["shapes"]:
        differ, peak = shape["largest relative difference"], shape["peak bytes"] / 2**30
        lines += ["", f"- {shape['batch']} x {shape['tokens']}: {differ:.1e}; {peak:.2f} GiB"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="the first shape alone")
    o = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU here: torch.cuda.is_available() is false")
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "what": f"one HOPE cell, d_model {H * K}, {H} heads of {K}, chunks of {C} tokens",
        "shapes": [measure(B, T, o.repeats) for B, T in SHAPES[: 1 if o.quick else None]],
    }
    o.out.mkdir(parents=True, exist_ok=True)
    (o.out / "gpu_cell.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (o.out / "gpu_cell.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
