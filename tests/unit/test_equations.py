"""The block language: trees, their text, and located errors, several at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlc.diagnostics import SpecError
from nlc.equations import (
    Assign,
    Binary,
    Boolean,
    Call,
    Compare,
    Expr,
    ListOf,
    Multiple,
    Name,
    Number,
    Slice,
    Text,
    Unary,
    names,
    parse_block,
    parse_call,
    parse_expression,
    to_text,
)
from nlc.source import Position

AT = Position("t.yaml", 10, 3)


def faults(text: str) -> list[tuple[str, int, int]]:
    with pytest.raises(SpecError) as error:
        parse_block(text, AT)
    return [(d.code, d.at.line, d.at.column) for d in error.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", Binary("+", Name("a", AT), Binary("*", Name("b", AT), Name("c", AT), AT), AT)),
        ("a - b - c", Binary("-", Binary("-", Name("a", AT), Name("b", AT), AT), Name("c", AT), AT)),
        ("-a ** 2", Unary("-", Binary("**", Name("a", AT), Number(2, AT), AT), AT)),
        ("a ** -b", Binary("**", Name("a", AT), Unary("-", Name("b", AT), AT), AT)),
        ("2 ** 3 ** 4", Binary("**", Number(2, AT), Binary("**", Number(3, AT), Number(4, AT), AT), AT)),
        ("W @ x < .5", Compare("<", Binary("@", Name("W", AT), Name("x", AT), AT), Number(0.5, AT), AT)),
        ("v[1:3]", Slice(Name("v", AT), Number(1, AT), Number(3, AT), AT)),
        ("v[:n]", Slice(Name("v", AT), None, Name("n", AT), AT)),
        ("v[-1]", Slice(Name("v", AT), Unary("-", Number(1, AT), AT), None, AT, single=True)),
        ("[a, 1]", ListOf((Name("a", AT), Number(1, AT)), AT)),
        (
            "f(a, out=1, bias=true)",
            Call("f", (Name("a", AT),), (("out", Number(1, AT)), ("bias", Boolean(True, AT))), AT),
        ),
        ("f(a, name='shared')", Call("f", (Name("a", AT),), (("name", Text("shared", AT)),), AT)),
    ],
)
def test_trees(text: str, tree: Expr) -> None:
    assert parse_expression(text, AT) == tree


def test_block_has_places() -> None:
    first, second = parse_block("h = conv(x, 4)   # comment\n\na, b = split(\n  h, 2)\n", AT)
    assert (first.at.line, first.at.column) == (10, 3)
    assert isinstance(first.value, Call) and first.value.args[0].at == Position("t.yaml", 10, 12, 1)
    assert second == Assign(("a", "b"), Call("split", (Name("h", AT), Number(2, AT)), (), AT), AT)
    assert [p.column for p in second.places] == [3, 6]
    assert isinstance(second.value, Call) and (second.value.args[0].at.line, second.value.args[0].at.column) == (13, 5)


def test_names_are_read_in_order() -> None:
    assert names(parse_expression("f(b, a) + b[n] * c", AT)) == ("b", "a", "n", "c")


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("matrix", Call("matrix", (), (), AT)),
        ("mlp(hidden=4x)", Call("mlp", (), (("hidden", Multiple(4, AT)),), AT)),
        (
            "adamw(betas=(0.9, 0.95))",
            Call("adamw", (), (("betas", ListOf((Number(0.9, AT), Number(0.95, AT)), AT)),), AT),
        ),
        ("momentum(beta=sigmoid(s))", Call("momentum", (), (("beta", Call("sigmoid", (Name("s", AT),), (), AT)),), AT)),
        ("from(checkpoint:a/b.safetensors)", Call("from", (Text("checkpoint:a/b.safetensors", AT),), (), AT)),
    ],
)
def test_calls(text: str, call: Call) -> None:
    assert parse_call(text, AT) == call
    assert parse_call(to_text(call), AT) == call


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("x = x.T", [("NLC0303", 10, 8)], id="attribute"),
        pytest.param("x = x.__class__.__mro__", [("NLC0303", 10, 8), ("NLC0303", 10, 18)], id="attributes"),
        pytest.param("x = [f(v) for v in x]", [("NLC0304", 10, 13)], id="comprehension"),
        pytest.param("x = lambda y: y", [("NLC0304", 10, 7)], id="lambda"),
        pytest.param("import os", [("NLC0304", 10, 3)], id="import"),
        pytest.param("x = (y := 1)", [("NLC0304", 10, 10)], id="walrus"),
        pytest.param("x = 'os.system'", [("NLC0304", 10, 7)], id="text"),
        pytest.param("x = f(1)(2)", [("NLC0304", 10, 11)], id="call_of_a_call"),
        pytest.param("x = a < b < c", [("NLC0304", 10, 13)], id="chain"),
        pytest.param("x = v[1:2:3]", [("NLC0304", 10, 12)], id="step"),
        pytest.param("x = v[1, 2]", [("NLC0304", 10, 10)], id="two_axes"),
        pytest.param("x = 4x", [("NLC0304", 10, 7)], id="multiple"),
        pytest.param("x = 2y", [("NLC0304", 10, 7)], id="number_runs_into_a_name"),
        pytest.param("x = 1e999", [("NLC0304", 10, 7)], id="too_large"),
        pytest.param("x = f(a=1, b)", [("NLC0304", 10, 14)], id="positional_after_named"),
        pytest.param("x = f(a=1, a=2)", [("NLC0304", 10, 14)], id="named_twice"),
        pytest.param("x = ", [("NLC0304", 10, 5)], id="nothing"),
        pytest.param("x = +y", [("NLC0304", 10, 7)], id="plus"),
        pytest.param("x = f(y))", [("NLC0302", 10, 11)], id="closes_nothing"),
        pytest.param("f(x)", [("NLC0305", 10, 4)], id="no_assignment"),
        pytest.param("x = y = z", [("NLC0305", 10, 9)], id="two_equals"),
        pytest.param("1 = x", [("NLC0305", 10, 3)], id="number_assigned"),
        pytest.param("x = a ? b", [("NLC0301", 10, 9)], id="character"),
        pytest.param("x = " + "(" * 100 + "y" + ")" * 100, [("NLC0307", 10, 46)], id="deep"),
        pytest.param("x = " + "-" * 300 + "y", [("NLC0307", 10, 85)], id="deep_minus"),
        pytest.param("x = " + "y + " * 400 + "y", [("NLC0307", 10, 1203)], id="long"),
        pytest.param("# nothing\n", [("NLC0305", 10, 3)], id="empty"),
    ],
)
def test_faults(text: str, found: list[tuple[str, int, int]]) -> None:
    assert faults(text) == found


def test_all_lines_are_reported() -> None:
    text = "a = f(x, 4\nb = x.T\nc = ok(x)\nd = 3y\ne = g(x, bias=true"
    assert faults(text) == [("NLC0302", 10, 8), ("NLC0303", 11, 8), ("NLC0304", 13, 7), ("NLC0302", 14, 8)]


identifiers = st.sampled_from(["a", "b", "x", "heads", "trueish"])
numbers = st.one_of(st.integers(0, 10**12), st.floats(0, 1e6, allow_nan=False))
leaves = st.one_of(
    identifiers.map(lambda n: Name(n, AT)),
    numbers.map(lambda n: Number(n, AT)),
    st.booleans().map(lambda b: Boolean(b, AT)),
)


def grown(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    pairs = st.lists(st.tuples(identifiers, inner), max_size=2, unique_by=lambda pair: pair[0])
    return st.one_of(
        st.builds(lambda v: Unary("-", v, AT), inner),
        st.builds(lambda o, a, b: Binary(o, a, b, AT), st.sampled_from(["+", "-", "*", "/", "@", "**"]), inner, inner),
        st.builds(
            lambda o, a, b: Compare(o, a, b, AT), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), inner, inner
        ),
        st.builds(lambda f, a, k: Call(f, tuple(a), tuple(k), AT), identifiers, st.lists(inner, max_size=3), pairs),
        st.builds(lambda i: ListOf(tuple(i), AT), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda v, a, b: Slice(v, a, b, AT), inner, st.none() | inner, st.none() | inner),
        st.builds(lambda v, a: Slice(v, a, None, AT, single=True), inner, inner),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves, grown, max_leaves=10))
def test_text_reads_back_equal(tree: Expr) -> None:
    assert parse_expression(to_text(tree), AT) == tree


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab1x.()[]=,+-*/@<:'\"# \n\t$é", max_size=40))
def test_any_text_is_read_or_refused_at_a_place(text: str) -> None:
    try:
        parse_block(text, AT)
    except SpecError as error:
        assert all(d.at.line >= 10 and d.at.column >= 3 for d in error.diagnostics)
