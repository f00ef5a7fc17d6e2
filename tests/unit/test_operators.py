"""Operators: shapes, weights, and the errors of calls."""

from __future__ import annotations

import pytest

from nlc.operators import CALLABLE, OPERATORS, ShapeError, meet
from tests.unit.programs import refusals, values

NAMED = """linear conv prev rmsnorm layernorm l2norm softmax silu gelu relu sigmoid tanh softplus exp log sqrt
abs sign min max where norm rope poly index outer transpose eye trace concat split heads merge dropout mean sum stop
newton_schulz param""".split()


def test_every_operator_of_the_language_is_there() -> None:
    assert sorted(NAMED) == sorted(CALLABLE)


@pytest.mark.parametrize(
    ("shapes", "common"),
    [
        ([(4,), (4, 8)], (4, 8)),
        ([(4, 8), (4,)], (4, 8)),
        ([(), (3, 2)], (3, 2)),
        ([(5,), (5,)], (5,)),
        ([(4,), (4, 8), ()], (4, 8)),
    ],
)
def test_shapes_align_from_the_left(shapes: list[tuple[int, ...]], common: tuple[int, ...]) -> None:
    assert meet(*shapes) == common


@pytest.mark.parametrize("shapes", [[(8,), (4, 8)], [(1,), (4,)], [(4, 8), (4, 1)], [(2, 3), (2, 4)]])
def test_other_shapes_do_not_meet(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="do not meet"):
        meet(*shapes)


SHAPES = [
    ("linear(x)", (12,)),
    ("linear(x, out=5)", (5,)),
    ("linear(x, out=1)", ()),
    ("linear(heads(x), out=2*width)", (3, 24)),
    ("linear(heads(x), out=1)", (3,)),
    ("conv(x, 4)", (12,)),
    ("heads(x)", (3, 4)),
    ("heads(x, 6)", (6, 2)),
    ("merge(heads(x))", (12,)),
    ("rope(heads(x))", (3, 4)),
    ("poly(x, 3)", (36,)),
    ("concat(x, x[0:4], x[-2:])", (18,)),
    ("x[3]", ()),
    ("heads(x)[1:]", (3, 3)),
    ("outer(heads(x), heads(x))", (3, 4, 4)),
    ("transpose(outer(x, x[0:5]))", (5, 12)),
    ("trace(outer(heads(x), heads(x)))", (3,)),
    ("eye(4) @ x[0:4]", (4,)),
    ("outer(heads(x), heads(x)) @ heads(x)", (3, 4)),
    ("eye(4) @ eye(4) * mean(x)", (4, 4)),
    ("sum(heads(x))", (3,)),
    ("mean(x)", ()),
    ("norm(heads(x), 1)", (3,)),
    ("max(x)", ()),
    ("max(x, 0)", (12,)),
    ("min(heads(x), norm(heads(x)))", (3, 4)),
    ("where(x > 0, x, 0.5 * x)", (12,)),
    ("norm(heads(x)) * heads(x)", (3, 4)),
    ("index(width) + x", (12,)),
    ("param([heads, 2]) * mean(x)", (3, 2)),
    ("param(heads) * norm(heads(x))", (3,)),
    ("newton_schulz(outer(x, x))", (12, 12)),
    ("-x ** 2 / (1 + x @ x)", None),
    ("width * x", (12,)),
]


@pytest.mark.parametrize(("expression", "shape"), SHAPES, ids=[s for s, _ in SHAPES])
def test_shape(expression: str, shape: tuple[int, ...] | None) -> None:
    if shape is None:
        assert "NLC0601" in refusals(values, f"y = {expression}")[0]
    else:
        graph = values(f"y = {expression}")
        assert graph[graph["out:y"].value].shape == shape


def test_split_gives_items() -> None:
    graph = values("a, b, c = split(x, [2, 4, 6])\ny = concat(c, a, b)")
    assert [graph[n].shape for n in "abc"] == [(2,), (4,), (6,)]
    assert [dict(graph[n].options)["index"] for n in "abc"] == [0, 1, 2]
    assert dict(graph[graph["a"].inputs[0]].options)["n"] == (2, 4, 6)


