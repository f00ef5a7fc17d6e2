"""Pass place: a kernel is chosen from what the flow is, and the reason is said where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nlc
from nlc.graph.dump import from_json, from_text, to_json, to_text
from nlc.graph.hash import graph_hash
from nlc.graph.nodes import Fused, Recurrence
from nlc.passes import build
from nlc.spec import loads
from nlc.target import Target

CELL = """
nlc: 1
name: cell
sizes: {{width: {width}, heads: 2}}
inputs: {{u: [heads, head], q: [heads, head], w: [heads]}}
levels:
  - name: fast
    every: 1 token
    chunk: {chunk}
    rule: dgd
    rate: {rate}
    {retain}
    memories:
      a: {{form: matrix, keys: k, values: a(v)}}
      b: {{form: matrix, keys: k, values: b(v)}}
      c: {{form: matrix, keys: k, values: c(v)}}
      d: {{form: matrix, keys: k, values: d(v)}}
      m: {{form: matrix, keys: k, values: m(v)}}
block: |
  k = {key}
  v = {value}
  y = m(q){more}
  s = tanh(w)
outputs: [y, s]
"""
HOPE = {
    "width": 32, "chunk": 16, "key": "l2norm(a(u))", "value": "l2norm(b(u))", "more": "",
    "rate": "sigmoid(linear(c(u), out=1))", "retain": "retain: sigmoid(linear(d(u), out=1) + 4)",
}  # fmt: skip


def text(**parts: object) -> str:
    return CELL.format(**HOPE | parts)


def placed(**parts: object) -> Recurrence:
    graph = build(loads(text(**parts)), target=Target.CUDA)
    return next(r for r in graph.of(Recurrence) if len(r.members) > 1)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "the rate is a sigmoid of a row of c, the retention is a sigmoid of a row of d"),
        ({"rate": "0.3 * softplus(linear(c(u), out=1) - 1)"}, "the rate is a softplus of a row of c"),
        ({"value": "b(u)"}, "the value one of b, the rate"),
        ({"rate": "sigmoid(w)", "more": " + c(q)"}, "the rate is known before the loop"),
        ({"rate": 0.3, "more": " + c(q)"}, "the rate is known before the loop"),
        ({"retain": "", "more": " + d(q)"}, "the rate is a sigmoid of a row of c"),
    ],
    ids=["hope", "softplus", "plain value", "given rate", "constant rate", "no retention"],
)
def test_a_known_flow_gets_a_kernel(parts, said):
    recurrence = placed(**parts)
    assert recurrence.kernel == "shared_product" and said in recurrence.placed


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"key": "a(u)"}, "PyTorch: the key is no l2norm of a read"),
        ({"key": "l2norm(a(u) + q)"}, "PyTorch: the key is made of more than a read"),
        ({"value": "l2norm(b(q))"}, "PyTorch: boxes are read with 2 queries"),
        ({"rate": "tanh(linear(c(u), out=1))"}, "PyTorch: the rate is no sigmoid or softplus of what is read"),
        ({"rate": "sigmoid(mean(c(u)))"}, "PyTorch: the rate is read out of its box by more than one linear map"),
        ({"retain": "retain: 0.5 * sigmoid(linear(d(u), out=1))"}, "PyTorch: the retention is 0.5 times a sigmoid"),
        ({"rate": "sigmoid(linear(a(u), out=1))", "more": " + c(q)"}, "PyTorch: the loop reads a, a, b, d where"),
        ({"chunk": 8}, "PyTorch: chunks of 8, expected 16, 32, 64 tokens"),
        ({"width": 16}, "PyTorch: heads of width 8, expected 16 to 128"),
    ],
)
def test_an_unknown_flow_is_left_to_pytorch_and_the_reason_said(parts, said):
    recurrence = placed(**parts)
    assert recurrence.kernel == "" and recurrence.placed.startswith(said)


LINEAR = """
nlc: 1
name: memory
sizes: {{width: {width}, heads: 2}}
inputs: {{k: [heads, head], v: [heads, head], q: [heads, head], w: [heads]}}
levels:
  - name: fast
    every: 1 token
    chunk: {chunk}
    objective: {objective}
    rule: {rule}
    rate: sigmoid(w)
    {more}
    memories:
      m: {{form: matrix, keys: l2norm(k), values: {value}}}
