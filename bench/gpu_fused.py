"""What surrounds a memory on a GPU, each by one kernel against the operations one by one, interleaved, medians.

    python bench/gpu_fused.py OUT [--repeats 10] [--quick]

Keys as most architectures make them (4 taps, silu, l2norm of 16 heads of 64), the convolution of HOPE (4 taps alone)
and its read-out (rmsnorm over the width times silu), d_model 1024.  It needs torch and triton alone.  Every shape is
first checked against the operations in float32.  Times are by CUDA events.  Writes OUT/gpu_fused.json and
OUT/gpu_fused.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.gpu_timed import KERNELS, main
from runtime.ops import causal_conv, convolution, gated_norm
from runtime.ops.gated import gated
from runtime.ops.short_convolution import followed

H, K, TAPS = 16, 64, 4


class Surroundings:
    """Inputs of one shape, and the calls that are timed."""

    def __init__(self, B: int, T: int) -> None:
        g = torch.Generator("cuda").manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, device="cuda")
        self.x, self.h, self.o, self.z = (normal(B, T, H * K) for _ in range(4))
        self.w, self.v = (normal(TAPS, H * K) for _ in range(2))
        self.gain, self.past = normal(H * K), normal(B, TAPS - 1, H * K)
        self.leaves = [self.x, self.h, self.o, self.z, self.w, self.v, self.gain]
        self.weighed = [normal(B, T, H * K) for _ in range(3)]
        for x in self.leaves:
            x.requires_grad_()

    def forward(self, variant: str) -> tuple[Tensor, Tensor, Tensor]:
        if variant == KERNELS:
            k, _ = convolution(self.x, self.w, self.past, "silu", H, "l2norm")
            h, _ = convolution(self.h, self.v, self.past)
            return k, h, gated_norm(self.o, self.gain, self.z, "silu")
        k, h = (causal_conv(x, w, self.past)[0] for x, w in ((self.x, self.w), (self.h, self.v)))
        return followed(k, "silu", H, "l2norm", None), h, gated(self.o, self.gain, self.z, "silu")

    def both(self, variant: str) -> tuple[Tensor, ...]:
        parts = self.forward(variant)
        weights = [w.view_as(y) for w, y in zip(self.weighed, parts, strict=True)]
        return torch.autograd.grad(parts, self.leaves, weights)


if __name__ == "__main__":
    main("gpu_fused", f"what surrounds a memory, d_model {H * K}; both in float32", Surroundings, __doc__)