def test_weights_and_their_first_values() -> None:
    graph = values("y = layernorm(conv(rmsnorm(linear(x, out=6, bias=true)), 3)) + param(6, start=0.5)")
    weights = {w.path: (w.shape, w.init.value, w.scale, w.decay) for w in graph.of(type(graph["blocks.*.y.linear"]))}
    assert weights == {
        "y.linear": ((6, 12), "normal", 12**-0.5, True),
        "y.linear_bias": ((6,), "constant", 0.0, False),
        "y.rmsnorm": ((6,), "constant", 1.0, False),
        "y.conv": ((3, 6), "normal", 0.5, False),
        "y.layernorm": ((6,), "constant", 1.0, False),
        "y.layernorm_bias": ((6,), "constant", 0.0, False),
        "y.param": ((6,), "constant", 0.5, False),
    }


def test_one_matrix_per_head() -> None:
    graph = values("y = linear(heads(x), out=1) + sum(linear(heads(x)))")
    assert graph["blocks.*.y.linear"].shape == (3, 1, 4)
    assert graph["blocks.*.y.linear_2"].shape == (3, 4, 4)


CALLS = {
    "y = lineer(x)": "NLC0502 7: unknown operator or memory 'lineer' (did you mean 'linear'?",
    "y = x + parm([12])": "NLC0502 7: unknown operator or memory 'parm' (did you mean 'param'?",
    "y = conv(x)": "NLC0505 7: 'conv' needs 'window' (conv(v, window)",
    "y = linear(x, x)": "NLC0503 7: unknown size 'x'",
    "y = linear(x, 1.5)": "NLC0505 7: '1.5' is 1.5, not a whole number",
    "y = linear(x, out=x + x)": "NLC0503 7: unknown size 'x'",
    "y = linear(x, bias=3)": "NLC0505 7: 'bias' of 'linear' is '3' (true or false expected",
    "y = linear(x, otu=3)": "NLC0505 7: 'linear' has no argument 'otu' (did you mean 'out'?",
    "y = x + linear()": "NLC0505 7: 'linear' takes 1 value, and 0 are given",
    "y = silu(x, 3)": "NLC0505 7: 'silu' takes no further argument '3'",
    "y = split(x, 2)": "NLC0505 7: split gives several values (take them apart: a, b = split(v, 2)",
    "a, y = x": "NLC0505 7: 2 names, and one value (several values come from split(v, n)",
    "a, y = split(x, 3)": "NLC0505 7: split gives 3 values, and 2 names take them",
    "y = [x, x]": "NLC0505 7: '[x, x]' is not a value (concat(a, b) joins values",
    "y = silu(x, name=a)": "NLC0505 7: 'silu' has no weight to name",
    "y = heads(x, 5)": "NLC0602 7: 12 does not divide into 5 heads",
    "y = x[:4] + param(4, start=one)": "NLC0505 7: 'start' of 'param' is 'one' (a number, normal, zeros or",
    "y = x * learned(-1)": "NLC0505 7: learned takes one number above 0",
    "y = conv(heads(x), 4)": "NLC0601 7: conv takes a vector, not [3, 4] (convolve before heads()",
    "y = x[3:3]": "NLC0601 7: the slice of a last axis of 12 is empty",
    "y = x[12:14]": "NLC0601 7: 14 lies outside a last axis of 12",
}


@pytest.mark.parametrize(("block", "expected"), CALLS.items(), ids=list(CALLS))
def test_refused_call(block: str, expected: str) -> None:
    found = refusals(values, block)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_one_cause_gives_one_error() -> None:
    assert len(refusals(values, "a = nothing(x)\nb = silu(a)\ny = b + a")) == 1


def test_symbols_have_no_name_to_call() -> None:
    assert all(op.symbol for name, op in OPERATORS.items() if name not in CALLABLE)
    assert "NLC0502" in refusals(values, "y = add(x, x)")[0]
