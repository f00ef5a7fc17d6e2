"""Convolutions and gated norms computed twice: by the kernels, and by ordinary operations in float64.  For the
interpreter's tests and a GPU's.

python -m tests.kernels.fused prints the relative difference of each case's results and gradients as JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.ops.basic import causal_conv
from runtime.ops.gated import gated, gated_norm
from runtime.ops.history import own_errors
from runtime.ops.short_convolution import convolution, followed
from tests.kernels.cell import difference

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """What both kinds of case share: results by `run`, and how far they and their gradients are from float64."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def run(self, p: Results) -> Results:
        raise NotImplementedError

    def inputs(self, device: str, dtype: torch.dtype) -> Results:
        g = torch.Generator().manual_seed(0)
        made = {name: torch.randn(*shape, generator=g, dtype=torch.float64) for name, shape in self.shapes().items()}
        return {name: x.to(device, dtype).requires_grad_() for name, x in made.items()}

    def differences(self, device: str = "cpu", low: bool = False) -> dict[str, float]:
        """Relative difference of every result, and of every gradient of a random sum of all of them."""
        p, exact = self.inputs(device, torch.float32), self.inputs("cpu", torch.float64)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            got = self.run(p)
        want = self.run(exact)
        found = {name: difference(x, want[name]) for name, x in got.items()}
        gradients = []
        for results, leaves in ((got, p), (want, exact)):
            g = torch.Generator().manual_seed(1)
            weights = {name: torch.randn(x.shape, generator=g, dtype=torch.float64) for name, x in results.items()}
            total = torch.stack([(weights[name].to(x) * x).sum().double() for name, x in results.items()]).sum()
            gradients.append(torch.autograd.grad(total, list(leaves.values())))
        for name, a, b in zip(p, *gradients, strict=True):
            found[f"d {name}"] = difference(a, b)
        return found


@dataclass(frozen=True)
class Convolution(Case):
    """Sizes, and what follows.  cut: tokens of a first call, whose history the second one has."""

    B: int = 2
    T: int = 37
    D: int = 48
    taps: int = 4
    act: str = "silu"
    heads: int = 2
    norm: str = "l2norm"
    cut: int = 0
    zeros: bool = False  # of all tokens but a few: a norm of nothing

    def shapes(self) -> dict[str, tuple[int, ...]]:
        gain = {"gain": (self.D // (self.heads or 1),)} if self.norm == "rmsnorm" else {}
        return {"x": (self.B, self.T, self.D), "w": (self.taps, self.D), "past": (self.B, self.taps - 1, self.D)} | gain

    def run(self, p: Results) -> Results:
        x, history, parts = p["x"], p["past"], []
        if self.zeros:
            x, history = x * (torch.arange(self.T, device=x.device) < 5)[:, None], 0 * history
        for part in x.split([self.cut, self.T - self.cut] if self.cut else [self.T], 1):
            follows = (self.act, self.heads, self.norm, p.get("gain"))
            if x.dtype == torch.float64:
                y, history = causal_conv(part, p["w"], history)
                y = followed(y, *follows)
            else:
                y, history = convolution(part, p["w"], history, *follows)
            parts.append(y)
        return {"y": torch.cat(parts, 1), "past": history}


@dataclass(frozen=True)
class Gated(Case):
    shape: tuple[int, ...] = (2, 37, 3, 24)
    act: str = "silu"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"x": self.shape, "gain": self.shape[-1:], "z": self.shape}

    def run(self, p: Results) -> Results:
        function = gated if p["x"].dtype == torch.float64 else gated_norm
        return {"y": function(p["x"], p["gain"], p["z"], self.act)}


CASES: dict[str, Case] = {
    "silu, l2norm": Convolution(),
    "silu, rmsnorm": Convolution(norm="rmsnorm", T=80),
    "no norm": Convolution(norm="", D=150, heads=3),
    "taps alone": Convolution(norm="", act="", heads=0, D=40),
    "norm without heads": Convolution(norm="rmsnorm", act="", heads=0, D=40),
    "two taps": Convolution(taps=2),
    "seven taps, wide heads": Convolution(taps=7, D=200, heads=1, T=70),
    "in pieces": Convolution(T=60, cut=19),
    "a first piece too short for a kernel": Convolution(T=40, cut=2, norm="rmsnorm"),
    "nothing but its past": Convolution(zeros=True),
    "gated by heads": Gated(),
    "gated over the width": Gated((2, 37, 72), "sigmoid"),
    "gated by gelu": Gated((1, 70, 16), "gelu"),
    "one row wider than a tile": Gated((1, 18, 4100)),
}
LARGE: dict[str, Case] = {
    "silu, l2norm": Convolution(B=3, T=1000, D=512, heads=8),
    "taps alone": Convolution(B=3, T=1000, D=1000, heads=0, act="", norm=""),
    "gated over the width": Gated((3, 1000, 1024)),
    "gated by heads": Gated((3, 1000, 8, 64), "sigmoid"),
}


def own_differences(device: str = "cpu") -> dict[str, float]:
    """Of a token's own error, which passes the last tap alone, and of its derivative."""
    found: dict[str, float] = {}
    cases = {"conv": Convolution(), "taps": Convolution(norm="", act="", heads=0), "gated": Gated()}
    for name, case in cases.items():
        errors: list[list[Tensor]] = []
        for kind, dtype in ((device, torch.float32), ("cpu", torch.float64)):
            p: Any = case.inputs(kind, dtype)
            y = case.run(p)["y"]
            weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            loss = (weights.to(y) * y.square()).sum()
            (constant,) = own_errors(loss, [p["x"]])
            (error,) = own_errors(loss, [p["x"]], create_graph=True)
            again = torch.autograd.grad(error.square().sum(), p["x"])[0]
            errors.append([constant, error, again])
        of = ("own error", "with a graph", "its derivative")
        found |= {f"{name}: {which}": difference(a, b) for which, a, b in zip(of, *errors, strict=True)}
    return found


def lines(cases: dict[str, Case]) -> Iterator[str]:
    for name, case in cases.items():
        yield json.dumps({"case": name, "differences": case.differences()})
    yield json.dumps({"case": "own errors", "differences": own_differences()})


if __name__ == "__main__":
    for line in lines(CASES):
        print(line, flush=True)
