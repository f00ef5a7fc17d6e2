"""The step of a level that counts steps against torch.optim's.

The weights are those of a small transformer, 5.8 million in 73 tensors.  Ours is the generated function of a shipped
rule on a level's stacks of weights, called as train.py calls it; theirs are AdamW, `foreach` and `fused`, and Muon,
whose products are bfloat16, as ours are where run.precision says so.
Both sides get gradients anew before every step, outside of the clock, and clip their norm, as training does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from codegen.rules import rule_view
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, Seconds, threads, turns
from nlc.graph.choices import rule_of
from nlc.spec import load_rule
from nlc.verify.rules import function
from runtime.level import Level, Weights

MATRICES = [(256, 256)] * 25 + [(1024, 256)] * 8 + [(256, 1024)] * 8
VECTORS = [(256,)] * 32
CLIP = 1.0
Shapes = Sequence[tuple[int, ...]]


def parameters(shapes: Shapes) -> nn.ParameterDict:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ParameterDict({f"w{i}": nn.Parameter(0.05 * torch.randn(shape)) for i, shape in enumerate(shapes)})


def ours(name: str, shapes: Shapes, lr: float, half: bool = False) -> Run:
    rule = rule_of(load_rule(name))
    view = rule_view(rule, name, inside=False, half=half)
    model, (step, _) = parameters(shapes), function(view)
    level = Level("bench", Weights(model, ("*",)).take("*"), view.state, view.entrywise)
    given: dict[str, Any] = {p.name: p.number for p in rule.params if p.name in view.parameters}
    return clocked(model, lambda: level.update(step, lr=lr, clip=CLIP, **given))


def theirs(optimiser: Any, shapes: Shapes, **options: Any) -> Run:
    model = parameters(shapes)
    made = optimiser(list(model.values()), **options)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(list(model.values()), CLIP)
        made.step()

    return clocked(model, step)


def clocked(model: nn.ParameterDict, step: Callable[[], object]) -> Run:
    """Seconds of a step, with gradients made before it."""
    count = 0

    def run() -> Seconds:
        nonlocal count
        count += 1
        for weight in model.values():
            weight.grad = torch.full_like(weight, 1e-3 * (count % 5 - 2))
            weight.grad.add_(weight.detach(), alpha=0.01)
        began = time.process_time()
        step()
        return Seconds(time.process_time() - began)

    return run


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    found = dict[str, Reading]()
    matrices = [tuple(scale(n) for n in shape) for shape in MATRICES]
    every = [*matrices, *(tuple(scale(n) for n in shape) for shape in VECTORS)]
    with threads(1):
        if {"step-adamw", "step-adamw-fused"} & asked:
            adamw = {
                "nlc": ours("adamw", every, 1e-4),
                "foreach": theirs(torch.optim.AdamW, every, lr=1e-4, foreach=True),
                "fused": theirs(torch.optim.AdamW, every, lr=1e-4, fused=True),
            }
            took = turns(adamw, 2 * scale.turns)
            found |= {"step-adamw": took.ratio("nlc", "foreach"), "step-adamw-fused": took.ratio("nlc", "fused")}
        if "step-muon" in asked:
            muon = {
                "nlc": ours("muon", matrices, 1e-3, half=True),
                "nlc float32": ours("muon", matrices, 1e-3),
                "torch": theirs(torch.optim.Muon, matrices, lr=1e-3, weight_decay=0.0),
            }
            found["step-muon"] = turns(muon, scale.turns).ratio("nlc", "torch")
    return {id: found[id] for id in asked}
