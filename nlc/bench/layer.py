"""A layer of HOPE whose continuum is one plain MLP (specs/layer.yaml) against a Transformer's of equal width.

Cell, projections, depthwise convolution and MLP through nlc; the other by hand (transformer.py).  Forward and backward,
gradients of the input and of every weight.  Times faster are of both from a tape, as `nlc train --tape` runs ours; how
even lengths are, of ordinary calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nlc.bench.compiled import drawn, model
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, both, threads, turns
from nlc.bench.training import taped
from nlc.bench.transformer import Layer, seeded

OURS, THEIRS = "nlc", "transformer"
LENGTHS = {f"layer-{T}": T for T in (512, 2048, 4096)}
FLAT = (512, 2048, 8192)  # tokens
WITHIN = 2  # seconds of a length for every turn asked for


class Layers:
    """Both layers, and an input of so many tokens."""

    def __init__(self, scale: Scale) -> None:
        settings = {"sizes.width": scale.width, "sizes.heads": scale.heads, "levels.titans.chunk": scale.chunk}
        self.width, self.ours = scale.width, model("layer", settings)
        self.theirs = seeded(Layer, scale.width, scale.heads)

    def forward(self, name: str, batch: int, tokens: int) -> tuple[Callable[[], Tensor], list[Tensor], Tensor]:
        x, weigh = drawn(batch, tokens, self.width), drawn(batch, tokens, self.width, seed=1, grad=False)
        made: Any = self.ours if name == OURS else self.theirs
        run = (lambda: made(x=x, final=True)[0]) if name == OURS else (lambda: made(x))
        return run, [x, *made.parameters()], weigh

    def both(self, name: str, batch: int, tokens: int) -> Run:
        return both(*self.forward(name, batch, tokens))


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    layers, found = Layers(scale), {}
    with threads(1):
        for id, T in LENGTHS.items():
            if id in asked:
                runs = {name: taped(layers.both(name, scale.batch, scale(T))) for name in (OURS, THEIRS)}
                found[id] = turns(runs, scale.turns, warm=(), within=WITHIN * scale.turns).ratio(THEIRS, OURS)
    return found


def lengths(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """How much slower the slowest length is than the fastest, in tokens a second; turn by turn."""
    layers = Layers(scale)
    with threads(1):
        runs = {str(T): layers.both(OURS, scale.batch, scale(T)) for T in FLAT}
        took = turns(runs, max(1, scale.turns - 2), warm=[str(FLAT[0])])
    speeds = [[scale.batch * scale(T) / x for x in took.seconds[str(T)]] for T in FLAT]
    medians = {T: round(scale.batch * scale(T) / took.median(str(T))) for T in FLAT}
    lost = [100 * (1 - min(turn) / max(turn)) for turn in zip(*speeds, strict=True)]
    return {"layer-lengths": took.reading(lost, **{"tokens per second": medians})}
