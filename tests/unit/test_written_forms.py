"""Forms under `forms:`: what is refused, with a place; what a graph says of them; errors by autograd."""

from __future__ import annotations

import pytest
import torch

from nlc.graph.dump import from_json, from_text, to_json, to_text
from nlc.graph.graph import Graph
from nlc.graph.hash import graph_hash
from nlc.graph.nodes import Memory
from nlc.passes import build
from nlc.spec import loads
from runtime.ops import exact_layernorm, layernorm
from runtime.ops.equations import Equations
from tests.unit.programs import refusals

SPEC = """nlc: 1
name: small
sizes: {heads: 2, head: 4}
inputs: {k: [heads, head], v: [heads, head], q: [heads, head]}
forms:
  own: {state: {W: [out, in], b: [out]}, do: 'y = x + layernorm(W @ x + b)'}
levels:
  - {name: m, every: 1 token, chunk: 4, keys: k, values: v, memories: {a: {form: own}, b: {form: own}}}
block: |
  y = a(q) + b(q)
outputs: [y]
"""


def graph(text: str = SPEC) -> Graph:
    return build(loads(text), check=True)


REFUSED = {  # (written, instead, code and line, what is said)
    "register": ("layernorm(W @ x + b)", "prev(W @ x + b)", "NLC0412 6", "'prev' in the form 'own' looks at earlier"),
    "random": ("layernorm(W @ x + b)", "dropout(W @ x + b, 0.1)", "NLC0412 6", "'dropout' in the form 'own' draws"),
    "no y": ("y = x", "z = x", "NLC0412 6", "the form 'own' never assigns y"),
    "unused": ("@ x + b)", "@ x)", "NLC0412 6", "does not depend on its state 'b'"),
    "twice": ("y = x +", "y = W @ x +", "NLC0412 6", "'W' of the form 'own' is applied a second time"),
    "no layer": ("W @ x + b", "W @ x + sum(W) + b", "NLC0412 6", "is used otherwise than as W @ a"),
    "taken": ("b: [out]", "b: [out], k: [out]", "NLC0412 6", "calls a part of its state 'k'"),
    "assigned": ("do: 'y =", "do: 'b = x * 2\n\n    y =", "NLC0412 6", "assigns its own state 'b'"),
    "axes": ("b: [out]", "b: [out, in, in]", "NLC0412 6", "'b' of the form 'own' has 3 axes"),
    "size": ("b: [out]", "b: [oud]", "NLC0503 6", "unknown size 'oud'"),
    "name": ("W @ x + b", "W @ x + c", "NLC0501 6", "undefined value 'c'"),
    "a width": ("b: [out]", "b: [7]", "NLC0601 6", "shapes do not meet: [2, 7] and [2, 4]"),
    "width of y": ("y = x + layernorm(W @ x + b)", "y = sum(W @ x + b)", "NLC0601 6", "y of the form 'own' is [2]"),
    "parameters": ("a: {form: own}", "a: {form: own(2)}", "NLC0405 8", "too many"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_where_it_stands(case: str) -> None:
    before, after, code, message = REFUSED[case]
    assert before in SPEC
    found = refusals(graph, SPEC.replace(before, after, 1))
    assert any(f.startswith(code) and message in f for f in found), found
    assert len(set(found)) <= 2, found


def test_a_graph_reads_back_equal() -> None:
    whole = graph()
    assert from_json(to_json(whole)) == whole
    assert to_text(from_text(to_text(whole))) == to_text(whole)


def test_names_inside_a_form_do_not_count() -> None:
    other = (
        SPEC.replace("own", "mine").replace("W", "Weight").replace("b: [out]", "c: [out]").replace("x + b)", "x + c)")
    )
    assert graph_hash(graph(other)) == graph_hash(graph())
    assert graph_hash(graph(SPEC.replace("y = x + layernorm", "y = x - layernorm"))) != graph_hash(graph())


def test_a_form_said_by_the_level_has_one_set_of_further_weights() -> None:
    shared = SPEC.replace("chunk: 4,", "chunk: 4, form: own,").replace("{form: own}", "{}")
    a, b = graph(shared).of(Memory)
    assert a.form_weights == b.form_weights == (
        "blocks.*.m.form.y.layernorm", "blocks.*.m.form.y.layernorm_bias")  # fmt: skip
    a, b = graph().of(Memory)
    assert not set(a.form_weights) & set(b.form_weights)


def square(layer, x, gain):
    """y = gain * (U @ tanh(W @ x * b)) ** 2 + b"""
    b = layer("b")
    return gain * layer("U", torch.tanh(layer("W", x) * b)) ** 2 + b


def test_errors_are_the_derivative_of_each_token() -> None:
    """The gradient of every part, from errors and inputs, equals autograd's; and can be differentiated twice more."""
    torch.manual_seed(0)
    gain = torch.randn(3, dtype=torch.float64, requires_grad=True)
    form = Equations(square, vectors=("b",), matrices=("W", "U")).given(gain=gain)
    shapes = {"b": (2, 1, 3), "W": (2, 1, 3, 4), "U": (2, 1, 3, 3)}
    W = {n: torch.randn(s, dtype=torch.float64, requires_grad=True) for n, s in shapes.items()}
    x = torch.randn(2, 3, 1, 4, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 3, 1, 3, dtype=torch.float64)

    def gradients(*given):
        parts, at = dict(zip(W, given[:3], strict=True)), given[3]
        _, taps = form.read(parts, at)
        return tuple(form.sums(taps, form.errors(parts, taps, u))[0].values())

    y, _ = form.read(W, x)
    expected = torch.autograd.grad(y, list(W.values()), u)
    for mine, right in zip(gradients(*W.values(), x), expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-14)
    inputs = (*W.values(), x)
    assert torch.autograd.gradcheck(gradients, inputs)
    assert torch.autograd.gradgradcheck(gradients, inputs, fast_mode=True)


def test_layernorm_of_a_form_has_a_right_third_derivative() -> None:
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    gain, bias = (torch.randn(4, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(exact_layernorm(x, gain, bias), layernorm(x, gain, bias))

    def slope(x):
        return torch.autograd.grad(exact_layernorm(x, gain, bias).pow(2).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, (x,))
