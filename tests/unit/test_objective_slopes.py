"""Objectives that are expressions: the generated slope is the derivative of the interpreter's loss, and so are its own
derivatives, which outer levels and a token's own error take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runtime.ops
from codegen.objectives import slope_name, slopes
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory
from nlc.interpret.rules import loss_of
from nlc.passes import build
from nlc.spec import loads

SPEC = """\
nlc: 1
name: objective
sizes: {{heads: 2, head: 4}}
inputs: {{k: [{axes}head], v: [{axes}head], q: [{axes}head], g: [{gate}]}}
levels:
  - {{name: m, every: 1 token, memories: {{memory: {{form: matrix, keys: k, values: v, objective: '{objective}'}}}}}}
block: |
  y = memory(q) + {sum}
outputs: [y]
"""
EXPRESSIONS = (
    "1 - sum(l2norm(M) * l2norm(v))", "sum(l2norm(M - l2norm(k)))", "sum(g * M * l2norm(v))", "sum(softmax(M) * v)",
    "-sum(softmax(v) * log(softmax(M)))", "log(sum(exp(M))) - sum(softmax(v) * M)", "norm(M - v)", "norm(M - v, 3)",
    "norm(softmax(M) - softmax(v), 1)", "min(M * v) ** 2", "max(abs(M - v))", "sum(min(M, v))", "sum(max(g, M))",
    "sum(max(M, 0))", "sum(min(M, 0) * v)", "sum(max(M - v, 0.1, v))", "sum(where(M > v, M, v * M))",
    "sum(where(1, M * v, M)) + sum(where(0, v, g) * M)", "sum(where(v > 0, 1, 2) * M)", "sum((M > v) * M)",
    "sum(silu(M - v) + gelu(M) * v)", "sum(relu(M - v) ** 3)", "sum(sigmoid(M) * tanh(M - v))", "mean(softplus(M - v))",
    "sum(log(abs(M - v) + 1))", "sum(sqrt((M - v) ** 2 + 1))", "sum((abs(M) + 1) ** v) + sum(2 ** M)",
    "sum(sign(v) * M / (abs(v) + 1))", "sum(stop(M) * M)", "sum(poly(M, 3))", "sum(concat(M, v) ** 2)",
    "sum(merge(heads(M, 2)) * v) + sum(max(heads(M, 2)))", "trace(outer(M, v) @ outer(k, M))",
    "sum(outer(M, k) @ k * v)", "sum(transpose(outer(M, v)) @ M)", "sum(sum(newton_schulz(outer(M, v) + 0.1, 3)))",
)  # fmt: skip


def graph_of(objective: str, heads: bool) -> Graph:
    axes, gate, total = ("heads, ", "heads", "sum(g)") if heads else ("", "", "g")
    return build(loads(SPEC.format(axes=axes, gate=gate, sum=total, objective=objective), "t.yaml"))


def generated(graph: Graph, memory: Memory) -> Callable[..., Tensor]:
    """The function of the slope, as the package has it."""
    names: dict[str, Any] = {"torch": torch, "F": F, "math": math}
    names |= {name: getattr(runtime.ops, name) for name in runtime.ops.__all__}
    exec("\n".join(slopes(graph)), names)
    found: Callable[..., Tensor] = names[slope_name(memory)]
    return found


def derivatives(slope: Callable[[Tensor], Tensor], M: Tensor) -> list[Tensor]:
    """The slope at M, and the first and second derivative of some of it."""
    M = M.clone().requires_grad_()
    found = [slope(M)]
    for most in (1.7, 2.3):
        last = (found[-1] * torch.linspace(0.3, most, M.numel(), dtype=M.dtype).view_as(M)).sum()
        (more,) = torch.autograd.grad(last, M, create_graph=True, allow_unused=True) if last.requires_grad else (None,)
        found.append(torch.zeros_like(M) if more is None else more)
    return found


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "one"])
@pytest.mark.parametrize("objective", EXPRESSIONS)
def test_slope_and_its_derivatives_are_those_of_the_loss(objective: str, heads: bool) -> None:
    graph = graph_of(objective, heads)
    (memory,) = graph.of(Memory)
    slope, names = generated(graph, memory), [p.name for p in memory.objective.params if p.value]
    draw = torch.Generator().manual_seed(1)
    one: tuple[Any, ...] = (0, 0) if heads else (0, 0, 0)  # of batch and token, and of what stands for heads
    k, v, at = torch.randn(3, 1, 1, 2 if heads else 1, 4, generator=draw, dtype=torch.float64)
    g = torch.randn(at.shape[:-1], generator=draw, dtype=torch.float64)
    given = {p.name: p.number for p in memory.objective.params if not p.value} | dict.fromkeys(names, g[one])

    def mine(M: Tensor) -> Tensor:
        return slope(M, k, v, *[g] * len(names))

    def right(M: Tensor) -> Tensor:
        found: Tensor = torch.func.grad(lambda M: loss_of(memory.objective, M[one], k[one], v[one], given))(M)
        return found

    for M in (at, 0 * at):  # at 0 extrema and absolute values have no derivative but the one they are given
        for found, expected in zip(derivatives(mine, M), derivatives(right, M), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("operator", ["dropout(M, 0.5)", "split(M, 2)", "rmsnorm(M)", "prev(M)", "param(4) * M"])
def test_what_has_weights_chance_or_a_past_is_no_objective(operator: str) -> None:
    with pytest.raises(Exception, match="in an objective"):
        graph_of(f"sum({operator})", True)
