"""The generated HOPE cell (specs/cell.yaml): five self-referential boxes, rate and retention read from two of them,
retention towards the start.  Against a per-token loop, the generic chunk form (loops.py) and the matmul peak.

Useful FLOPs: the fewest that the equations need in chunks, a multiply and an add being two.  Every box is its start
times one product P that all share (S = W P), so per chunk of C tokens, head of width K and sequence, forward:

    X P^T, and that times the read rows of W (key, value, two of one row)      2 C K^2 + 2 C K (2 K + 2)
    Gram matrix of the keys below its diagonal, one triangular system          C^2 K + C^2 K
    what each token is written with, (p K + K - V) P^T                         2 C K^2
    P' = gamma P - L^T diag(r) K                                               2 C K^2
    reads of the output memory, Q P^T W_m^T                                    4 C K^2

together 14 C K^2 + 2 C^2 K + 4 C K; at C = K it is also what the stacked state S' = S Phi needs where retention goes to
zero.  The backward pass has two products for each, and what it computes again is not useful: three times in all.

Ours is measured from a tape, as `nlc train --tape` runs it, and so is the generic form; a loop is ordinary calls, as
whoever writes one runs it.  The milliseconds beside the ratios are of ordinary calls of ours, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlc.bench import loops
from nlc.bench.activations import saved
from nlc.bench.compiled import difference, drawn, model
from nlc.bench.peak import flops_of_square, square
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import both, threads, turns
from nlc.bench.training import taped
from runtime.ops import l2norm

OURS, GENERIC, PEAK, TAPE = "nlc", "generic", "matmul", " from a tape"
RIVALS = {"cell-loop": "loop", "cell-generic": GENERIC, "cell-rows": "loop_of_rows"}
WITHIN = 3  # seconds for every turn asked for


class Cell:
    """A model, its inputs, and every way of computing it."""

    def __init__(self, scale: Scale, batch: int, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        H, K = scale.heads, scale.width // scale.heads
        self.chunk, self.shape = scale.chunk, (batch, tokens, H, K)
        settings = {"sizes.width": H * K, "sizes.heads": H, "levels.titans.chunk": scale.chunk}
        made: Any = model("cell", settings, dtype)
        self.u, self.weigh = (drawn(*self.shape, seed=i, dtype=dtype, grad=not i) for i in (0, 1))
        self.q = l2norm(drawn(*self.shape, seed=2, dtype=dtype)).detach().requires_grad_()
        self.weights = {name.removeprefix("blocks.0.titans."): x for name, x in made.named_parameters()}
        self.leaves = [self.u, self.q, *self.weights.values()]
        self.model = made

    def ours(self) -> Tensor:
        y: Tensor = self.model(u=self.u, q=self.q, final=True)[0]
        return y

    def forward(self, name: str) -> Callable[[], Tensor]:
        if name == OURS:
            return self.ours
        return partial(getattr(loops, name), self.weights, self.u, self.q, self.chunk)

    def both(self, name: str) -> Callable[[], Any]:
        return both(self.forward(name), self.leaves, self.weigh)

    def flops(self) -> float:
        """Useful ones of a forward and a backward pass."""
        (B, T, H, K), C = self.shape, self.chunk
        return 3.0 * B * H * T / C * (14 * C * K**2 + 2 * C**2 * K + 4 * C * K)


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    rivals = [name for id, name in RIVALS.items() if id in asked]
    differs = agreement(scale, rivals or [GENERIC])
    with threads(1):
        cell, n = Cell(scale, scale.batch, scale(512)), scale(1024)
        runs = {OURS: cell.both(OURS), **{name: cell.both(name) for name in rivals}}
        runs |= {name + TAPE: taped(runs[name]) for name in (OURS, GENERIC) if name in runs}
        if "cell-flops" in asked:
            runs[PEAK] = square(n)
        took = turns(runs, scale.turns, within=WITHIN * scale.turns)
    more: dict[str, Any] = {
        "largest relative difference, float64": differs,
        "tokens": scale(512),
        "batch": scale.batch,
    }
    found = {
        id: took.ratio(name + TAPE if name == GENERIC else name, OURS + TAPE)
        for id, name in RIVALS.items()
        if id in asked
    }
    if "cell-flops" in asked:
        found["cell-flops"] = took.ratio(PEAK, OURS + TAPE, 100 * cell.flops() / flops_of_square(n))
        more["GFLOP/s"] = {
            "cell": round(cell.flops() / took.median(OURS + TAPE) / 1e9, 1),
            "matmul": round(flops_of_square(n) / took.median(PEAK) / 1e9, 1),
        }
    return {id: Reading(r.value, r.low, r.high, {**r.details, **more}) for id, r in found.items()}


def agreement(scale: Scale, rivals: list[str]) -> float:
    """The largest relative difference of outputs and gradients between the cell and its rivals, in float64, over two
    chunks.  Raises ArithmeticError where they do not compute the same."""
    cell = Cell(scale, 1, 2 * scale.chunk, torch.float64)
    want = [cell.ours(), *cell.both(OURS)()]
    return max(difference([cell.forward(name)(), *cell.both(name)()], want) for name in rivals)


def saved_bytes(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    """Per token, for its backward pass, in kilobytes of 1,000 bytes."""
    cell = Cell(scale, scale.batch, scale(512))
    tokens = scale.batch * scale(512)
    found = {name: saved(cell.forward(name)) / tokens for name in (OURS, GENERIC)}
    return {"cell-bytes": Reading(found[OURS] / 1e3, details={"bytes per token": found})}
