"""A linear memory on a GPU, the gated delta rule: its kernels against the eager chunked form there, interleaved.

    python bench/gpu_memory.py OUT [--repeats 10] [--quick]

d_model 1024, 16 heads of 64, chunks of 64 tokens; keys, values, queries, rates and retentions are given.  It needs
torch and triton alone.  Every shape is first checked against the eager form.  Times are by CUDA events; the kernels
take bfloat16 operands (float32 states); the eager form is timed in float32 with TF32 products, the fastest it has.
Writes OUT/gpu_memory.json and OUT/gpu_memory.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_timed import KERNELS, main
from runtime.ops import l2norm, memory
from runtime.ops.naive import Write

H, K, C = 16, 64, 64
WRITE = Write(objective="l2", kept=True, kernel=True)


class Memory:
    """Inputs of one shape, and the calls that are timed."""

    def __init__(self, B: int, T: int) -> None:
        g = torch.Generator("cuda").manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, device="cuda")
        self.k, self.q = (l2norm(normal(B, T, H, K)) for _ in range(2))
        self.v, self.weigh = normal(B, T, H, K), normal(B, T, H, K)
        self.rate, self.keep = normal(B, T, H).sigmoid(), F.logsigmoid(normal(B, T, H) + 4)
        self.leaves = [self.k, self.v, self.q, self.rate, self.keep]
        for x in self.leaves:
            x.requires_grad_()

    def forward(self, variant: str) -> Tensor:
        fast = variant == KERNELS
        state = {"M": self.k.new_zeros(self.k.shape[0], H, K, K)}
        queries = ((self.q, "after"),)
        with torch.autocast("cuda", torch.bfloat16, enabled=fast):
            (y,), _ = memory(
                replace(WRITE, kernel=fast), state, self.k, self.v, self.rate, self.keep, queries=queries, own=False
            )
        return y

    def both(self, variant: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(variant), self.leaves, self.weigh)


if __name__ == "__main__":
    main(
        "gpu_memory",
        f"the gated delta rule, d_model {H * K}, {H} heads of {K}, chunks of {C}; kernels by bf16, eager by TF32",
        Memory,
        __doc__,
    )
