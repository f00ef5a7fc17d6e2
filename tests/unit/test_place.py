"""Pass place: a kernel is chosen from what the flow is, and the reason is said where there is none."""

from __future__ import annotations

import pytest
import torch

import nlc
from nlc.graph.nodes import Recurrence
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
