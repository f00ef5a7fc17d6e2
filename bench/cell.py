"""The generated HOPE cell against a per-token loop: forward and backward, one thread, interleaved, medians.

    python bench/cell.py [--repeats 7] [--json]

The cell is bench/cell.yaml, compiled as anyone's would be: five self-referential boxes, rate and retention read from
two of them, retention towards the start.  The loop computes the same in PyTorch, a token at a time, and is fair: all
boxes, heads and sequences are one batched rank-one update (`lerp`, `baddbmm`), reads are batched products, what is
fixed within a chunk (the read-out rows) is computed once per chunk, and there is no Python loop over heads.  `loop of
rows` goes further than the equations say: it carries one row of each box that is read through a read-out.  Both are
checked against the cell first.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import nlc
from runtime.ops import l2norm

HERE = Path(__file__).parent
BOXES = ("key", "value", "eta", "alpha", "memory")
B, T, H, K, C = 4, 512, 4, 64, 64

Weights = dict[str, Tensor]


def loop(p: Weights, u: Tensor, q: Tensor) -> Tensor:
    """Five boxes of K rows, one rank-one update per token; u, q (B, T, H, K)."""
    w_rate, w_keep = flat(p["rate.linear"]), flat(p["retain.linear"])
    start = torch.cat([flat(p[f"{box}.start"]) for box in BOXES], 1)

    def rows(S: Tensor) -> Tensor:
        key_value, eta, alpha = S[:, : 2 * K], S[:, 2 * K : 3 * K], S[:, 3 * K : 4 * K]
        return torch.cat((key_value, w_rate @ eta, w_keep @ alpha), 1)

    return walk(start, rows, u, q)


def loop_of_rows(p: Weights, u: Tensor, q: Tensor) -> Tensor:
    """Three boxes of K rows and one row of each of the other two."""
    eta, alpha = p["rate.linear"] @ p["eta.start"], p["retain.linear"] @ p["alpha.start"]
    parts = (p["key.start"], p["value.start"], eta, alpha, p["memory.start"])
    return walk(torch.cat([flat(x) for x in parts], 1), lambda S: S[:, : 2 * K + 2], u, q)


def flat(x: Tensor) -> Tensor:
    return x.expand(B, *x.shape).flatten(0, 1)


def walk(start: Tensor, rows: Callable[[Tensor], Tensor], u: Tensor, q: Tensor) -> Tensor:
    """M_t = a M_{t-1} + (1 - a) M_0 - e (M_{t-1} k + M_{t'} (k - v)) k^T, stacked boxes (B H, R, K)."""
    S, outs = start, []
    for t in range(T):
        if t % C == 0:
            held, read = S, rows(S).mT
        z = u[:, t].flatten(0, 1).unsqueeze(1) @ read
        k, v = l2norm(z[..., :K]), l2norm(z[..., K : 2 * K])
        e, a = z[..., 2 * K : 2 * K + 1].sigmoid(), (z[..., 2 * K + 1 :] + 4).sigmoid()
        outs.append(q[:, t].flatten(0, 1).unsqueeze(1) @ held[:, -K:].mT)
        row = S @ k.mT + held @ (k - v).mT
        S = torch.baddbmm(torch.lerp(start, S, a), e * row, k, alpha=-1)
    return torch.cat(outs, 1).view(B, H, T, K).transpose(1, 2)


def seconds(run: Callable[[], Tensor], weigh: Tensor) -> float:
    """One forward and backward."""
    began = time.perf_counter()
    run().backward(weigh)
    return time.perf_counter() - began


def variants(dtype: torch.dtype, folder: str) -> tuple[dict[str, Callable[[], Tensor]], list[Tensor], Tensor]:
    """What is timed, the leaves whose gradients are compared, and the gradient that comes in."""
    model = nlc.compile(HERE / "cell.yaml", out=folder).model(seed=0, dtype=dtype)
    g = torch.Generator().manual_seed(0)
    u, q, weigh = (torch.randn(B, T, H, K, generator=g, dtype=torch.float64).to(dtype) for _ in range(3))
    q = l2norm(q)
    u, q = u.requires_grad_(), q.requires_grad_()
    parameters = {name.removeprefix("blocks.0.titans."): x for name, x in model.named_parameters()}
    runs = {
        "generated": lambda: model(u=u, q=q, final=True)[0],
        "loop": lambda: loop(parameters, u, q),
        "loop of rows": lambda: loop_of_rows(parameters, u, q),
    }
    return runs, [u, q, *parameters.values()], weigh


def agreement(folder: str) -> float:
    """The largest relative difference of outputs and gradients between the cell and either loop, in float64."""
    runs, leaves, weigh = variants(torch.float64, folder)
    found = []
    for run in runs.values():
        y = run()
        found.append([y, *torch.autograd.grad(y, leaves, weigh)])
    pairs = [(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def saved_bytes(run: Callable[[], Tensor]) -> float:
    """Bytes that a forward pass keeps for its backward pass, per token, shared storage counted once."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = run()
    del y
    return sum(kept.values()) / (B * T)


def measure(repeats: int, folder: str) -> dict[str, object]:
    difference = agreement(folder)
    runs, leaves, weigh = variants(torch.float32, folder)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):  # the first turn warms up
        for name, run in runs.items():
            for _ in range(5 if name == "generated" else 1):
                took = seconds(run, weigh)
                if turn:
                    times[name].append(took)
                for x in leaves:
                    x.grad = None
    median = {name: statistics.median(x) for name, x in times.items()}
    return {
        "cell": {"batch": B, "tokens": T, "heads": H, "width": K * H, "chunk": C, "dtype": "float32", "threads": 1},
        "milliseconds": {name: round(1e3 * x, 2) for name, x in median.items()},
        "tokens per second": {name: round(B * T / x) for name, x in median.items()},
        "times the loop": {name: round(median[name] / median["generated"], 1) for name in runs if name != "generated"},
        "saved bytes per token": {name: round(saved_bytes(run)) for name, run in runs.items()},
        "largest relative difference, float64": difference,
        "machine": {"processor": processor(), "python": platform.python_version(), "torch": torch.__version__},
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed turns; each runs every variant")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.repeats, folder)
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    for name, value in found.items():
        print(
            f"{name}: "
            + (", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value:.1e}")
        )


if __name__ == "__main__":
    main()
