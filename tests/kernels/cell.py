"""A cell computed twice: by the kernels, and token by token in float64.  For the interpreter's tests and a GPU's.

python -m tests.kernels.cell prints, for every case, the relative difference of each result and gradient as JSON lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.kernels import Gates
from runtime.ops.basic import l2norm
from runtime.ops.history import own_errors
from runtime.ops.shared import Shared, shared_product

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Cell:
    """Sizes, the write, the flow; `shift` of rate and retention; `repeated`: all tokens are the first."""

    B: int = 1
    H: int = 1
    T: int = 37
    K: int = 16
    C: int = 16
    to_start: bool = True
    write: dict[str, object] = field(default_factory=dict)
    unit_value: bool = True
    rate: str = "sigmoid"
    rate_scale: float = 1.0
    rate_shift: float = 0.0
    keep: str = "sigmoid"
    keep_shift: float = 1.0
    repeated: bool = False
    outputs: bool = False
    cut: int = 0  # tokens of a first call, the rest in a second

    @property
    def gates(self) -> Gates:
        return Gates(
            "key", "value", "eta" if self.rate != "given" else "", "alpha" if self.keep == "sigmoid" else "",
            unit_value=self.unit_value, rate_form=self.rate, rate_scale=self.rate_scale, rate_shift=self.rate_shift,
            keep_form=self.keep, keep_shift=self.keep_shift,
        )  # fmt: skip

    @property
    def boxes(self) -> list[str]:
        return ["key", "value"] + ["eta"] * (self.rate != "given") + ["alpha"] * (self.keep == "sigmoid")

    def flow(self, reads, extras, weights):
        z = dict(zip(self.boxes, reads, strict=True))
        k = l2norm(z["key"])
        v = l2norm(z["value"]) if self.unit_value else z["value"]
        form = F.softplus if self.rate == "softplus" else torch.sigmoid
        rate = extras[0].sigmoid() if self.rate == "given" else z["eta"].squeeze(-1) + self.rate_shift
        rate = rate if self.rate == "given" else self.rate_scale * form(rate)
        keep = None
        if self.keep == "given":
            keep = F.logsigmoid(extras[-1] + self.keep_shift)
        elif self.keep == "sigmoid":
            keep = F.logsigmoid(z["alpha"].squeeze(-1) + self.keep_shift)
        return k, v, rate, keep

    def inputs(self, device: str, dtype: torch.dtype) -> Results:
        g = torch.Generator().manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        B, T, H, K = self.B, self.T, self.H, self.K
        made = {"x": normal(B, T, H, K), "q": normal(B, T, H, K), "rate": normal(B, T, H), "keep": normal(B, T, H)}
        for box in ("key", "value", "eta", "alpha", "memory"):
            shape = (H, K, K) if self.to_start else (B, H, K, K)
            made[f"{box}.M"] = normal(*shape) * K**-0.5
        made |= {f"{box}.out": normal(H, 1, K) * K**-0.5 for box in ("eta", "alpha")}
        if self.repeated:
            made["x"] = made["x"][:, :1].expand(B, T, H, K).clone()
        return {name: x.to(device, dtype).requires_grad_() for name, x in made.items()}

    def extras(self, p: Results, part: slice) -> tuple[Tensor, ...]:
        given = {"rate": self.rate == "given", "keep": self.keep == "given"}
        return tuple(p[name][:, part] for name, is_given in given.items() if is_given)

    # ---- by the kernels, where there are some

    def fast(self, p: Results) -> Results:
        M = self.begin(p)
        states = {box: {"M": M[box], "held.M": M[box]} for box in M}
        parts, t = [], 0
        for part in [slice(0, self.cut), slice(self.cut, self.T)] if self.cut else [slice(0, self.T)]:
            s = self.call(p, states, part, t)
            y = s.read("memory", p["q"][:, part])
            states, t = s.state, t + part.stop - part.start
            parts.append({"y": y, "k": s.k, "v": s.v, "rate": s.rate, "keep": s.keep})
        found = {name: [part[name] for part in parts] for name in parts[0]}
        found = {name: torch.cat(xs, 1) for name, xs in found.items() if xs[0] is not None}
        return found | {f"{box}.M": parts["M"] for box, parts in states.items() if "M" in parts}

    def begin(self, p: Results) -> Results:
        """The boxes of every sequence: with retention towards the start they begin from it."""
        return {box: p[f"{box}.M"].expand(self.B, -1, -1, -1) for box in (*self.boxes, "memory")}

    def call(self, p: Results, states: dict[str, dict[str, Tensor]], part: slice, phase: int) -> Shared:
        return shared_product(
            self.flow, states, ((p["x"][:, part], self.boxes),), self.extras(p, part),
            chunk=self.C, phase=phase, outputs=self.outputs, final=bool(self.cut), gates=self.gates,
            start={box: p[f"{box}.M"] for box in states} if self.to_start else None,
            readouts={box: p[f"{box}.out"] for box in ("eta", "alpha") if box in self.boxes},
            **self.write,
        )  # fmt: skip

    # ---- token by token

    def slow(self, p: Results) -> Results:
        o = {"erase": True, "objective": "l2", "kept": False} | self.write
        now = self.begin(p)
        apply = lambda M, x: torch.einsum("bhrk,bhk->bhr", M, x)
        streams: list[list[Tensor]] = []
        for t in range(self.T):
            if t % self.C == 0:
                held = dict(now)
            reads = [apply(held[box], p["x"][:, t]) for box in self.boxes]
            for i, box in enumerate(self.boxes):
                if box in ("eta", "alpha"):
                    reads[i] = torch.einsum("hor,bhr->bho", p[f"{box}.out"], reads[i])
            extras = self.extras(p, slice(t, t + 1))
            k, v, e, keep = self.flow([z[:, None] for z in reads], extras, ())
            token = [apply(held["memory"], p["q"][:, t])[:, None], k, v, e, *([] if keep is None else [keep])]
            streams.append(token)
            k, v, e = k[:, 0], v[:, 0], e[:, 0, :, None, None]
            a = 1.0 if keep is None else keep[:, 0].exp()[..., None, None]
            for box, M in list(now.items()):
                back = (1 - a) * p[f"{box}.M"] if self.to_start else 0 * M
                u = -apply(held[box], v)
                if o["objective"] == "l2":
                    u = u + apply(a * held[box] + back if o["kept"] else held[box], k)
                if o["erase"]:
                    u = u + apply(M, k)
                now[box] = a * M + back - e * u[..., :, None] * k[..., None, :]
        names = ("y", "k", "v", "rate", "keep")[: len(streams[0])]
        found = {name: torch.cat(xs, 1) for name, xs in zip(names, zip(*streams, strict=True), strict=True)}
        return found | {f"{box}.M": M for box, M in now.items()}

    # ---- both

    def differences(self, device: str = "cpu", low: bool = False) -> dict[str, float]:
        """Relative difference of every result, and of every gradient of a random sum of all of them."""
        p, exact = self.inputs(device, torch.float32), self.inputs("cpu", torch.float64)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            got = self.fast(p)
        want = self.slow(exact)
        found = {name: difference(x, want[name]) for name, x in got.items()}
        gradients = []
        for results, leaves in ((got, p), ({name: want[name] for name in got}, exact)):
            g = torch.Generator().manual_seed(1)
            weighed = [
                (torch.randn(x.shape, generator=g, dtype=torch.float64).to(x) * x).sum() for x in results.values()
            ]
            total = torch.stack([x.double() for x in weighed]).sum()
            gradients.append(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))
        largest = max(g.norm().item() for g in gradients[1] if g is not None)
        for name, a, b in zip(p, *gradients, strict=True):
            if a is not None and b is not None:
                found[f"d {name}"] = difference(a, b, 1e-3 * largest)
        return found


def difference(a: Tensor, b: Tensor, floor: float = 1e-300) -> float:
    return ((a.detach().cpu().double() - b.detach()).norm() / b.detach().norm().clamp_min(floor)).item()


def own_differences(cell: Cell) -> dict[str, float]:
    """Of the tokens' own errors at both queries, and of the outer gradient of those errors (meta: full), from the
    PyTorch form in float64, which other tests judge."""
    found = []
    for dtype, interpret in ((torch.float32, "1"), (torch.float64, "0")):
        os.environ["TRITON_INTERPRET"] = interpret
        p = cell.inputs("cpu", dtype)
        results = [x for name, x in cell.fast(p).items() if not name.endswith(".M")]
        errors = own_errors(torch.stack([(x**2).sum() for x in results]).sum(), [p["x"], p["q"]], create_graph=True)
        loss = torch.stack([(e**2).sum() for e in errors]).sum()
        outer = torch.autograd.grad(loss, list(p.values()), allow_unused=True)
        found.append(dict(zip(["x", "q", *(f"d {name}" for name in p)], (*errors, *outer), strict=True)))
    os.environ["TRITON_INTERPRET"] = "1"
    return {
        name: difference(a, b)
        for (name, a), b in zip(found[0].items(), found[1].values(), strict=True)
        if b is not None
    }


ODD = Cell(B=1, H=3, T=37)
CASES: dict[str, Cell] = {
    "hope": ODD,
    "chunk 32, width 24": Cell(T=40, K=24, C=32),
    "chunk 64": Cell(T=80, K=16, C=64),
    "length 9": Cell(T=9),
    "retention towards nothing": Cell(to_start=False),
    "no retention": Cell(keep="none", to_start=False),
    "gradient at the kept state": Cell(write={"kept": True}),
    "dot": Cell(write={"objective": "dot"}),
    "no erase": Cell(write={"erase": False}),
    "hebbian": Cell(write={"erase": False, "objective": "dot"}, to_start=False, keep="given"),
    "plain value, softplus": Cell(unit_value=False, rate="softplus", rate_scale=0.3, rate_shift=-3.0),
    "given rate": Cell(rate="given"),
    "repeated tokens, rate near 1": Cell(C=64, T=64, repeated=True, rate_shift=9.0, keep_shift=9.0),
    "retention near 0": Cell(keep_shift=-40.0),
    "retention of 1": Cell(keep_shift=60.0),
    "outputs": Cell(T=20, outputs=True),
    "in pieces": Cell(T=40, cut=11),
    "one head": Cell(T=16),  # of one sequence, one chunk long
}
LOW = ("hope", "retention towards nothing", "repeated tokens, rate near 1")
WIDE = {name: replace(CASES[name], B=3, H=3, T=150, K=64, C=64) for name in LOW}
WIDE["width 128"] = Cell(T=80, K=128, C=64)


def lines(cases: dict[str, Cell]) -> Iterator[str]:
    for name, cell in cases.items():
        yield json.dumps({"case": name, "differences": cell.differences()})
    yield json.dumps({"case": "own errors", "differences": own_differences(Cell(T=20, outputs=True))})


if __name__ == "__main__":
    for line in lines(CASES):
        print(line, flush=True)
