"""The kernels on a GPU against `fla-core`'s gated delta rule at equal shapes, interleaved.

    python bench/gpu_fla.py OUT [--repeats 10] [--quick]

d_model 1024, 16 heads of 64, chunks of 64 tokens.  Three that take turns:

    the HOPE cell      bench/gpu_cell.py: five memories that write themselves, their keys, values, rates and decays made
    the gated delta    bench/gpu_memory.py: one memory; keys, values, queries, rates and decays are given, in float32
    fla                `fla.ops.gated_delta_rule.chunk_gated_delta_rule`: the same memory, of the same numbers in
                       bfloat16 (decays float32), scale 1, no state asked for

The last two are first compared with the eager form in float32, outputs and gradients.  On a Hopper GPU `fla-core`
refuses a gradient by Triton 3.4 to 3.7.0, whose code for one of its kernels errs, and takes TileLang's where that is
installed.  Both are timed: TileLang's, and its own kernel with the refusal lifted, whose gradients may be wrong by what
is written here, but whose time is that of the same work.  Times are by CUDA events.  Writes OUT/gpu_fla.json and .md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_cell import Cell
from bench.gpu_memory import Memory
from bench.gpu_timed import EAGER, KERNELS, SHAPES, WORK, difference, in_graph, options, place, timed, write

CELL, MEMORY = "nlc, the HOPE cell", "nlc, the gated delta rule"
FLA, LIFTED = "fla, as it comes", "fla, its own kernel, refusal lifted"
THEIRS = (FLA, LIFTED)
LEAVES = ("key", "value", "query", "rate", "decay")


class Fla:
    """The memory of a shape as fla-core computes it."""

    def __init__(self, memory: Memory) -> None:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule

        self.rule = chunk_gated_delta_rule
        half = [x.detach().bfloat16().requires_grad_() for x in memory.leaves[:-1]]
        self.leaves = [*half, memory.keep.detach().clone().requires_grad_()]
        self.weigh = memory.weigh.bfloat16()

    def forward(self, variant: str) -> Tensor:
        chosen(variant)
        k, v, q, rate, keep = self.leaves
        y: Tensor = self.rule(q, k, v, keep, rate, scale=1.0)[0]
        return y

    def both(self, variant: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(variant), self.leaves, self.weigh)


def chosen(variant: str) -> None:
    """Which kernels fla-core takes from here on."""
    from fla.ops.common import chunk_o

    os.environ.pop("FLA_TILELANG", None)
    if variant == LIFTED:
        os.environ["FLA_TILELANG"] = "0"
    chunk_o.TRITON_ABOVE_3_7_1 = variant == LIFTED or GUARD


def agreement(memory: Memory, fla: Fla) -> dict[str, dict[str, float | str]]:
    """Relative differences to the eager form in float32; of a variant that does not run, why."""
    torch.backends.cuda.matmul.allow_tf32 = False
    want = [memory.forward(EAGER).detach(), *memory.both(EAGER)]
    torch.backends.cuda.matmul.allow_tf32 = True
    runs: dict[str, Any] = {MEMORY: (memory, KERNELS)} | {name: (fla, name) for name in THEIRS}
    found: dict[str, dict[str, float | str]] = {}
    for name, (one, variant) in runs.items():
        try:
            got = [one.forward(variant).detach(), *one.both(variant)]
        except Exception as error:  # of another package, at its first call
            found[name] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
        else:
            names = ("output", *LEAVES)
            found[name] = {part: difference(a, b) for part, a, b in zip(names, got, want, strict=True)}
    return found


def measure(B: int, T: int, repeats: int) -> dict[str, Any]:
    cell, memory = Cell(B, T), Memory(B, T)
    fla = Fla(memory)
    agree = agreement(memory, fla)
    found: dict[str, Any] = {"batch": B, "tokens": T, "relative differences": agree, "times": {}, "peak bytes": {}}
    for work in WORK:
        runs: dict[str, Callable[[], Any]] = {CELL: partial(getattr(cell, work), KERNELS)}
        runs[MEMORY] = partial(getattr(memory, work), KERNELS)
        theirs = [name for name in THEIRS if "error" not in agree[name]]
        runs |= {name: partial(getattr(fla, work), name) for name in theirs[: 1 if work == "forward" else None]}
        times = timed(lambda name: runs[name](), B * T, repeats, tuple(runs))  # noqa: B023
        for name, run in runs.items():
            times[name]["milliseconds in a CUDA graph"] = in_graph(run, repeats)  # type: ignore[assignment]
        found["times"][work] = times
        found["peak bytes"] |= {name: peak(run) for name, run in runs.items()} if work == "both" else {}
    return found


def peak(run: Callable[[], Any]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}, fla-core {found['fla-core']}, TileLang "
        f"{found['tilelang']}; d_model 1024, 16 heads of 64, chunks of 64 tokens", "",
        "| batch x tokens | work | who | milliseconds | in a CUDA graph | million tokens/s | our cell is times as fast "
        "| our memory is times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for shape in found["shapes"]:
        for work, times in shape["times"].items():
            ours = [times[name]["milliseconds"] for name in (CELL, MEMORY)]
            for name, of in times.items():
                took, graph = of["milliseconds"], of["milliseconds in a CUDA graph"]
                rate, graph = of["tokens per second"] / 1e6, f"{graph:.2f}" if graph else "not captured"
                said = [f"{took / mine:.2f}" if name in THEIRS else "" for mine in ours]
                row = f"{WORK[work]} | {name} | {took:.2f} | {graph} | {rate:.1f} | {said[0]} | {said[1]}"
                lines.append(f"| {shape['batch']} x {shape['tokens']} | {row} |")
    lines += ["", "Relative differences to the eager form in float32, and peak memory of forward and backward:"]
    for shape in found["shapes"]:
        for name, parts in shape["relative differences"].items():
            said = ", ".join(f"{part} {x:.1e}" if isinstance(x, float) else str(x) for part, x in parts.items())
            taken = shape["peak bytes"].get(name, 0) / 2**30
            lines += ["", f"- {shape['batch']} x {shape['tokens']}, {name}: {said}; {taken:.2f} GiB"]
    return "\n".join(lines) + "\n"


def installed(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "none"


if __name__ == "__main__":
    o = options(__doc__)
    if installed("fla-core") == "none":
        sys.exit("needs `fla-core`: pip install fla-core")
    from fla.ops.common import chunk_o

    GUARD = chunk_o.TRITON_ABOVE_3_7_1  # as it comes
    shapes = [measure(B, T, o.repeats) for B, T in SHAPES[: 1 if o.quick else None]]
    found = place() | {"fla-core": installed("fla-core"), "tilelang": installed("tilelang"), "shapes": shapes}
    write(o.out, "gpu_fla", found, table(found))
    print(table(found))
