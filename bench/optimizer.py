"""The step of a level that counts steps against torch.optim's, one thread, taking turns, medians.

    python bench/optimizer.py [--repeats 31] [--json]

The weights are those of a small transformer, 5.8 million in 73 tensors.  Ours is the generated function of a shipped
rule on a level's stacks of weights, called as train.py calls it; theirs are AdamW, `foreach` and `fused`, and Muon,
whose products are bfloat16, as ours are where run.precision says so.
Both sides get gradients anew before every step, outside of the clock, and clip their norm, as training does.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from cell import processor
from torch import nn

from codegen.rules import rule_view
from nlc.graph.choices import rule_of
from nlc.spec import load_rule
from nlc.verify.rules import function
from runtime.level import Level, Weights

MATRICES = [(256, 256)] * 25 + [(1024, 256)] * 8 + [(256, 1024)] * 8
VECTORS = [(256,)] * 32
CLIP = 1.0
Step = Callable[[], None]


def parameters(shapes: list[tuple[int, ...]]) -> nn.ParameterDict:
    torch.manual_seed(0)
    return nn.ParameterDict({f"w{i}": nn.Parameter(0.05 * torch.randn(shape)) for i, shape in enumerate(shapes)})


def ours(name: str, shapes: list[tuple[int, ...]], lr: float, half: bool = False) -> tuple[nn.ParameterDict, Step]:
    rule = rule_of(load_rule(name))
    view = rule_view(rule, name, inside=False, half=half)
    model, (step, _) = parameters(shapes), function(view)
    level = Level("bench", Weights(model, ("*",)).take("*"), view.state, view.entrywise)
    given = {p.name: p.number for p in rule.params if p.name in view.parameters}
    return model, lambda: level.update(step, lr=lr, clip=CLIP, **given)


def theirs(optimiser: Any, shapes: list[tuple[int, ...]], **options: Any) -> tuple[nn.ParameterDict, Step]:
    model = parameters(shapes)
    made = optimiser(list(model.values()), **options)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(list(model.values()), CLIP)
        made.step()

    return model, step


def measured(rivals: dict[str, tuple[nn.ParameterDict, Step]], repeats: int) -> dict[str, float]:
    """Milliseconds of a step, each rival in turn."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for i in range(repeats + 3):
        for name, (model, step) in rivals.items():
            for weight in model.values():
                weight.grad = torch.full_like(weight, 1e-3 * (i % 5 - 2))
                weight.grad.add_(weight.detach(), alpha=0.01)
            began = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - began))
    return {name: round(statistics.median(found[3:]), 2) for name, found in times.items()}


def where() -> dict[str, str]:
    return {"processor": processor(), "python": platform.python_version(), "torch": torch.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    every = [*MATRICES, *VECTORS]
    adamw = measured(
        {
            "nlc adamw": ours("adamw", every, 1e-4),
            "torch AdamW foreach": theirs(torch.optim.AdamW, every, lr=1e-4, foreach=True),
            "torch AdamW fused": theirs(torch.optim.AdamW, every, lr=1e-4, fused=True),
        },
        options.repeats,
    )
    muon = measured(
        {
            "nlc muon": ours("muon", MATRICES, 1e-3),
            "nlc muon bfloat16": ours("muon", MATRICES, 1e-3, half=True),
            "torch Muon": theirs(torch.optim.Muon, MATRICES, lr=1e-3, weight_decay=0.0),
        },
        max(options.repeats // 6, 3),
    )
    ratios = {
        "adamw / foreach": round(adamw["nlc adamw"] / adamw["torch AdamW foreach"], 2),
        "adamw / fused": round(adamw["nlc adamw"] / adamw["torch AdamW fused"], 2),
        "muon / torch": round(muon["nlc muon bfloat16"] / muon["torch Muon"], 2),
        "muon float32 / torch": round(muon["nlc muon"] / muon["torch Muon"], 2),
    }
    found = {"milliseconds": adamw | muon, "ratios": ratios, "machine": where()}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in (adamw | muon).items():
        print(f"{name:22}{value:10.2f} ms")
    for name, value in ratios.items():
        print(f"{name:22}{value:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
