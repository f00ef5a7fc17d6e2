"""Every kernel once, forward and backward, on small sizes: for a tool that watches what they touch.

compute-sanitizer --tool memcheck python3 -m tests.gpu.checked
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tests.kernels import cell, fused, memory


def main() -> None:
    for name in ("hope", "retention towards nothing"):
        box = cell.WIDE[name]
        once(box.inputs("cuda", torch.float32), box.fast, low=True)
    box = cell.CASES["repeated tokens, rate near 1"]  # chunks of 64 in float32
    once(box.inputs("cuda", torch.float32), box.fast, low=False)
    for name in ("gated delta rule", "dgd"):
        case = memory.WIDE[name]
        once(case.inputs("cuda", torch.float32), partial(case.run, block=case.block), low=True)
    for name in ("silu, rmsnorm", "in pieces", "gated by heads"):
        one = fused.CASES[name]
        once(one.inputs("cuda", torch.float32), one.run, low=True)
    torch.cuda.synchronize()
    print("all kernels ran")


def once(p: dict[str, Tensor], run: Callable[[dict[str, Tensor]], dict[str, Tensor]], low: bool) -> None:
    with torch.autocast("cuda", torch.bfloat16, enabled=low):
        results = run(p)
    torch.stack([x.float().square().sum() for x in results.values()]).sum().backward()


if __name__ == "__main__":
    main()
