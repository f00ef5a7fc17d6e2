"""A linear memory computed twice: by the kernels, and token by token in float64.  For the interpreter's tests and a
GPU's.

python -m tests.kernels.memory prints the relative difference of each case's results and gradients as JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.basic import l2norm
from runtime.ops.memories import memory
from runtime.ops.naive import Write
from tests.kernels.cell import difference

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Memory:
    """Sizes and the write; `shift` of rate and retention; `repeated`: all tokens have the first one's key."""

    B: int = 1
    H: int = 3
    T: int = 37
    K: int = 16
    V: int = 16
    block: int = 16
    chunk: int = 1
    erase: bool = False
    objective: str = "l2"
    kept: bool = False
    keeps: bool = True
    to_start: bool = False
    rate_shift: float = 0.0
    keep_shift: float = 1.0
    repeated: bool = False
    queries: tuple[str, ...] = ("after",)
    cut: int = 0  # tokens of a first call, the rest in a second
    heads: int = 0  # of keys, where they are fewer
    pairs: int = 1

    @property
    def write(self) -> Write:
        return Write(objective=self.objective, erase=self.erase, chunk=self.chunk, kept=self.kept, kernel=True)

    def inputs(self, device: str, dtype: torch.dtype) -> Results:
        g = torch.Generator().manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        B, T, H, P = self.B, self.T, self.H, (self.pairs,) * (self.pairs > 1)
        k = normal(B, T, *P, self.heads or H, self.K)
        if self.repeated:
            k = k[:, :1].expand_as(k).clone()
        made = {"k": k, "v": normal(B, T, *P, H, self.V), "rate": normal(B, T, H), "keep": normal(B, T, H)}
        made |= {f"q{i}": normal(B, T, H, self.K) for i in range(len(self.queries))}
        made |= {"M": normal(B, H, self.V, self.K) * self.K**-0.5, "start": normal(H, self.V, self.K) * self.K**-0.5}
        return {name: x.to(device, dtype).requires_grad_() for name, x in made.items()}

    def run(self, p: Results, block: int) -> Results:
        """block 0: token by token."""
        M = p["start"].expand_as(p["M"]) if self.to_start else p["M"]
        state, parts = {"M": M} | ({"held.M": M} if self.chunk > 1 else {}), []
        rate, keep = torch.sigmoid(p["rate"] + self.rate_shift), F.logsigmoid(p["keep"] + self.keep_shift)
        t = 0
        for length in (self.cut, self.T - self.cut) if self.cut else (self.T,):
            now = slice(t, t + length)
            reads, state = memory(
                self.write, state, l2norm(p["k"][:, now]), p["v"][:, now], rate[:, now],
                keep[:, now] if self.keeps else None, {"M": p["start"]} if self.to_start else None,
                [(l2norm(p[f"q{i}"][:, now]), when) for i, when in enumerate(self.queries)],
                phase=t, own=False, block=block,
            )  # fmt: skip
            parts.append(reads)
            t += length
        reads = [torch.cat(ys, 1) for ys in zip(*parts, strict=True)]
        return {f"y{i}": y for i, y in enumerate(reads)} | state

    def differences(self, device: str = "cpu", low: bool = False) -> dict[str, float]:
        """Relative difference of every result, and of every gradient of a random sum of all of them."""
        p, exact = self.inputs(device, torch.float32), self.inputs("cpu", torch.float64)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            got = self.run(p, self.block)
        want = self.run(exact, 0)
        found = {name: difference(x, want[name]) for name, x in got.items()}
        gradients = []
        for results, leaves in ((got, p), (want, exact)):
            g = torch.Generator().manual_seed(1)
            weights = {name: torch.randn(x.shape, generator=g, dtype=torch.float64) for name, x in results.items()}
            total = torch.stack([(weights[name].to(x) * x).sum().double() for name, x in results.items()]).sum()
            gradients.append(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))
        largest = max(g.norm().item() for g in gradients[1] if g is not None)
        for name, a, b in zip(p, *gradients, strict=True):
            if a is not None and b is not None:
                found[f"d {name}"] = difference(a, b, 1e-3 * largest)
        return found


ALL = ("chunk", "before", "after")
CASES: dict[str, Memory] = {
    "gated delta rule": Memory(kept=True),
    "delta rule": Memory(keeps=False),
    "dgd": Memory(erase=True, queries=ALL),
    "dgd at the kept state": Memory(erase=True, kept=True),
    "erase without an error": Memory(erase=True, objective="dot"),
    "linear attention": Memory(objective="dot", keeps=False),
    "retention": Memory(objective="dot", V=24, heads=1),
    "gradient at the chunk's first state": Memory(chunk=16, kept=True, queries=ALL),
    "dgd at the chunk's first state": Memory(chunk=16, erase=True, queries=ALL, to_start=True),
    "retention towards the start": Memory(to_start=True, queries=ALL),
    "kept, towards the start": Memory(to_start=True, kept=True),
    "block 32, width 24 and 80": Memory(T=40, K=24, V=80, block=32),
    "block 64": Memory(T=80, block=64, kept=True),
    "repeated keys, rate near 1": Memory(T=64, block=64, repeated=True, rate_shift=9.0, keep_shift=9.0),
    "retention near 0": Memory(keep_shift=-40.0),
    "retention of 1": Memory(keep_shift=60.0),
    "two pairs a token": Memory(T=20, pairs=2),
    "in pieces": Memory(T=60, chunk=16, cut=21),
    "nothing read": Memory(queries=()),
    "one head, one chunk": Memory(H=1, T=16),
}
LOW = ("gated delta rule", "dgd", "repeated keys, rate near 1", "retention")
WIDE = {name: replace(CASES[name], B=3, H=3, T=150, K=64, V=64, block=64) for name in LOW}


def lines(cases: dict[str, Memory]) -> Iterator[str]:
    for name, case in cases.items():
        yield json.dumps({"case": name, "differences": case.differences()})


if __name__ == "__main__":
    for line in lines(CASES):
        print(line, flush=True)
