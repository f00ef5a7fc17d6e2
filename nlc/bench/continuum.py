"""One memory of the continuum (specs/continuum.yaml) against the same MLP, never written, as one would write it.

Four periods of 512 tokens, each written with the errors that are given; nobody reads the state after the last.
Forward and backward: gradients of the input and of every weight.  `meta: full` has also the gradient through what each
write computes, and so that of the errors; `first_order` has not.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nlc.bench.compiled import drawn, model
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, both, threads, turns

METAS = {"continuum-first": "first_order", "continuum-full": "full"}
PLAIN = "mlp"
PERIODS = 4


def plain(W: dict[str, Tensor], x: Tensor) -> Tensor:
    h = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:]), W["W_in"], W["b_in"]))
    return x + F.linear(h, W["W_out"], W["b_out"])


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    period = scale(512)
    shape = (scale.batch, PERIODS * period, scale.width)
    x, error, weigh = (drawn(*shape, seed=i, grad=i < 2) for i in range(3))
    runs: dict[str, Run] = {}
    for id in sorted(asked):
        settings = {
            "sizes.width": scale.width, "levels.cms.every": f"{period} tokens", "levels.cms.meta": METAS[id],
        }  # fmt: skip
        made: Any = model("continuum", settings)
        errors = [error] if METAS[id] == "full" else []  # a constant in first order
        runs[id] = both(written(made, x, error), [x, *errors, *made.parameters()], weigh)
    weights = {name.rpartition(".")[2]: w for name, w in made.named_parameters() if ".start." in name}
    runs[PLAIN] = both(lambda: plain(weights, x), [x, *weights.values()], weigh)
    with threads(1):
        took = turns(runs, scale.turns)
    return {id: took.ratio(id, PLAIN) for id in asked}


def written(made: Any, x: Tensor, error: Tensor) -> Any:
    return lambda: made(x=x, error=error, final=True)[0]
