"""Shapes of memories, their parts and starts; what does not meet."""

from __future__ import annotations

import pytest

from nlc.diagnostics import SpecError
from nlc.graph.nodes import Init, Memory, Weight
from nlc.passes import build
from nlc.spec import load
from tests.unit.programs import cell, model, refusals, values

SHIPPED = ("hope", "hope_deep", "hope_attention", "titans_lmm", "linear_attention", "transformer")


def one(form: str, more: str = "") -> str:
    return f"- {{name: a, every: 1 token{more}, memories: {{m: {{form: '{form}', keys: k, values: v}}}}}}"


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("width", [32, 256])
def test_shipped_spec_has_every_shape(name: str, width: int) -> None:
    graph = build(load(name, {"sizes.width": width, "sizes.heads": 2}), check=True)
    assert graph[graph["out:x"].value].shape == (width,)
    assert all(w.shape is not None and w.scale is not None for w in graph.of(Weight))


FORMS = {
    "matrix": {"M": (2, 6, 8)},
    "mlp(hidden=2x)": {"W_in": (2, 16, 8), "W_out": (2, 6, 16)},
    "mlp(hidden=5, bias=true)": {"W_in": (2, 5, 8), "b_in": (2, 5), "W_out": (2, 6, 5), "b_out": (2, 6)},
    "mlp(hidden=5, depth=3)": {"W_in": (2, 5, 8), "W_2": (2, 5, 5), "W_out": (2, 6, 5)},
    "mlp(depth=1)": {"W_out": (2, 6, 8)},
    "swiglu(hidden=3)": {"W_gate": (2, 3, 8), "W_in": (2, 3, 8), "W_out": (2, 6, 3)},
}


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_a_form(form: str) -> None:
    graph = cell(one(form), "y = m(q)", inputs="{k: [heads, head], v: [heads, 6], q: [heads, head]}")
    memory = graph["a.m"]
    assert dict(memory.parts) == FORMS[form]
    assert (memory.heads, memory.inner, memory.outer) == ((2,), 8, 6)
    assert [graph[w].shape for w in memory.weights] == list(FORMS[form].values())
    assert graph["y"].shape == (2, 6)
    assert not memory.form.residual  # widths differ


def test_residual_where_widths_agree_starts_as_the_identity_map() -> None:
    graph = cell(one("mlp(hidden=2x)"), "y = m(q)")
    assert graph["a.m"].form.residual
    assert [(graph[w].init, graph[w].scale) for w in graph["a.m"].weights] == [
        (Init.NORMAL, 8**-0.5),
        (Init.CONSTANT, 0.0),
    ]
    plain = cell(one("mlp(hidden=2x, residual=false)"), "y = m(q)")
    assert [plain[w].scale for w in plain["a.m"].weights] == [8**-0.5, 16**-0.5]


@pytest.mark.parametrize(
    ("start", "init"), [("learned(zeros)", (Init.CONSTANT, 0.0)), ("learned(identity)", (Init.IDENTITY, 1.0))]
)
def test_starts(start: str, init: tuple[Init, float]) -> None:
    graph = cell(one("matrix", f", start: {start}"), "y = m(q)")
    (weight,) = graph["a.m"].weights
    assert (graph[weight].init, graph[weight].scale) == init


def test_a_start_of_zeros_has_no_weight() -> None:
    assert cell(one("matrix", ", start: zeros"), "y = m(q)")["a.m"].weights == ()


def test_a_memory_in_its_own_values_is_square() -> None:
    graph = cell("- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: m(v)}}}", "y = m(q)")
    assert graph["a.m"].parts == (("M", (2, 8, 8)),)


def test_out_gives_a_width_that_does_not_follow() -> None:
    graph = cell(
        "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: m(v), out: 3}}}", "y = m(q)"
    )
    assert graph["y"].shape == (2, 3)


def test_a_key_may_come_from_the_memory_it_is_written_to() -> None:
    level = "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: m(v)}}}"
    graph = cell(level, "k = l2norm(m(u))\ny = m(u)", inputs="{u: [heads, head], v: [heads, head]}")
    assert graph["k"].shape == (2, 8)


def test_a_memory_without_heads() -> None:
    graph = cell(one("matrix"), "y = m(q)", inputs="{k: [4], v: [6], q: [4]}")
    assert graph["a.m"].heads == ()
    assert graph["a.m"].parts == (("M", (6, 4)),)


def test_key_heads_may_divide_value_heads() -> None:
    graph = cell(one("matrix"), "y = m(q)", inputs="{k: [2, 4], v: [6, 5], q: [2, 4]}")
    assert graph["a.m"].heads == (6,)
    assert graph["y"].shape == (6, 5)
    attention = cell(
        "- {name: a, memories: {m: {form: attention, keys: k, values: v}}}",
        "y = m(q)",
        inputs="{k: [2, 4], v: [2, 5], q: [6, 4]}",
    )
    assert attention["y"].shape == (6, 5)
    assert "NLC0601" in refusals(cell, one("matrix"), "y = m(q)", inputs="{k: [4, 4], v: [6, 5], q: [6, 4]}")[0]


