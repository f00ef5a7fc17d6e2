"""The interval of a value: what is proved of shares, and that every value the interpreter gives lies within."""

from __future__ import annotations

import pytest
import torch

from nlc.graph.nodes import Output, Recurrence
from nlc.graph.ranges import range_of, span
from nlc.interpret import interpret
from tests.unit.programs import cell, values

INPUTS = "{x: [width], z: []}"  # both also leave as r = x + z
SHARES = [  # expression, never negative, positive
    ("sigmoid(x)", True, True),
    ("1 - sigmoid(x)", True, True),
    ("sigmoid(x) * exp(-softplus(z))", True, True),
    ("softplus(x) + 0.5", True, True),
    ("relu(x)", True, False),
    ("tanh(x)", False, False),
    ("tanh(x) * tanh(x)", True, False),
    ("tanh(x) * tanh(z)", False, False),
    ("tanh(x) ** 2", True, False),
    ("x ** 3", False, False),
    ("relu(x) * sigmoid(x)", True, False),
    ("1 - tanh(relu(x))", True, True),
    ("0.5 - 0.5 * tanh(z)", True, True),
    ("0.4 - sigmoid(z)", False, False),
    ("-0.5 * sigmoid(x)", False, False),
    ("-(-sigmoid(x))", True, True),
    ("sigmoid(x) / (1 + exp(z))", True, True),
    ("-1 / -exp(z)", True, True),
    ("1 / x", False, False),
    ("min(sigmoid(x), 0.5)", True, True),
    ("min(x, 0.5)", False, False),
    ("max(x, 0)", True, False),
    ("max(x, sigmoid(x))", True, True),
    ("where(x > 0, sigmoid(x), 0)", True, False),
    ("where(x > 0, x, 1)", False, False),
    ("mean(softmax(x))", True, True),
    ("1 - max(softmax(x))", True, False),
    ("norm(x)", True, False),
    ("abs(x) + z * z", True, False),
    ("2 - sum(l2norm(x)[0:2])", True, False),
    ("split(sigmoid(x), 2)", True, True),
    ("prev(sigmoid(x))", True, False),
    ("linear(sigmoid(x))", False, False),
    ("sqrt(exp(z))", True, True),
    ("log(1 + exp(z))", True, True),
    ("silu(relu(x)) + gelu(softplus(z))", True, False),
    ("silu(x) + 0.3", True, True),
    ("sign(x) + 1", True, False),
]


@pytest.mark.parametrize(("expression", "never_negative", "positive"), SHARES)
def test_what_is_proved_of_a_share(expression: str, never_negative: bool, positive: bool) -> None:
    target = "y, w" if expression.startswith("split") else "y"
    graph = values(f"{target} = {expression}\nr = x + z", inputs=INPUTS, outputs="[y, r]")
    out, _ = graph.of(Output)
    found = range_of(graph, out.value)
    assert (found.never_negative, found.positive) == (never_negative, positive)
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "x": 3 * torch.randn(4, 25, 12, generator=draw, dtype=torch.float64),
        "z": 3 * torch.randn(4, 25, generator=draw, dtype=torch.float64),
    }
    weights = (
        {"blocks.0.y.linear": torch.randn(12, 12, generator=draw, dtype=torch.float64)}
        if "linear" in expression
        else {}
    )
    y = interpret(graph, weights, inputs=inputs, gradients=False).outputs["y"]
    slack = 1e-12
    assert float(y.min()) >= found.low.at - slack and float(y.max()) <= found.high.at + slack


def test_a_recursion_through_prev_ends() -> None:
    graph = values("h = sigmoid(x) * prev(y)\ny = h + x", inputs="{x: [width]}")
    (out,) = graph.of(Output)
    assert range_of(graph, out.value) == span(float("-inf"), float("inf"))


MEMORIES = "{{m: {{form: {}, keys: k, values: v}}}}"
LEVEL = "- {{name: a, every: 1 token, chunk: 4, rule: momentum(beta={}), memories: " + MEMORIES + "}}"
GATE = "{k: [heads, head], v: [heads, head], q: [heads, head], b: [heads]}"


@pytest.mark.parametrize(
    ("beta", "form", "lowering", "said"),
    [
        ("0.5", "matrix", "linear", ""),
        ("0", "matrix", "linear", ""),
        ("-0.5", "matrix", "loop", "momentum beta=-0.5 may be below 0: token by token"),
        ("-0.5", "mlp(hidden=1x)", "loop", "below 0"),
        ("sigmoid(b)", "matrix", "linear", ""),
        ("relu(b)", "mlp(hidden=1x)", "deep", ""),
        ("learned(0.9)", "matrix", "linear", ""),
        ("tanh(b)", "matrix", "loop", "momentum beta may be below 0"),
        ("b", "matrix", "loop", "momentum beta=b may be below 0"),
        ("s", "vector", "loop", "momentum beta=s may be below 0"),
    ],
)
def test_momentum_that_may_be_negative_goes_token_by_token(beta: str, form: str, lowering: str, said: str) -> None:
    form = f"'{form}'" if "(" in form else form
    graph = cell(LEVEL.format(beta, form), "s = b - 1\ny = m(q)", inputs=GATE)
    (recurrence,) = graph.of(Recurrence)
    assert recurrence.lowering == lowering
    assert said in recurrence.reason


def test_a_period_sums_gradients_whatever_momentum_is() -> None:
    graph = cell(LEVEL.format("-0.5", "matrix").replace("1 token", "2 tokens"), "y = m(q)")
    (recurrence,) = graph.of(Recurrence)
    assert recurrence.lowering == "periodic"
