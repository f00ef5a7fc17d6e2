"""What the scripts on a GPU share: variants in turn by CUDA events, time by kernel, agreement, one table.

A script's shape has `forward(variant)` and `both(variant)`, which returns the gradients of all its leaves; KERNELS is
the variant that is judged, EAGER the one it is compared with.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import triton
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

KERNELS, EAGER = "kernels, bfloat16 operands", "eager PyTorch, TF32"
SHAPES = ((16, 2048), (8, 8192))
WORK = {"forward": "forward", "both": "forward + backward"}


class Shape(Protocol):
    def forward(self, variant: str) -> Tensor | tuple[Tensor, ...]: ...

    def both(self, variant: str) -> tuple[Tensor, ...]: ...


def difference(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def agreement(shape: Shape) -> float:
    """The largest relative difference of the outputs and all gradients to the eager form in full float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    want = outputs(shape, EAGER)
    torch.backends.cuda.matmul.allow_tf32 = True
    got = outputs(shape, KERNELS)
    return max(difference(a, b) for a, b in zip(got, want, strict=True))


def outputs(shape: Shape, variant: str) -> list[Tensor]:
    given = shape.forward(variant)
    return [x.detach() for x in (given if isinstance(given, tuple) else (given,))] + list(shape.both(variant))


def milliseconds(run: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def in_a_row(run: Callable[[], Any], repeats: int, runs: int = 5) -> float:
    """Milliseconds of one of several runs after one another, as a training step has them: the host works ahead."""

    def several() -> None:
        for _ in range(runs):
            run()

    return statistics.median([milliseconds(several) for _ in range(repeats + 1)][1:]) / runs


def on_the_host(run: Callable[[], Any], repeats: int) -> float:
    """Milliseconds until a run has asked the GPU for everything, whatever that takes."""
    took = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        took.append(1e3 * (time.perf_counter() - began))
    torch.cuda.synchronize()
    return statistics.median(took[2:])


def timed(
    run: Callable[[str], Any], tokens: int, repeats: int, names: Sequence[str] = (KERNELS, EAGER)
) -> dict[str, dict[str, float]]:
    """All variants in turn; two turns warm up, and the eager form, which is slow, stops after five."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 2):
        for name in times:
            if name == EAGER and turn > 4:
                continue
            took = milliseconds(partial(run, name))
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


def in_graph(run: Callable[[], Any], repeats: int) -> float | None:
    """Milliseconds of a run that a CUDA graph replays: what the kernels take when nothing on the host delays them.

    None, and a line that says why, where the run cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        print(f"not captured in a CUDA graph: {error}", file=sys.stderr)
        return None
    return statistics.median([milliseconds(graph.replay) for _ in range(repeats + 2)][2:])


def by_kernel(run: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """Milliseconds of every kernel in one run, the longest first."""
    run()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
    return longest(seen, repeats)


def longest(seen: profile, repeats: int) -> dict[str, float]:
    found = {e.key: e.self_device_time_total / repeats / 1e3 for e in seen.key_averages()}
    return dict(sorted(((k, round(x, 4)) for k, x in found.items() if x > 0), key=lambda item: -item[1])[:16])


def measure(made: Callable[[int, int], Shape], B: int, T: int, repeats: int) -> dict[str, Any]:
    shape = made(B, T)
    agree = agreement(shape)
    times = {work: timed(getattr(shape, work), B * T, repeats) for work in WORK}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    shape.both(KERNELS)
    peak = torch.cuda.max_memory_allocated() - before
    kernels = by_kernel(partial(shape.both, KERNELS))
    graphs = {work: in_graph(partial(getattr(shape, work), KERNELS), repeats) for work in WORK}
    found = {"batch": B, "tokens": T, "largest relative difference": agree, "times": times, "peak bytes": peak}
    row = {work: in_a_row(partial(getattr(shape, work), KERNELS), repeats) for work in WORK}
    host = {work: on_the_host(partial(getattr(shape, work), KERNELS), repeats) for work in WORK}
    found |= {"milliseconds in a row": row, "milliseconds on the host": host}
    return found | {"milliseconds in a CUDA graph": graphs, "milliseconds by kernel": kernels}


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}; {found['what']}", "",
        "| batch x tokens | work | kernels | eager | times eager | million tokens/s | one after another |"
        " in a CUDA graph | of it on the host |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for shape in found["shapes"]:
        for work, label in WORK.items():
            fast, slow = (shape["times"][work][name]["milliseconds"] for name in (KERNELS, EAGER))
            tokens, graph = shape["batch"] * shape["tokens"] / 1e3, shape["milliseconds in a CUDA graph"][work]
            row, host = shape["milliseconds in a row"][work], shape["milliseconds on the host"][work]
            most = f"{tokens / graph:.1f} ({graph:.2f} ms)" if graph else "not captured"
            said = f"{label} | {fast:.2f} ms | {slow:.1f} ms | {slow / fast:.1f} | {tokens / fast:.1f}"
            said += f" | {tokens / row:.1f} ({row:.2f} ms) | {most} | {host:.2f} ms"
            lines.append(f"| {shape['batch']} x {shape['tokens']} | {said} |")
    lines += [
        "",
        "One run alone begins with an idle GPU, which waits for the host; of five in a row, one after another,",
    ]
    lines += ["it waits where the host takes longer; in a graph never.", ""]
    lines += ["Relative difference of output and gradients to eager float32, the largest; peak memory; the kernels"]
    lines += ["that take longest, in milliseconds of a forward and backward pass:"]
    for shape in found["shapes"]:
        differ, peak = shape["largest relative difference"], shape["peak bytes"] / 2**30
        first = list(shape["milliseconds by kernel"].items())[:8]
        said = ", ".join(f"{name[:40]} {x:.3f}" for name, x in first)
        lines += ["", f"- {shape['batch']} x {shape['tokens']}: {differ:.1e}; {peak:.2f} GiB; {said}"]
    return "\n".join(lines) + "\n"


def main(name: str, what: str, made: Callable[[int, int], Shape], doc: str | None) -> None:
    """Measure every shape and write OUT/<name>.json and OUT/<name>.md."""
    o = options(doc)
    shapes = [measure(made, B, T, o.repeats) for B, T in SHAPES[: 1 if o.quick else None]]
    found = place() | {"what": what, "shapes": shapes}
    write(o.out, name, found, table(found))
    print(table(found))


def options(doc: str | None) -> argparse.Namespace:
    """out, repeats, quick: of the command line.  Ends the command where there is no GPU."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="the first shape alone")
    o = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU here: torch.cuda.is_available() is false")
    return o


def place() -> dict[str, Any]:
    """The GPU, and the versions of what ran."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def write(out: Path, name: str, found: Mapping[str, Any], said: str) -> None:
    """OUT/<name>.json and OUT/<name>.md."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(said, encoding="utf-8")
