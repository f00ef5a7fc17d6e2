"""One training step over a sequence of a million tokens on a GPU: hope at width 256, 4 heads, 4 layers.

    python bench/gpu_long.py OUT [--tokens 1048576] [--memory '48 GB'] [--span 2048] [--seconds 90] [--skip 0]

By the generated train.py as it stands, `carry: stream` and `run.memory` set (`nlc train --memory`), spans recorded as
CUDA graphs (`--cuda-graphs`): loss, gradients through all tokens, the update of every level; float32, TF32 products.
Activations of a span of tokens are in memory at a time; between spans there is only the state of every memory, and each
is run again for its gradient.  A graph is recorded once and as long as its span, so spans are shorter here than the
memory would allow.

Each period of the continuum in PERIODS is first timed over two short sequences; the first whose whole step should take
at most --seconds is run.  Writes OUT/gpu_long.json and OUT/gpu_long.md; the status is 3 where none does.
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
from runtime.cuda_graphs import CudaGraphs

PERIODS = ((64, 256), (256, 1024), (512, 2048))
SHORT = (6, 10)  # spans of the sequences that say how fast it goes


class Step(Steps):
    """One step, and its loss; in spans of at most so many tokens."""

    span: int

    def steps(self, model: Any, levels: Any) -> Any:
        model.span = min(self.span, model.span or self.span)
        return super().steps(model, levels)

    def report(self, loss: Tensor, state: Any = None) -> None:
        self.loss = float(loss.detach())


def step(o: argparse.Namespace, tokens: int, periods: tuple[int, int], count: int) -> dict[str, Any]:
    """`count` steps over sequences of so many tokens: how long the last one took, and what it needed."""
    settings: dict[str, object] = {
        "sizes.width": max(16, 256 // o.by), "sizes.heads": 4 if o.by == 1 else 2,
        "sizes.layers": 4 if o.by == 1 else 1, "sizes.context": tokens, "run.batch": 1, "run.memory": o.memory,
        "levels.titans.chunk": max(4, 64 // o.by), "levels.titans.carry": "stream",
    }  # fmt: skip
    for name, tokens_between in zip(("fast", "mid"), periods, strict=True):
        settings[f"levels.cms.memories.{name}.every"] = f"{tokens_between // o.by} tokens"
    module, said = loaded(compile(load("hope", settings), target="cuda")), list[str]()
    one = Step(module.settings, count, o.device, graphs=CudaGraphs(said.append) if o.device != "cpu" else None)
    one.span = o.span
    if o.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    through(module, one)
    took = one.seconds[-1]
    found = {"tokens": tokens, "continuum every": periods, "span": o.span, "seconds": took}
    found |= {"tokens per second": tokens / took, "loss": one.loss, "said": said}
    if o.device != "cpu":
        found["bytes"], found["bytes reserved"] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    print(found, flush=True)
    return found


def chosen(o: argparse.Namespace) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
    """What short sequences took, and the first periods that should be fast enough."""
    tried = []
    for periods in PERIODS[o.skip :]:
        few, more = (step(o, spans * o.span, periods, 2) for spans in SHORT)
        each = (more["seconds"] - few["seconds"]) / (SHORT[1] - SHORT[0])
        more["seconds of all, estimated"] = few["seconds"] + each * (o.tokens / o.span - SHORT[0])
        tried += [few, more]
        if more["seconds of all, estimated"] <= o.seconds:
            return tried, periods
    return tried, None


def table(found: dict[str, Any]) -> str:
    columns = ("tokens", "continuum every", "span", "seconds", "tokens/s", "memory", "reserved", "loss, nats")
    lines = [
        f"{found['gpu']}, torch {found['torch']}, triton {found['triton']}; {found['what']}", "",
        f"| {' | '.join(columns)} |", "|" + "---|" * len(columns),
    ]  # fmt: skip
    for of in [*found["tried"], *found["run"]]:
        memory = [f"{of.get(kind, 0) / 2**30:.2f} GiB" for kind in ("bytes", "bytes reserved")]
        said = [f"{of['tokens']:,}", " / ".join(map(str, of["continuum every"])), f"{of['span']:,}"]
        said += [f"{of['seconds']:.2f}", f"{of['tokens per second']:,.0f}", *memory, f"{of['loss']:.4f}"]
        lines += [f"| {' | '.join(said)} |", *(f"| {line} |" for line in of["said"])]
    for of in found["tried"]:
        if seconds := of.get("seconds of all, estimated"):
            lines += ["", f"Every {of['continuum every'][0]} tokens all should take {seconds:.0f} seconds."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=1_048_576, help="of the sequence (%(default)s)")
    parser.add_argument("--memory", default="48 GB", help="what the step may take (%(default)s)")
    parser.add_argument("--span", type=int, default=2048, help="most tokens of a span (%(default)s)")
    parser.add_argument("--seconds", type=float, default=90.0, help="that the step may take (%(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="of the periods that are tried, the shortest (%(default)s)")
    parser.add_argument("--by", type=int, default=1, help="what every other size is divided by (%(default)s)")
    parser.add_argument("--device", default="cuda")
    o = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    tried, periods = chosen(o)
    found: dict[str, Any] = place() | {"what": "one training step, hope at width 256, 4 heads, 4 layers, batch 1"}
    found |= {"memory asked for": o.memory, "tried": tried, "run": []}
    write(o.out, "gpu_long", found, table(found))
    if periods is not None:
        found["run"] = [step(o, o.tokens, periods, 1)]
        write(o.out, "gpu_long", found, table(found))
    print(table(found))
    return 0 if found["run"] else 3


if __name__ == "__main__":
    sys.exit(main())
