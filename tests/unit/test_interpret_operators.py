"""Operators and rules of the interpreter, each against a line of its own."""

from __future__ import annotations

import math

import pytest
import torch

from nlc.equations import parse_block, parse_expression
from nlc.graph.nodes import Rule, RuleLevel
from nlc.interpret.operators import FUNCTIONS, weighted
from nlc.interpret.rules import Carried, evaluate, run_rule
from nlc.operators import OPERATORS
from nlc.source import Position

AT = Position("t.yaml", 1, 1)
HISTORY = {"conv", "prev", "rope", "param"}  # in token.py: they need more than the token's values
WEIGHTED = {"linear", "rmsnorm", "layernorm"}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_operator_has_a_meaning():
    assert set(OPERATORS) == set(FUNCTIONS) | HISTORY | WEIGHTED


CASES = {
    "add": ([(2,), (2, 3)], {}),
    "mul": ([(2, 3), ()], {}),
    "lt": ([(2, 3), (2,)], {}),
    "matmul": ([(2, 3, 4), (2, 4)], {}),
    "neg": ([(3,)], {}),
    "slice": ([(2, 5)], {"start": 1, "stop": 3, "single": False}),
    "l2norm": ([(2, 3)], {}),
    "softmax": ([(2, 3)], {}),
    "where": ([(2,), (2, 3), ()], {}),
    "min": ([(2, 3)], {}),
    "max": ([(2, 3), (2,)], {}),
    "norm": ([(2, 3)], {"p": 3.0}),
    "mean": ([(2, 3)], {}),
    "sum": ([(2, 3)], {}),
    "poly": ([(2, 3)], {"degree": 3}),
    "index": ([], {"size": 4}),
    "eye": ([], {"n": 3}),
    "outer": ([(2, 3), (2, 4)], {}),
    "transpose": ([(2, 3, 4)], {}),
    "trace": ([(2, 3, 3)], {}),
    "concat": ([(2, 3), (2, 1)], {}),
    "heads": ([(6,)], {"n": 3}),
    "merge": ([(2, 3, 4)], {}),
    "newton_schulz": ([(3, 2)], {"steps": 2}),
    "dropout": ([(3,)], {"p": 0.5}),
    "stop": ([(3,)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_shape_is_as_declared(name):
    shapes, options = CASES[name]
    values = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert tuple(FUNCTIONS[name](*values, **options).shape) == OPERATORS[name].shape(tuple(shapes), options)


def test_shapes_align_from_the_left():
    a, b = draw(2), draw(2, 3, seed=1)
    assert torch.equal(FUNCTIONS["mul"](a, b), torch.stack([a[0] * b[0], a[1] * b[1]]))


def test_split_gives_its_pieces():
    x = draw(2, 6)
    first, second, third = FUNCTIONS["split"](x, (1, 2, 3))
    assert torch.equal(torch.cat((first, second, third), -1), x)
    assert FUNCTIONS["item"](FUNCTIONS["split"](x, 3), index=1, size=2).tolist() == x[:, 2:4].tolist()


def test_linear_has_a_weight_per_leading_index():
    x, W, bias = draw(2, 3), draw(2, 4, 3, seed=1), draw(2, 4, seed=2)
    expected = torch.stack([W[i] @ x[i] + bias[i] for i in range(2)])
    assert torch.allclose(weighted("linear", x, [W, bias], {"out": 4, "bias": True}), expected)
    row = weighted("linear", x, [W[:, :1]], {"out": 1, "bias": False})
    assert torch.allclose(row, torch.stack([W[i, 0] @ x[i] for i in range(2)]))


def test_norms():
    x, gain, bias = 3 + draw(2, 4), draw(4, seed=1), draw(4, seed=2)
    found = weighted("layernorm", x, [gain, bias], {})
    assert torch.allclose(found, torch.nn.functional.layer_norm(x, (4,), gain, bias, 1e-5))
    assert torch.allclose(weighted("rmsnorm", x, [gain], {}), torch.nn.functional.rms_norm(x, (4,), gain, 1e-5))
    assert torch.allclose(FUNCTIONS["gelu"](x), torch.nn.functional.gelu(x))


def test_l2norm_of_nothing_is_nothing():
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    y = FUNCTIONS["l2norm"](x)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x, allow_unused=True, materialize_grads=True)
    assert not y.any()
    assert torch.allclose(grad, torch.full_like(grad, 1e6))
    assert torch.isfinite(second).all()


def test_newton_schulz_is_nearly_orthogonal():
    X = FUNCTIONS["newton_schulz"](draw(5, 3), steps=5)
    singular = torch.linalg.svdvals(X)
    assert ((singular > 0.6) & (singular < 1.3)).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * a - b / 4", 2 * 3 - 2 / 4),
        ("-a ** 2", -9),
        ("sqrt(a + 1)", 2),
        ("max(a, b)", 3),
        ("where(a > b, 1, 0)", 1),
        ("beta[1] * a", 1.5),
        ("norm(v, p=1)", 7),
        ("v[1]", -4),
        ("sum(v[0:1])", 3),
    ],
)
def test_expressions(text, expected):
    names = {"a": torch.tensor(3.0), "b": 2, "beta": (0.9, 0.5), "v": torch.tensor([3.0, -4.0])}
    assert math.isclose(float(evaluate(parse_expression(text, AT), names)), expected)


def rule(*levels):
    made = [RuleLevel(period=period, state=state, do=parse_block(do, AT)) for period, state, do in levels]
    return Rule(name="test", levels=tuple(made))


def updates(rule, grads, **names):
    """Every weight that the rule makes of these gradients, from zero."""
    weight, found = torch.zeros_like(grads[0]), []
    carried = Carried.zero(rule, {"M": weight})
    for grad in grads:
        seen = {"grad": grad, "weight": weight, "lr": torch.tensor(0.1, dtype=torch.float64), **names}
        weight, carried = run_rule(rule, "M", weight, seen, carried.counted())
        found.append(weight)
    return found


def test_adamw_is_the_usual_one():
    from nlc.spec import load_rule

    program = load_rule("adamw").levels[0]
    made = Rule(name="adamw", levels=(RuleLevel(period=1, state=tuple(program.state), do=tuple(program.do)),))
    grads = [draw(2, 3, seed=i) for i in range(5)]
    found = updates(made, grads, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    weight = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    usual = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for grad, expected in zip(grads, found, strict=True):
        weight.grad = grad
        usual.step()
        assert torch.allclose(weight, expected)


def test_a_slower_level_of_a_rule_sees_the_sum_of_its_period():
    """M3's shape: m at every update, o from the sum of three gradients at every third."""
    made = rule((1, ("m",), "m = 0.5 * m + grad\ndelta = -lr * (m + o)"), (3, ("o",), "o = grad / 3"))
    grads = [draw(2, 2, seed=i) for i in range(7)]
    weight = m = o = torch.zeros(2, 2, dtype=torch.float64)
    for i, (grad, found) in enumerate(zip(grads, updates(made, grads), strict=True)):
        m = 0.5 * m + grad
        weight = weight - 0.1 * (m + o)
        if (i + 1) % 3 == 0:
            o = sum(grads[i - 2 : i + 1]) / 3
        assert torch.allclose(found, weight)


def test_a_rule_may_set_the_weight_itself():
    made = rule((1, (), "weight = weight / 2 - lr * grad * count"))
    (first, second) = updates(made, [torch.ones(1, 1, dtype=torch.float64)] * 2)
    assert first.item() == pytest.approx(-0.1)
    assert second.item() == pytest.approx(-0.05 - 0.2)
