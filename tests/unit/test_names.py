"""Names: single assignment, inheritance, the split of levels, names of weights."""

from __future__ import annotations

import pytest

from nlc.diagnostics import SpecError
from nlc.graph.nodes import Carry, Memory, Op, Period, Read, Unit, Weight, When
from nlc.passes import build
from nlc.passes.owners import weight_names
from nlc.spec import load
from tests.unit.programs import cell, model, refusals, values

DELTA = "- {name: a, every: 1 token, rule: gd, memories: {m: {form: matrix, keys: k, values: v}}}"
BLOCK = """
u = heads(rmsnorm(x))
k = l2norm(linear(u))
v = linear(u)
x = x + linear(merge(m(k)))
"""


def paths(graph: object) -> list[str]:
    return [w.path for w in graph.of(Weight)]  # type: ignore[attr-defined]


def test_each_assignment_is_a_version() -> None:
    graph = values("h = silu(x)\nh = h + x\nh = h * h\ny = h")
    assert graph["h:1"].inputs == ("h", "x")
    assert graph["h:2"].inputs == ("h:1", "h:1")
    assert graph["out:y"].value == "h:2"


def test_another_name_for_a_value_is_the_same_value() -> None:
    graph = values("a = b\nb = silu(x)\nc = a\ny = c + c")
    assert graph["y"].inputs == ("b", "b")


def test_equations_of_single_names_may_stand_in_any_order() -> None:
    graph = values("y = silu(b)\nb = x * x")
    assert [id for id in graph.nodes if id in ("y", "b")] == ["b", "y"]


def test_weights_are_counted_outermost_first_over_all_assignments_of_a_name() -> None:
    graph = values("y = linear(rmsnorm(x) * silu(linear(x)))\ny = linear(y)")
    assert graph["y"].weights == ("blocks.*.y.linear",)
    assert graph["y:1"].weights == ("blocks.*.y.linear_3",)
    assert sorted(paths(graph)) == ["y.linear", "y.linear_2", "y.linear_3", "y.rmsnorm"]


def test_name_shares_a_weight() -> None:
    graph = values("a = linear(x, name=shared)\ny = a + linear(x * x, name=shared)")
    assert paths(graph) == ["shared"]
    assert "NLC0601" in refusals(values, "a = linear(x, name=w)\ny = sum(a) + sum(linear(x, out=3, name=w))")[0]
    assert "rmsnorm and" in refusals(values, "a = rmsnorm(x, name=w)\ny = a + linear(x, name=w)")[0].replace(
        "linear and ", "rmsnorm and "
    )


def test_a_name_that_is_a_level_is_refused_where_it_is_given() -> None:
    two = DELTA.replace("}}}", "}, n: {form: matrix, keys: k, values: v}}}")
    block = BLOCK.replace("v = linear(u)", "v = linear(u, name=a)").replace("m(k)", "m(k) + n(k)")
    (found,) = refusals(model, two, block)
    assert found.startswith("NLC0504 11: 'a' is a weight and a level, and 'a.m.start' would be inside both")
    (found,) = refusals(values, "y = linear(x) + linear(x, name=y)")
    assert "'y' is a weight, and so is 'y.linear' inside it" in found


def test_a_linear_added_to_an_earlier_x_starts_at_zero() -> None:
    graph = model(DELTA, BLOCK + "x = x + linear(x) + linear(silu(x)) * x\nx = x + dropout(linear(x), 0.1)")
    zero = {w.path: w.scale == 0.0 for w in graph.of(Weight, "block") if w.path.startswith("x.linear")}
    assert zero == {"x.linear": True, "x.linear_2": True, "x.linear_3": False, "x.linear_4": True}


def test_hope_has_the_names_that_checkpoints_depend_on() -> None:
    graph = build(load("hope"))
    names = {name for w in graph.of(Weight) for name in weight_names(graph, w)}
    assert {
        "embedding", "rmsnorm", "blocks.0.h.rmsnorm", "blocks.3.h.conv", "blocks.0.q.linear", "blocks.0.x.linear_2",
        "blocks.0.titans.key.start", "blocks.0.titans.rate.linear", "blocks.0.cms.fast.start.W_in",
        "blocks.0.cms.fast.rate", "blocks.0.cms.slow.W_out", "blocks.0.cms.slow.b_in",
    } <= names  # fmt: skip
    assert len(names) == 4 * 27 + 2


