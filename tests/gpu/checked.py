"""Every kernel once, forward and backward, on small sizes: for a tool that watches what they touch.

compute-sanitizer --tool memcheck python3 -m tests.gpu.checked
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tests.kernels import cell, memory


def main() -> None:
    for name in ("hope", "retention towards nothing"):
        box = cell.WIDE[name]
        once(box.inputs("cuda", torch.float32), box.fast)
    for name in ("gated delta rule", "dgd"):
        case = memory.WIDE[name]
        once(case.inputs("cuda", torch.float32), partial(case.run, block=case.block))
    torch.cuda.synchronize()
    print("all kernels ran")


def once(p: dict[str, Tensor], run: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        results = run(p)
    torch.stack([x.float().square().sum() for x in results.values()]).sum().backward()


if __name__ == "__main__":
    main()