def test_attention_with_learned_pairs() -> None:
    graph = cell("- {name: a, memories: {m: {form: attention(persistent=3), keys: k, values: v}}}", "y = m(q)")
    assert [(graph[w].path, graph[w].shape) for w in graph["a.m"].weights] == [
        ("a.m.persistent.k", (3, 2, 8)), ("a.m.persistent.v", (3, 2, 8)),
    ]  # fmt: skip


@pytest.mark.parametrize("retain", ["[]", "[heads]", "[heads, head]"])
def test_retention_is_one_number_or_per_head_or_per_key_channel(retain: str) -> None:
    inputs = f"{{k: [heads, head], v: [heads, 6], q: [heads, head], r: {retain}}}"
    graph = cell(one("matrix", ", retain: r"), "y = m(q)", inputs=inputs)
    assert graph["a.m"].retain == "r"


def test_a_recursion_through_prev_finds_its_shape() -> None:
    graph = values("h = sigmoid(linear(x)) * prev(h) + linear(x)\ny = h")
    assert graph["h"].shape == (12,)


def test_the_frame_starts_small() -> None:
    wide = build(load("hope", {"sizes.width": 256}))
    assert (wide["frame:embedding"].shape, wide["frame:embedding"].scale) == ((256, 256), 0.02)
    assert wide["frame:rmsnorm"].scale == 0.5
    untied = build(load("transformer", {"tied": False, "sizes.width": 256}))
    assert (untied["frame:rmsnorm"].scale, untied["frame:linear"].shape) == (1.0, (256, 256))


REFUSED = {
    "shapes do not meet": ("y = m(q) + sum(sum(q))[0]", "", "NLC0601", "a slice acts on the last axis"),
    "rate per channel": (
        "y = m(q)",
        ", rate: k",
        "NLC0601",
        "'a.m': rate is [2, 8] (a number or [2] (one per head) expected",
    ),
    "retention of another shape": ("y = m(q)", ", retain: s", "NLC0601", "'a.m': retain is [3]"),
    "query of another width": ("y = m(q) + m(s)", "", "NLC0601", "'a.m' is read with [3], and its keys are 8 wide"),
    "objective per channel": (
        "y = m(q)",
        ", objective: (M - v) ** 2",
        "NLC0601",
        "the objective is [2, 8] (one number per head, [2]",
    ),
    "objective with another shape": ("y = m(q)", ", objective: sum(M - s)", "NLC0601", "'a.m': shapes do not meet"),
    "objective with weights": ("y = m(q)", ", objective: sum(linear(M))", "NLC0404", "'linear' in an objective"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    block, more, code, message = REFUSED[case]
    inputs = "{k: [heads, head], v: [heads, head], q: [heads, head], s: [3]}"
    found = refusals(cell, one("matrix", more), f"{block}\nz = s", inputs=inputs)
    assert any(f.startswith(code) and message in f for f in found), found


def test_objective_as_an_expression() -> None:
    graph = cell(
        one("matrix", ", objective: 'sum(abs(M - v) ** p) / 3 + norm(k, p=1)'"),
        "y = m(q)",
        sizes="{heads: 2, head: 8, p: 3}",
    )
    objective = graph["a.m"].objective
    assert objective.kind == "expression"
    assert [(p.name, p.number) for p in objective.params] == [("p", 3)]


def test_sizes_in_an_objective() -> None:
    inputs = "{k: [head], v: [head], q: [head]}"
    graph = cell(one("matrix", ", objective: sum(M * index(head) - v)"), "y = m(q)", inputs=inputs)
    assert [(p.name, p.number) for p in graph["a.m"].objective.params] == [("head", 8)]


def test_a_block_gives_back_what_it_takes() -> None:
    (found,) = refusals(model, "", "x = linear(x, out=3)", train=True)
    assert "x enters the block as [32] and leaves it as [3]" in found


def test_parts_and_weights_agree_on_every_shipped_memory() -> None:
    for name in SHIPPED:
        graph = build(load(name))
        for memory in graph.of(Memory):
            if memory.form.kind != "attention" and memory.weights:
                assert [graph[w].shape for w in memory.weights] == [shape for _, shape in memory.parts]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("w = v[0:9]\ny = m(q)", "9 lies outside a last axis of 8"),
        ("w = v + heads(v, 4)\ny = m(q) + m(k)", "shapes do not meet"),
        ("w = v[0:9]\ny = n(m(q))", "9 lies outside a last axis of 8"),
    ],
)
def test_what_depends_on_a_refused_value_is_silent(block: str, said: str) -> None:
    fields = "form: matrix, keys: k"
    memories = f"{{m: {{{fields}, values: w}}" + (f", n: {{{fields}, values: m(k)}}}}" if "n(" in block else "}")
    found = refusals(cell, f"- {{name: a, every: 1 token, memories: {memories}}}", block)
    assert len(found) == 1 and said in found[0]


def test_a_width_of_1_is_named_as_what_leaves_no_axis() -> None:
    with pytest.raises(SpecError) as caught:
        build(load("transformer", set={"sizes.width": 1, "sizes.heads": 1}))
    first = caught.value.diagnostics[0]
    assert (first.code, first.hint) == ("NLC0601", "linear to a width of 1 gives a number")