def test_a_field_of_a_level_is_one_value_for_all_its_memories() -> None:
    graph = build(load("hope"))
    titans = [m for m in graph.of(Memory) if m.level == "level:titans"]
    assert {(m.rate, m.retain) for m in titans} == {("titans.rate", "titans.retain")}
    assert len({m.pairs[0][1] for m in titans}) == 5  # values are each memory's own


def test_a_level_of_several_frequencies_is_split_and_evaluates_its_fields_for_each() -> None:
    graph = model(
        """
        - name: c
          objective: loss
          rule: gd
          rate: learned(0.1)
          memories:
            a: {form: matrix, every: 2 tokens}
            b: {form: matrix, every: 2 tokens}
            d: {form: matrix, every: 4 tokens}
        """,
        "x = x + d(b(a(x)))",
    )
    assert [level.name for level in graph.levels] == ["c.a_b", "c.d", "train"]
    assert graph["c.a"].rate == graph["c.b"].rate == "c.a_b.rate"
    assert graph["c.d"].rate == "c.d.rate"
    assert graph["c.d"].level == "level:c.d"


def test_a_memory_that_names_its_rule_inherits_no_rate() -> None:
    graph = cell(
        """
        - name: a
          every: 1 token
          rule: gd
          rate: 0.25
          memories:
            m: {form: matrix, keys: k, values: v}
            n: {form: matrix, keys: k, values: v, rule: dgd}
        """,
        "y = m(q) + n(q)",
    )
    assert graph[graph["a.m"].rate].value == 0.25
    assert graph[graph["a.n"].rate].value == 1.0
    assert not graph["a.m"].rate_varies


def test_lr_of_the_rule_is_the_rate() -> None:
    graph = cell(
        "- {name: a, every: 1 token, rule: gd(lr=0.5), memories: {m: {form: matrix, keys: k, values: v}}}", "y = m(q)"
    )
    assert graph[graph["a.m"].rate].value == 0.5


def test_a_parameter_of_a_rule_may_be_a_value() -> None:
    graph = cell(
        "- {name: a, every: 1 token, rule: momentum(beta=sigmoid(s)), "
        "memories: {m: {form: matrix, keys: k, values: v}}}",
        "y = m(q)",
        inputs="{k: [heads, head], v: [heads, head], q: [heads, head], s: [heads]}",
    )
    param = next(p for p in graph["a.m"].rule.params if p.name == "beta")
    assert param.name == "beta"
    assert graph[param.value].op == "sigmoid"


@pytest.mark.parametrize("rule", ["lq(q=2 + r)", "muon(ns_steps=r)", "adamw(betas=r)", "m3(period=r)"])
def test_a_parameter_that_shapes_the_program_of_a_rule_is_no_value(rule: str) -> None:
    with pytest.raises(SpecError) as error:
        cell(
            f"- {{name: a, every: 1 token, rule: '{rule}', memories: {{m: {{form: matrix, keys: k, values: v}}}}}}",
            "r = sigmoid(s)\ny = m(q)",
            inputs="{k: [heads, head], v: [heads, head], q: [heads, head], s: [heads]}",
        )
    (found,) = error.value.diagnostics
    assert found.code == "NLC0405"
    assert found.hint.startswith("no value of the block")


def test_a_rate_that_is_learned_is_the_exponential_of_a_weight() -> None:
    graph = cell(
        "- {name: a, every: 1 token, rate: learned(0.05), memories: {m: {form: matrix, keys: k, values: v}}}",
        "y = m(q)",
    )
    rate = graph[graph["a.m"].rate]
    assert isinstance(rate, Op) and rate.op == "exp"
    (weight,) = graph[rate.inputs[0]].weights
    assert graph[weight].path == "a.rate"
    assert graph[weight].scale == pytest.approx(-2.995732)


def test_reads_in_fields_see_the_chunk_start() -> None:
    graph = cell(
        "- {name: a, every: 1 token, read: after, memories: {m: {form: matrix, keys: k, values: m(v)}}}", "y = m(q)"
    )
    whens = {r.field: r.when for r in graph.of(Read)}
    assert whens == {"": When.AFTER, "a.m.values": When.CHUNK}


