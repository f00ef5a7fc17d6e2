"""An mlp memory whose hidden layer is as wide as its keys (specs/mlp.yaml) against the same, a token at a time.

    M(x) = x + W_out h,   h = l2norm(gelu(W_in x));   at the chunk's first state M':  u = M'(k) - v,  d = dM'/dz of u
    W_out <- a W_out + (1 - a) W_out,0 - e (W_out h + u) h^T,      W_in <- a W_in + (1 - a) W_in,0 - e (W_in k + d) k^T

The loop is fair: heads and sequences are one batched rank-one update of each layer, the error goes through the layers
by hand-written factors.  Source: arXiv 2512.24695, eqs. 57, 89-93.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlc.bench.cell import OURS
from nlc.bench.compiled import difference, drawn, model
from nlc.bench.rows import Reading, Scale
from nlc.bench.timing import Run, both, threads, turns
from runtime.ops import l2norm

LOOP = "loop"


def loop(start: dict[str, Tensor], q: Tensor, k: Tensor, v: Tensor, e: Tensor, a: Tensor, chunk: int) -> Tensor:
    """q, k, v (B, T, H, K), e, a (B, T, H), weights (H, K, K)."""
    B, T, H, K = q.shape
    W_in, W_out = first = [start[part].expand(B, H, K, K).flatten(0, 1) for part in ("W_in", "W_out")]
    outs, k = [], l2norm(k)
    for t in range(T):
        if t % chunk == 0:
            held_in, held_out = W_in, W_out
        x, y, want = (z[:, t].flatten(0, 1).unsqueeze(-1) for z in (q, k, v))
        rate, keep = e[:, t].flatten().sigmoid().view(-1, 1, 1), (a[:, t].flatten() + 4).sigmoid().view(-1, 1, 1)
        outs.append(x + held_out @ unit(F.gelu(held_in @ x)))
        z = held_in @ y
        act = F.gelu(z)
        h = unit(act)
        u = y + held_out @ h - want
        back = held_out.mT @ u
        d = (back - h * (h * back).sum(1, keepdim=True)) / norm(act) * slope(z)
        W_out = torch.baddbmm(torch.lerp(first[1], W_out, keep), rate * (W_out @ h + u), h.mT, alpha=-1)
        W_in = torch.baddbmm(torch.lerp(first[0], W_in, keep), rate * (W_in @ y + d), y.mT, alpha=-1)
    return torch.cat(outs, 2).view(B, H, K, T).permute(0, 3, 1, 2)


def norm(x: Tensor) -> Tensor:
    return (x * x).sum(1, keepdim=True).sqrt()


def unit(x: Tensor) -> Tensor:
    return x / norm(x)


def slope(z: Tensor) -> Tensor:
    """Of gelu: the normal distribution's sum up to z, and z times its density."""
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def passes(scale: Scale, batch: int, tokens: int, dtype: torch.dtype) -> dict[str, tuple[Any, Run]]:
    """Forward, and forward and backward, of both."""
    H, K = scale.heads, scale.width // scale.heads
    settings = {"sizes.width": H * K, "sizes.heads": H, "levels.titans.chunk": scale.chunk}
    made: Any = model("mlp", settings, dtype)
    q, k, v, weigh = (drawn(batch, tokens, H, K, seed=i, dtype=dtype, grad=i < 3) for i in range(4))
    e, a = (drawn(batch, tokens, H, seed=4 + i, dtype=dtype) for i in range(2))
    start = {name.rpartition(".")[2]: x for name, x in made.named_parameters()}
    leaves = [q, k, v, e, a, *start.values()]
    runs = {
        OURS: lambda: made(q=q, k=k, v=v, e=e, a=a, final=True)[0],
        LOOP: lambda: loop(start, q, k, v, e, a, scale.chunk),
    }
    return {name: (run, both(run, leaves, weigh)) for name, run in runs.items()}


def agreement(scale: Scale) -> float:
    """The largest relative difference of outputs and gradients, in float64.  Raises ArithmeticError where they do not
    compute the same."""
    found = passes(scale, 1, 2 * scale.chunk, torch.float64)
    want, got = ([forward(), *run()] for forward, run in found.values())
    return difference(got, want)


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    differs = agreement(scale)
    with threads(1):
        runs = passes(scale, scale.batch, scale(512), torch.float32)
        both_ways = {name: run for name, (_, run) in runs.items()}
        took = turns(both_ways, max(1, scale.turns - 2), warm=[OURS])  # the loop has just been run, and takes seconds
    ratio = took.ratio(LOOP, OURS)
    details = {**ratio.details, "largest relative difference, float64": differs}
    return {"mlp-loop": Reading(ratio.value, ratio.low, ratio.high, details)}
