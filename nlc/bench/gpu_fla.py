"""The cell's kernels against the gated delta rule of the package fla-core, on a GPU, forward and backward.

Equal shapes: 16 heads of 64, batch and length of gpu_cell.SHAPES, bfloat16 operands.  Theirs is
`chunk_gated_delta_rule`, one matrix memory per head, given keys, values, rates and decays; ours writes five, and makes
its own keys, values and rates.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from nlc.bench.packages import needed
from nlc.bench.rows import Missing, Reading, Scale
from nlc.bench.timing import Times

REPEATS = 10


def times(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
    if not torch.cuda.is_available():
        raise Missing("needs a GPU")
    (rule,) = needed("fla-core", "fla.ops.gated_delta_rule")
    from nlc.bench.gpu_cell import KERNELS, SHAPES, VARIANTS, Cell, H, K, milliseconds

    B, T = SHAPES[0]
    cell = Cell(B, T)
    draw = partial(torch.randn, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    q, k, v = (draw(B, T, H, K) for _ in range(3))
    e, a = (draw(B, T, H) for _ in range(2))
    weigh = torch.randn_like(v)

    def theirs() -> None:
        o, _ = rule.chunk_gated_delta_rule(
            F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, F.logsigmoid(a.float() + 4), e.sigmoid()
        )
        torch.autograd.grad(o, (q, k, v, e, a), weigh)

    runs = {"nlc": lambda: cell.both(*VARIANTS[KERNELS]), "fla": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(REPEATS + 2):
        for name, run in runs.items():
            took = milliseconds(run)
            if turn > 1:
                seconds[name].append(1e-3 * took)
    ratios = [b / a for a, b in zip(seconds["nlc"], seconds["fla"], strict=True)]
    return {"gpu-fla": Times(seconds).reading(ratios, shape=[B, T, H, K])}