def test_a_call_may_say_its_own_read() -> None:
    graph = cell(DELTA, "y = m(q, read=before) + m(q)")
    assert [r.when for r in graph.of(Read)] == [When.BEFORE, When.CHUNK]


def test_several_pairs_stay_in_order() -> None:
    graph = cell(
        "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: [k, q], values: [v, silu(v)]}}}", "y = m(q)"
    )
    assert graph["a.m"].pairs == (("k", "v"), ("q", "a.m.values_2"))


def test_never_needs_nothing_else() -> None:
    graph = cell("- {name: a, every: never, memories: {m: {form: matrix, keys: k, values: v, rate: 0.1}}}", "y = m(q)")
    memory = graph["a.m"]
    assert (memory.period, memory.pairs, memory.rate) == (Period(0, Unit.NEVER), (), "")
    assert graph[memory.weights[0]].path == "a.m.start"


def test_a_memory_of_the_model_is_its_weights() -> None:
    graph = model(
        "- {name: s, every: 2 steps, carry: model, objective: loss, rule: adamw(lr=1e-2), "
        "memories: {w: {form: 'mlp(hidden=2x)'}}}",
        "x = w(x)",
    )
    memory = graph["s.w"]
    assert memory.carry is Carry.MODEL and memory.rate == "" and memory.start == "random"
    assert [graph[w].path for w in memory.weights] == ["s.w.W_in", "s.w.W_out"]
    assert [graph[w].scale for w in memory.weights] == [32**-0.5, 0.0]
    assert graph["level:s"].rate == 0.01
    assert all(graph[w].owner == "level:s" for w in memory.weights)


def test_several_kinds_of_block() -> None:
    graph = model(
        DELTA,
        "",
        more="""
        blocks:
          one: |
            k = l2norm(heads(linear(x)))
            v = k
            x = x + linear(merge(m(k)))
          two: |
            x = x + linear(silu(linear(x)))
        stack: [one, two, one]
        """,
    )
    assert graph.stack == ("one", "two", "one")
    assert [o.id for o in graph.of(type(graph["one/out:x"]))] == ["one/out:x", "two/out:x"]
    assert weight_names(graph, graph["blocks.one.*.k.linear"]) == ["blocks.0.k.linear", "blocks.2.k.linear"]
    assert weight_names(graph, graph["blocks.two.*.x.linear_2"]) == ["blocks.1.x.linear_2"]
    assert graph["a.m"].block == "one"


def test_a_memory_read_in_two_kinds_of_block_exists_in_each() -> None:
    block = "k = l2norm(heads(linear(x)))\n    v = k\n    x = x + linear(merge(m(k)))\n"
    graph = model(
        DELTA,
        "",
        more=f"blocks:\n  one: |\n    {block}  two: |\n    {block}stack: [one, two]\n",
        sizes="{width: 32, heads: 2, layers: 2, vocab: 50, context: 16}",
    )
    assert [m.id for m in graph.of(Memory)] == ["one/a.m", "two/a.m"]
    assert graph["level:a"].memories == ("one/a.m", "two/a.m")


