"""The self-referential cell on a GPU: its kernels against the eager PyTorch form there, interleaved, medians.

    python bench/gpu_cell.py OUT [--repeats 10] [--quick]

The cell of nlc/bench/specs/cell.yaml: five boxes, rate and retention read out of two of them; d_model 1024,
16 heads of 64, chunks of 64 tokens.  It needs torch and triton alone.  Every shape is first checked against the eager
form.  Times are by CUDA events; the kernels take bfloat16 operands (float32 states); the eager form is timed in float32
with TF32 products, the fastest it has.  Writes OUT/gpu_cell.json and OUT/gpu_cell.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_timed import KERNELS, main
from runtime.kernels import Gates
from runtime.ops import l2norm, shared_product

H, K, C = 16, 64, 64
GATES = Gates("key", "value", "eta", "alpha", rate_form="sigmoid", keep_form="sigmoid", keep_shift=4.0)
READ = ("key", "value", "eta", "alpha")


def flow(reads: Any, extras: Any, weights: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z_key, z_value, z_rate, z_keep = reads
    return l2norm(z_key), l2norm(z_value), z_rate.squeeze(-1).sigmoid(), F.logsigmoid(z_keep.squeeze(-1) + 4)


class Cell:
    """Inputs and parameters of one shape, and the calls that are timed."""

    def __init__(self, B: int, T: int) -> None:
        g = torch.Generator("cuda").manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, device="cuda")
        self.start = {box: normal(H, K, K) * K**-0.5 for box in (*READ, "memory")}
        self.out = {box: normal(H, 1, K) * K**-0.5 for box in ("eta", "alpha")}
        self.u, self.q, self.weigh = normal(B, T, H, K), l2norm(normal(B, T, H, K)), normal(B, T, H, K)
        self.leaves = [self.u, self.q, *self.start.values(), *self.out.values()]
        for x in self.leaves:
            x.requires_grad_()

    def forward(self, variant: str) -> Tensor:
        B, fast = self.u.shape[0], variant == KERNELS
        states = {box: {"M": S.expand(B, *S.shape)} for box, S in self.start.items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=fast):
            shared = shared_product(
                flow, states, ((self.u, READ),), chunk=C, start=self.start, readouts=self.out, outputs=False,
                final=True, gates=GATES if fast else None,
            )  # fmt: skip
        return shared.read("memory", self.q)

    def both(self, variant: str) -> tuple[Tensor, ...]:
        y = self.forward(variant)
        return torch.autograd.grad(y, self.leaves, self.weigh.to(y.dtype))


if __name__ == "__main__":
    main(
        "gpu_cell",
        f"one HOPE cell, d_model {H * K}, {H} heads of {K}, chunks of {C}; kernels by bf16, eager by TF32",
        Cell,
        __doc__,
    )
