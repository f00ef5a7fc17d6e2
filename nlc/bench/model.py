"""The whole of hope, width 256, 4 heads, 4 layers, 4 sequences of 512 tokens: what its continuum costs.

Written every 64 and 256 tokens, as it is shipped (first order), against both memories at `never`, where they are
ordinary MLPs that the outer level trains.  Loss and gradient of every weight, both from a tape (`nlc train --tape`);
the step of the outer rule is the same.
"""

from __future__ import annotations

from typing import Any

import torch

from nlc.bench.activations import NEVER
from nlc.bench.compiled import model
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, threads, turns
from nlc.bench.training import from_tape

WRITTEN, STILL = "written", "never"


def sizes(scale: Scale, tokens: int = 512) -> dict[str, object]:
    """Of hope at the width and length of a measurement."""
    return {
        "sizes.width": scale.width,
        "sizes.heads": scale.heads,
        "sizes.layers": 4 if scale.by == 1 else 1,
        "sizes.context": scale(tokens),
        "levels.titans.chunk": scale.chunk,
        "levels.cms.memories.fast.every": f"{scale(64)} tokens",
        "levels.cms.memories.mid.every": f"{scale(256)} tokens",
    }


def step(made: Any, batch: int, tokens: int, tape: bool = False) -> Run:
    """The loss of a batch of random text, and its gradient."""
    if tape:
        made.recordings = from_tape()
        made.recordings.on = True
    text = torch.randint(256, (batch, tokens + 1), generator=torch.Generator().manual_seed(0))

    def run() -> None:
        made.zero_grad(set_to_none=True)
        made.loss(text[:, :-1], text[:, 1:], final=True)[0].backward()

    return run


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    chosen = {WRITTEN: sizes(scale), STILL: {**sizes(scale), **NEVER}}
    runs = {
        name: step(model("hope", settings), scale.batch, scale(512), tape=True) for name, settings in chosen.items()
    }
    with threads(1):
        took = turns(runs, max(1, scale.turns - 2))
    return {"model-continuum": took.ratio(WRITTEN, STILL)}
