"""One training step over a sequence of a million tokens on a GPU: hope at width 256, 4 heads, 4 layers.

    python bench/gpu_long.py OUT [--tokens 1048576] [--memory '32 GB'] [--seconds 90]

By the generated train.py as it stands, `carry: stream` and `run.memory` set (`nlc train --memory`): loss, gradients
through all tokens and the update of every level, float32 with TF32 products.  Activations of a span of tokens are in
memory at a time; between spans there is only the state of every memory, and each is run again for its gradient.

Each period of the continuum in PERIODS is first timed over a short sequence; the shortest whose whole step should
take at most --seconds is run.  Writes OUT/gpu_long.json and OUT/gpu_long.md; the status is 3 where none fits.
`--by 16 --device cpu` tries the code, and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_timed import place, write
from nlc.bench.training import Steps, loaded, through
from nlc.compile import compile
from nlc.spec import load

PERIODS = ((64, 256), (128, 512), (256, 1024), (512, 2048), (1024, 4096))
SHORT = 64  # chunks of the sequence that says how fast it goes, or the slowest period
AGAIN = 4 / 3  # of the time of a step: every span is run once more for its gradient


class Step(Steps):
    """One step, and its loss."""

    def report(self, loss: Tensor, state: Any = None) -> None:
        self.loss = float(loss.detach())


def step(tokens: int, periods: tuple[int, int], by: int, memory: str, device: str, count: int) -> dict[str, Any]:
    """`count` steps over sequences of so many tokens; of the last one how long it took and what it needed."""
    settings: dict[str, object] = {
        "sizes.width": max(16, 256 // by), "sizes.heads": 4 if by == 1 else 2, "sizes.layers": 4 if by == 1 else 1,
        "sizes.context": tokens, "run.batch": 1, "run.memory": memory,
        "levels.titans.chunk": max(4, 64 // by), "levels.titans.carry": "stream",
    }  # fmt: skip
    settings |= {
        f"levels.cms.memories.{name}.every": f"{n} tokens" for name, n in zip(("fast", "mid"), periods, strict=True)
    }
    made = compile(load("hope", settings), target="cuda")
    one = Step(loaded(made).settings, count, device)
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    through(loaded(made), one)
    assert made.graph.cost is not None
    found = {
        "tokens": tokens,
        "continuum every": list(periods),
        "seconds": one.seconds[-1],
        "tokens per second": tokens / one.seconds[-1],
        "loss": one.loss,
        "span": made.graph.cost.span,
    }
    if device != "cpu":
        found["bytes"], found["bytes reserved"] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return found


def chosen(o: argparse.Namespace) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
    """What short sequences took, and the first periods that should be fast enough."""
    tried = []
    for fast, mid in PERIODS:
        periods = (max(2, fast // o.by), max(4, mid // o.by))
        tokens = max(SHORT * max(4, 64 // o.by), periods[1])
        tried.append(step(tokens, periods, o.by, o.memory, o.device, 2))
        tried[-1]["seconds of all, estimated"] = o.tokens / tried[-1]["tokens per second"] * AGAIN
        print(tried[-1], flush=True)
        if tried[-1]["seconds of all, estimated"] <= o.seconds:
            return tried, periods
    return tried, None


def table(found: dict[str, Any]) -> str:
    columns = ("tokens", "continuum every", "span", "seconds", "tokens/s", "memory", "reserved", "loss, nats")
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}; {found['what']}", "",
        f"| {' | '.join(columns)} |", "|" + "---|" * len(columns),
    ]  # fmt: skip
    for of in [*found["tried"], *([found["run"]] if found["run"] else [])]:
        memory = [f"{of.get(kind, 0) / 2**30:.2f} GiB" for kind in ("bytes", "bytes reserved")]
        said = [f"{of['tokens']:,}", " / ".join(map(str, of["continuum every"])), f"{of['span'] or of['tokens']:,}"]
        said += [f"{of['seconds']:.2f}", f"{of['tokens per second']:,.0f}", *memory, f"{of['loss']:.4f}"]
        lines.append(f"| {' | '.join(said)} |")
    lines += [] if found["run"] else ["", "No period of the continuum is long enough for the time that was given."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=1_048_576, help="of the sequence (%(default)s)")
    parser.add_argument("--memory", default="32 GB", help="what the step may take (%(default)s)")
    parser.add_argument("--seconds", type=float, default=90.0, help="that the step may take (%(default)s)")
    parser.add_argument("--by", type=int, default=1, help="what every other size is divided by (%(default)s)")
    parser.add_argument("--device", default="cuda")
    o = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    tried, periods = chosen(o)
    found: dict[str, Any] = place() | {"what": "one training step, hope at width 256, 4 heads, 4 layers, batch 1"}
    found |= {"memory asked for": o.memory, "tried": tried, "run": None}
    write(o.out, "gpu_long", found, table(found))
    if periods is None:
        print(table(found))
        return 3
    found["run"] = step(o.tokens, periods, o.by, o.memory, o.device, 1)
    write(o.out, "gpu_long", found, table(found))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