block: |
  y = m(q)
outputs: [y]
"""
DELTA = {"width": 32, "chunk": 1, "objective": "l2", "rule": "gd", "value": "v", "more": ""}


def one(**parts: object) -> Recurrence:
    (recurrence,) = build(loads(LINEAR.format(**DELTA | parts)), target=Target.CUDA).of(Recurrence)
    return recurrence


@pytest.mark.parametrize(
    "parts",
    [{}, {"rule": "dgd"}, {"objective": "dot"}, {"chunk": 16}, {"more": "retain: sigmoid(w)"}],
    ids=["delta rule", "dgd", "linear attention", "chunk 16", "retention"],
)
def test_a_linear_memory_gets_a_kernel(parts):
    recurrence = one(**parts)
    assert recurrence.kernel == "linear_memory" and recurrence.placed.startswith("a kernel: chunks of ")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"rule": "momentum"}, "PyTorch: the rule has momentum"),
        ({"objective": "huber(1.0)", "chunk": 16}, "PyTorch: the gradient is not affine in the state"),
        ({"more": "meta: first_order"}, "PyTorch: meta is first_order"),
        ({"chunk": 8}, "PyTorch: chunks of 8, expected 16, 32, 64 tokens"),
        ({"width": 16}, "PyTorch: heads of width 8, expected 16 to 128"),
        ({"more": "retain: sigmoid(k)"}, "PyTorch: 'loop' has no kernel"),
    ],
)
def test_another_memory_is_left_to_pytorch_and_the_reason_said(parts, said):
    recurrence = one(**parts)
    assert recurrence.kernel == "" and recurrence.placed.startswith(said)


def test_a_linear_memory_for_cuda_is_the_same_program_on_a_cpu():
    cpu, cuda = (nlc.compile(loads(LINEAR.format(**DELTA)), target=target) for target in ("cpu", "cuda"))
    assert "kernel=True" in cuda.files["model.py"] and "kernel=True" not in cpu.files["model.py"]


def test_a_program_for_cuda_is_the_same_program_on_a_cpu():
    cpu, cuda = (nlc.compile(loads(text()), target=target) for target in ("cpu", "cuda"))
    assert "gates=FAST_GATES" in cuda.files["model.py"] and "Gates" not in cpu.files["model.py"]
    g = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(1, 20, 2, 16, generator=g) for name in "uq"} | {"w": torch.randn(1, 20, 2, generator=g)}
    a, b = (program.model(seed=0)(**inputs)[0] for program in (cpu, cuda))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_cpu_has_no_kernels():
    graph = build(loads(text()))
    assert {(r.kernel, r.placed) for r in graph.of(Recurrence)} == {("", "")}


# ---- operators that a kernel computes together -----------------------------------------------------------------------

AROUND = """
nlc: 1
name: around
sizes: {{width: 32, heads: 2}}
inputs: {{x: [width]}}
block: |
  {body}
