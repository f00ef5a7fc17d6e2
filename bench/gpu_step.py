"""Training steps on a GPU, by the generated train.py of a spec as it stands: hope and a Transformer of equal width.

    python bench/gpu_step.py OUT [--steps 6] [--by 1] [--device cuda]

d_model 1024, 16 heads, 4 layers, 8 sequences of 2,048 tokens, bfloat16 products, AdamW: batch, loss, gradients, the
look whether all is finite, and the update of every level.  Every system is run as always, and with its steps recorded
as CUDA graphs (`nlc train --cuda-graphs`), whose first losses must be the same.  hope stands here as it is shipped, its
continuum written every 64 and 256 tokens; with longer periods; and with its continuum at `never`, where its two fast
memories are ordinary MLPs.  The Transformer has attention by scaled_dot_product_attention and a 4x MLP.

Seconds are those of the median step; memory is the most that tensors had, and the most that was reserved for them.
Writes OUT/gpu_step.json and OUT/gpu_step.md.  `--by 32 --device cpu` tries the code, and measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_timed import longest, place, write
from nlc.bench.activations import NEVER
from nlc.bench.training import Steps, loaded, through
from nlc.compile import compile
from nlc.spec import load
from runtime.cuda_graphs import WARM, CudaGraphs
from runtime.finite import Guard
from runtime.processes import Processes

ALWAYS, RECORDED = "as always", "as CUDA graphs"
EQUAL = 2e-3  # of the losses of both, relative: sums of some gradients come in no fixed order


def periods(fast: int, mid: int) -> dict[str, object]:
    return {f"levels.cms.memories.{name}.every": f"{n} tokens" for name, n in (("fast", fast), ("mid", mid))}


def systems(by: int) -> dict[str, tuple[str, dict[str, object]]]:
    """Name -> spec and settings; every size is divided by `by`."""
    heads = max(2, 16 // by)
    equal: dict[str, object] = {
        "sizes.width": max(1024 // by, 8 * heads), "sizes.heads": heads, "sizes.layers": 4 if by == 1 else 1,
        "sizes.context": 2048 // by, "run.batch": max(2, 8 // by), "run.precision": "bfloat16", "run.memory": "100 GB",
    }  # fmt: skip
    hope = equal | {"levels.titans.chunk": max(4, 64 // by)}
    return {
        "hope, continuum every 64 and 256 tokens": ("hope", hope | periods(64 // by, 256 // by)),
        "hope, every 512 and 1024": ("hope", hope | periods(512 // by, 1024 // by)),
        "hope, never": ("hope", hope | NEVER),
        "transformer": ("transformer", equal),
    }


class Run(Steps):
    """Steps as a run makes them, the look at every gradient included."""

    def __init__(self, *given: Any, graphs: CudaGraphs | None = None) -> None:
        super().__init__(*given, graphs=graphs)
        self.guard, self.losses, self.parameters = Guard("stop", Processes()), [], 0
        self.seen = [ProfilerActivity.CUDA] if self.device != "cpu" else []

    def steps(self, model: Any, levels: Any) -> Any:
        """The last one is looked at, kernel by kernel."""
        self.levels, self.parameters = levels, sum(p.numel() for p in model.parameters())
        for step in super().steps(model, levels):
            last = step == self.settings.steps - 1 and self.seen
            with profile(activities=self.seen) if last else nullcontext() as seen:
                yield step
                self.now()
        self.kernels = longest(seen, 1) if self.seen else {}

    def backward(self, loss: Tensor, state: Any = None) -> None:
        self.guard.backward(loss, self.levels, state)

    def report(self, loss: Tensor, state: Any = None) -> None:
        self.losses.append(loss.detach())


def measure(module: Any, count: int, device: str, recorded: bool) -> dict[str, Any]:
    """`count` steps after those that warm up, the one that records included."""
    said: list[str] = []
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    graphs = CudaGraphs(said.append) if recorded else None
    run = Run(module.settings, WARM + 2 + count, device, graphs=graphs)
    began = time.perf_counter()
    through(module, run)
    took, tokens = run.seconds[WARM + 1 : -1], module.settings.tokens
    found = {
        "milliseconds": 1e3 * statistics.median(took),
        "fastest": 1e3 * min(took),
        "slowest": 1e3 * max(took),
        "tokens per second": tokens / statistics.median(took),
        "seconds in all": time.perf_counter() - began,
        "losses": [float(loss) for loss in run.losses],
        "parameters": run.parameters,
        "said": said,
        "trace": graphs.trace if graphs else "",
        "milliseconds by kernel": run.kernels,
    }
    if device != "cpu":
        found["bytes"], found["bytes reserved"] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return found


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}; training steps, {found['what']}", "",
        "| system | parameters | steps | milliseconds | tokens/s | memory | reserved |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, modes in found["systems"].items():
        for mode, of in modes.items():
            if "error" in of:
                lines.append(f"| {name} | | {mode} | {of['error']} | | | |")
                continue
            memory = [f"{of.get(kind, 0) / 2**30:.1f} GiB" for kind in ("bytes", "bytes reserved")]
            took, speed = f"{of['milliseconds']:.1f}", f"{of['tokens per second']:,.0f}"
            lines.append(f"| {name} | {of['parameters']:,} | {mode} | {took} | {speed} | {' | '.join(memory)} |")
            lines += [f"| | | | {said} | | | |" for said in of["said"]]
    lines += ["", "The kernels that take longest, in milliseconds of a step as CUDA graphs:"]
    for name, modes in found["systems"].items():
        first = list(modes.get(RECORDED, {}).get("milliseconds by kernel", {}).items())[:10]
        lines += ["", f"- {name}: " + ", ".join(f"{kernel[:48]} {took:.2f}" for kernel, took in first)]
    return "\n".join(lines) + "\n"


def unlike(modes: dict[str, dict[str, Any]]) -> bool:
    """Whether recorded steps went another way than all others."""
    losses = [of["losses"] for of in modes.values() if "losses" in of]
    return any(abs(a - b) > EQUAL * abs(a) for a, b in zip(losses[0], losses[-1], strict=True)) if losses else False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6, help="that are timed (%(default)s)")
    parser.add_argument("--by", type=int, default=1, help="what every size is divided by (%(default)s)")
    parser.add_argument("--device", default="cuda")
    o = parser.parse_args()
    chosen = systems(o.by)
    s = load(*chosen["transformer"]).model
    sizes = ", ".join(f"{name} {size}" for name, size in s.sizes.items())
    found: dict[str, Any] = place() | {"what": f"{sizes}, batch {s.run.batch}, bfloat16", "systems": {}}
    status = 0
    for name, (spec, settings) in chosen.items():
        module = loaded(compile(load(spec, settings), target="cuda"))
        modes: dict[str, dict[str, Any]] = {}
        for mode in (ALWAYS, RECORDED) if o.device != "cpu" else (ALWAYS,):
            try:
                modes[mode] = measure(module, o.steps, o.device, mode == RECORDED)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                modes[mode] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
            print(name, mode, modes[mode].get("milliseconds", modes[mode].get("error")), flush=True)
        found["systems"][name] = modes
        status |= unlike(modes) or any("error" in of for of in modes.values())
        write(o.out, "gpu_step", found, table(found))
    print(table(found))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