REFUSED = {
    "undefined": (DELTA, BLOCK + "x = x + hh", "NLC0501", "undefined value 'hh'"),
    "memory as a value": (DELTA, BLOCK + "x = x + m", "NLC0501", "'m' is a memory (read it by a call: m(...)"),
    "read of nothing": (DELTA, BLOCK + "x = x + merge(m())", "NLC0505", "the memory 'm' is read with 0 values"),
    "unknown read": (DELTA, BLOCK + "x = x + merge(m(k, read=soon))", "NLC0204", "read is 'soon'"),
    "unknown argument": (
        DELTA,
        BLOCK + "x = x + merge(m(k, when=after))",
        "NLC0505",
        "'when' says nothing about a read",
    ),
    "read in a field": (
        DELTA.replace("values: v", "values: 'm(v, read=after)'"),
        BLOCK,
        "NLC0411",
        "'a.m.values' always reads the chunk's first state",
    ),
    "field of a name assigned twice": (
        DELTA,
        BLOCK.replace("x = x", "k = k + v\nx = x"),
        "NLC0504",
        "which the block assigns 2 times",
    ),
    "field of x": (
        DELTA.replace("rule: gd", "rule: gd, rate: sum(x)"),
        BLOCK,
        "NLC0504",
        "which enters the block and is assigned again",
    ),
    "memory named as an operator": (
        DELTA.replace("{m:", "{norm:"),
        BLOCK.replace("m(k)", "norm(k)"),
        "NLC0504",
        "which is an operator",
    ),
    "memory named as a field": (
        DELTA.replace("{m:", "{rate:"),
        BLOCK.replace("m(k)", "rate(k)"),
        "NLC0504",
        "which is a field",
    ),
    "memory named as a value": (
        DELTA,
        BLOCK.replace("v = linear(u)", "v, m = split(linear(u), 2)"),
        "NLC0504",
        "'m' is a memory and a value",
    ),
    "memory named as what enters": (
        DELTA.replace("{m:", "{x:"),
        BLOCK.replace("m(k)", "x(k)"),
        "NLC0504",
        "'x' is a memory and a value",
    ),
    "no period": (DELTA.replace("every: 1 token, ", ""), BLOCK, "NLC0203", "does not say how often it is written"),
    "no form": (DELTA.replace("form: matrix, ", ""), BLOCK, "NLC0203", "has no form"),
    "keys without values": (DELTA.replace(", values: v", ""), BLOCK, "NLC0411", "has 1 key and no values"),
    "random start in a sequence": (
        DELTA.replace("values: v", "values: v, start: random"),
        BLOCK,
        "NLC0406",
        "random start is for carry: model",
    ),
    "attention of every pair of a lane": (
        "- {name: a, carry: stream, memories: {m: {form: attention, keys: k, values: v}}}",
        BLOCK,
        "NLC0411",
        "would keep every pair of a lane that never ends",
    ),
    "attention of the model": (
        "- {name: a, carry: model, memories: {m: {form: attention(window=3), keys: k, values: v}}}",
        BLOCK,
        "NLC0411",
        "keeps the pairs of a lane, not of the model",
    ),
    "window of a period": (
        DELTA.replace("1 token", "4 tokens").replace("values: v", "values: v, window: 4"),
        BLOCK,
        "NLC1001",
        "a window of pairs at every 4 tokens",
    ),
    "window of several": (
        DELTA.replace("keys: k, values: v", "keys: [k, k], values: [v, v], window: 4"),
        BLOCK,
        "NLC1001",
        "2 pairs a token",
    ),
    "weigh alone": (
        DELTA.replace("values: v", "values: v, weigh: 0.5"),
        BLOCK,
        "NLC0411",
        "over one pair, so 'weigh' says nothing",
    ),
    "window of 0": (DELTA.replace("values: v", "values: v, window: 0"), BLOCK, "NLC0505", "'window' of 'a.m' is 0"),
    "nested in itself": (DELTA.replace("values: v", "values: v, carry: m"), BLOCK, "NLC0411", "at its own updates"),
    "nested, of pairs": (
        DELTA.replace("values: v", "values: v, carry: b")
        + "\n- {name: o, every: 4 tokens, objective: loss, memories: {b: {form: mlp}}}",
        BLOCK + "\nx = b(x)",
        "NLC1001",
        "nested memories with objective l2 ('a.m') are not supported yet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    levels, block, code, message = REFUSED[case]
    found = refusals(model, levels, block)
    assert len(found) == 1, found
    assert found[0].startswith(code) and message in found[0]


def test_a_level_that_counts_steps_has_a_numeric_rate() -> None:
    level = (
        "- {name: s, every: 1 step, carry: model, objective: loss, rule: gd, rate: learned(0.1), "
        "memories: {w: {form: matrix}}}"
    )
    (found,) = refusals(model, level, "x = x + w(x)")
    assert "cannot be learned (no slower level gets a gradient to it" in found


def test_both_names_of_a_rate_are_refused() -> None:
    assert "NLC0408" in refusals(model, DELTA.replace("rule: gd", "rule: gd(lr=1), rate: 0.5"), BLOCK)[0]
