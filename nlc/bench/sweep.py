"""Lengths from 256 to 8,192 and batches from 1 to 16: the cell, a layer, the whole model; forward, forward + backward.

Each in one run, taking turns, with its rivals: for the cell the per-token loop, the generic chunk form and the matmul
peak; for a layer a Transformer's; for the model a Transformer of as many layers, and hope with its continuum at
`never`.  Width 256, 4 heads; one thread.  Batches of more than 32,768 tokens are left out, and a shape gets no further
turn after half a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nlc.bench import cell, layer
from nlc.bench.activations import NEVER
from nlc.bench.compiled import model
from nlc.bench.model import sizes, step
from nlc.bench.peak import flops_of_square, square
from nlc.bench.rows import Scale
from nlc.bench.timing import Run, Times, threads, turns
from nlc.bench.transformer import Transformer, seeded

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 4, 16)
LOOPED = 4096  # tokens of a batch above which the loop, which keeps 345 KB a token and layer, is left out
MOST = 32_768  # tokens of a batch
WITHIN = 30  # seconds of a shape's turns
FORWARD, BOTH = "forward", "forward + backward"

Line = dict[str, Any]


def shapes(scale: Scale) -> Iterator[tuple[int, int]]:
    for B in BATCHES:
        yield from ((B, scale(T)) for T in LENGTHS if B * T <= MOST)


def line(took: Times, B: int, T: int, work: str, ours: str, rivals: Mapping[str, str]) -> Line:
    """One shape: milliseconds, tokens a second, and how many times faster than each rival, by column."""
    times = {said: round(took.ratio(name, ours).value, 2) for name, said in rivals.items() if name in took.seconds}
    seconds = took.median(ours)
    found: Line = {
        "batch": B,
        "tokens": T,
        "pass": work,
        "ms": round(1e3 * seconds, 2),
        "tokens/s": round(B * T / seconds),
    }
    return found | times | {"turns": len(took.seconds[ours])}


def cells(scale: Scale) -> Iterator[Line]:
    rivals = {"loop": "times the loop", "generic": "times the generic form"}
    n = scale(1024)
    for B, T in shapes(scale):
        one = cell.Cell(scale, B, T)
        names = [cell.OURS, *(r for r in rivals if r != "loop" or B * T <= LOOPED)]
        for work, share in ((FORWARD, 1 / 3), (BOTH, 1.0)):
            make = one.forward if work == FORWARD else one.both
            runs: dict[str, Run] = {name: still(make(name)) if work == FORWARD else make(name) for name in names}
            took = turns({**runs, cell.PEAK: square(n)}, scale.turns, within=WITHIN)
            peak = took.ratio(cell.PEAK, cell.OURS, 100 * share * one.flops() / flops_of_square(n)).value
            yield line(took, B, T, work, cell.OURS, rivals) | {"% of the peak": round(peak, 1)}


def layers(scale: Scale) -> Iterator[Line]:
    both = layer.Layers(scale)
    for B, T in shapes(scale):
        for work in (FORWARD, BOTH):
            runs = {
                name: still(both.forward(name, B, T)[0]) if work == FORWARD else both.both(name, B, T)
                for name in (layer.OURS, layer.THEIRS)
            }
            took = turns(runs, scale.turns, within=WITHIN)
            yield line(took, B, T, work, layer.OURS, {layer.THEIRS: "times a Transformer layer"})


def models(scale: Scale) -> Iterator[Line]:
    """Forward + backward of the loss."""
    rivals = {"never": "times hope at `never`", "transformer": "times a Transformer"}
    theirs = seeded(Transformer, scale.width, scale.heads, 4 if scale.by == 1 else 1, 256)
    for B, T in shapes(scale):
        chosen = {"hope": sizes(scale, T * scale.by), "never": {**sizes(scale, T * scale.by), **NEVER}}
        runs = {name: step(model("hope", settings), B, T) for name, settings in chosen.items()}
        took = turns({**runs, "transformer": step(theirs, B, T)}, scale.turns, within=WITHIN)
        yield line(took, B, T, BOTH, "hope", rivals)


SWEEP = {"sweep-cell": cells, "sweep-layer": layers, "sweep-model": models}


def still(run: Run) -> Run:
    """A forward pass of which nothing is kept for a backward pass."""

    def forward() -> None:
        with torch.no_grad():
            run()

    return forward


def lines(id: str, scale: Scale) -> Iterator[Line]:
    with threads(1):
        yield from SWEEP[id](scale)