outputs: [{outputs}]
"""


def around(body: str, outputs: str = "y", width: int = 32) -> str:
    said = AROUND.format(body="\n  ".join(body.split("; ")), outputs=outputs)
    return said.replace("width: 32", f"width: {width}")


def fused(body: str, **parts: Any) -> list[tuple[str, tuple[str, ...], str]]:
    graph = build(loads(around(body, **parts)), target=Target.CUDA)
    return [(f.kernel, tuple(graph[m].op for m in f.members), f.placed) for f in graph.of(Fused)]


@pytest.mark.parametrize(
    ("body", "members"),
    [
        ("y = l2norm(heads(silu(conv(x, 4))))", ("conv", "silu", "heads", "l2norm")),
        ("y = rmsnorm(silu(heads(conv(x, 3))))", ("conv", "heads", "silu", "rmsnorm")),
        ("y = conv(x, 4) + x", ("conv",)),
        ("h = conv(x, 4); y = silu(h)", ("conv",)),
        ("y = tanh(silu(conv(x, 4)))", ("conv", "silu")),
    ],
)
def test_what_follows_a_convolution_is_computed_with_it(body, members):
    ((kernel, found, said),) = fused(body)
    assert (kernel, found) == ("convolution", members)
    assert said.startswith("a kernel: ") and "8 bytes a number" in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = conv(x, 9)", "PyTorch: 9 taps, expected 2 to 8"),
        ("y = conv(x + 0.5 * prev(y), 4)", "PyTorch: the convolution is inside of a loop over tokens"),
    ],
)
def test_another_convolution_is_left_to_pytorch_and_the_reason_said(body, said):
    assert fused(body) == [("", ("conv",), said)]


@pytest.mark.parametrize(
    ("body", "members"),
    [
        ("y = rmsnorm(x) * silu(linear(x))", ("rmsnorm", "silu", "mul")),
        ("y = gelu(linear(x)) * merge(rmsnorm(heads(x)))", ("rmsnorm", "merge", "gelu", "mul")),
        ("o = merge(rmsnorm(heads(x))); g = sigmoid(linear(x)); y = o * g", ("rmsnorm", "merge", "sigmoid", "mul")),
    ],
)
def test_a_gated_norm_is_one_kernel_whatever_its_factors_are_called(body, members):
    ((kernel, found, said),) = fused(body)
    assert (kernel, found) == ("gated_norm", members) and "12 bytes a number, not 28" in said


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("o = rmsnorm(x); y = o * silu(x)", "y, o"),
        ("y = rmsnorm(x) * tanh(x)", "y"),
        ("y = rmsnorm(x * silu(x))", "y"),
        ("y = rmsnorm(x) * silu(param(width))", "y"),
    ],
    ids=["the norm is read elsewhere", "another gate", "the gate comes first", "the gate is no value of a token"],
)
def test_what_is_no_gated_norm_stays_as_it_is(body, outputs):
    assert fused(body, outputs=outputs) == []


BODIES = [
    "y = l2norm(heads(silu(conv(x, 4))))",
    "h = conv(x, 4); g = sigmoid(linear(h)); o = merge(rmsnorm(heads(h))); y = silu(h + o * g)",
    "y = rmsnorm(silu(conv(rmsnorm(x) * gelu(linear(x)), 3)))",
    "y = rmsnorm(x) * silu(conv(linear(x), 4))",
    "y = rmsnorm(conv(x, 4)) * silu(x)",
    "y = merge(rmsnorm(heads(conv(x, 4)))) * silu(conv(x, 3))",
    "g = silu(conv(x, 3)); y = merge(rmsnorm(heads(x))) * g",
]


@pytest.mark.parametrize("body", BODIES)
def test_operators_for_cuda_are_the_same_program_on_a_cpu_at_any_split(body):
    cpu, cuda = (nlc.compile(loads(around(body)), target=target) for target in ("cpu", "cuda"))
    assert "convolution(" in cuda.files["model.py"] and "convolution(" not in cpu.files["model.py"]
    x = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(0))
    models = [program.model(seed=0) for program in (cpu, cuda)]
    (a, _), (b, _) = (model(x=x) for model in models)
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    first, state = models[1](x=x[:, :2])
    parts = [first]
    for part in x[:, 2:].split([1, 21, 16], 1):
        y, state = models[1](x=part, state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), a)


@pytest.mark.parametrize("body", BODIES)
def test_a_graph_with_them_reads_back_equal_and_is_the_same_program(body):
    spec = loads(around(body))
    graph = build(spec, target=Target.CUDA, check=True)
    assert from_text(to_text(graph)).nodes == graph.nodes and from_json(to_json(graph)).nodes == graph.nodes
    assert graph_hash(graph) == graph_hash(build(spec))
