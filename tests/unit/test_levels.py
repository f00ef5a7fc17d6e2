"""The order of levels (Definition 2), and which level owns which weight."""

from __future__ import annotations

import pytest

from codegen.train import train
from nlc.cli.specs import sentence, summary
from nlc.explain import explain
from nlc.graph.nodes import Weight
from nlc.passes import build
from nlc.spec import load
from tests.unit.programs import cell, model, refusals

CHAIN = """
- name: c
  objective: loss
  rule: gd
  memories:
    slow: {form: matrix, every: 3 steps, carry: model}
    b: {form: matrix, every: 8 tokens}
    a: {form: matrix, every: 2 tokens}
"""


def order(graph: object) -> list[tuple[int, str]]:
    return [(level.index, level.name) for level in graph.levels]  # type: ignore[attr-defined]


def test_the_more_often_written_comes_first() -> None:
    graph = model(CHAIN, "x = slow(b(a(x)))")
    assert order(graph) == [(1, "c.a"), (2, "c.b"), (3, "train"), (4, "c.slow")]


def test_hope() -> None:
    assert order(build(load("hope"))) == [(1, "titans"), (2, "cms.fast"), (3, "cms.mid"), (4, "train"), (5, "cms.slow")]


def test_attention_comes_first_and_frozen_weights_last() -> None:
    levels = """
    - {name: train, every: 1 step, objective: loss, rule: adamw, memories: 'select(*, except=*.still_v)'}
    - {name: still, every: never, memories: rest}
    - {name: d, every: 1 token, memories: {m: {form: matrix, keys: k, values: v}}}
    - {name: a, memories: {n: {form: attention, keys: k, values: v}}}
    """
    block = "k = heads(linear(x))\nv = heads(linear(x, name='still_v'))\nx = x + linear(merge(m(k) + n(k)))"
    graph = model(levels, block, train=False)
    assert order(graph) == [(1, "a"), (2, "d"), (3, "train"), (4, "still")]
    assert graph["blocks.*.still_v"].owner == "level:still"


def test_independent_levels_of_equal_frequency_share_a_place() -> None:
    levels = """
    - {name: a, every: 2 tokens, rule: gd, memories: {m: {form: matrix, keys: k, values: v}}}
    - {name: b, every: 2 tokens, rule: gd, memories: {n: {form: matrix, keys: k, values: v}}}
    """
    assert order(cell(levels, "y = m(q) + n(q)")) == [(1, "a"), (1, "b")]


def test_at_equal_frequency_what_is_needed_in_the_same_tick_comes_first() -> None:
    levels = """
    - {name: b, every: 1 token, memories: {n: {form: matrix, keys: j, values: v}}}
    - {name: a, every: 1 token, read: after, memories: {m: {form: matrix, keys: k, values: v}}}
    """
    assert order(cell(levels, "j = m(k)\ny = m(q) + n(q)")) == [(1, "a"), (2, "b")]
    assert order(cell(levels.replace("read: after", "read: before"), "j = m(k)\ny = m(q) + n(q)")) == [
        (1, "b"),
        (1, "a"),
    ]


def test_a_level_whose_memories_need_each_other_becomes_several() -> None:
    levels = (
        "- {name: a, every: 1 token, read: after, memories: {n: {form: matrix, keys: j, values: v}, "
        "m: {form: matrix, keys: k, values: v}}}"
    )
    graph = cell(levels, "j = m(k)\ny = m(q) + n(q)")
    assert order(graph) == [(1, "a.m"), (2, "a.n")]
    assert (graph["a.m"].level, graph["a.n"].level) == ("level:a.m", "level:a.n")


def test_the_first_level_that_selects_a_weight_owns_it() -> None:
    levels = """
    - {name: first, every: 1 step, objective: loss, rule: adamw,
       memories: 'select(blocks.*, rank=2, except=*.linear_2)'}
    - {name: second, every: 2 steps, objective: loss, rule: gd(lr=0.1),
       memories: ['select(*.linear_2)', 'select(embedding)']}
    - {name: third, every: 4 steps, objective: loss, rule: gd(lr=0.1), memories: rest}
    """
    graph = model(levels, "x = x + linear(rmsnorm(linear(x)))", train=False)
    owners = {w.path: w.owner for w in graph.of(Weight)}
    assert owners == {
        "x.linear": "level:first", "x.linear_2": "level:second", "embedding": "level:second",
        "x.rmsnorm": "level:third", "rmsnorm": "level:third",
    }  # fmt: skip
    assert graph["level:second"].weights == ("blocks.*.x.linear_2", "frame:embedding")


def one(memories: str) -> str:
    return f"- {{name: t, every: 1 step, objective: loss, rule: adamw, memories: '{memories}'}}"


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (one("select(*.nothing)"), "level 't' selects nothing"),
        (one("select(blocks.*)"), "no level owns embedding and 1 more"),
        (one("select(blocks.0.*, embedding, rmsnorm)"), "no level owns blocks.1.x.linear"),
        (one("rest") + "\n" + one("rest").replace("name: t", "name: u"), "NLC0904"),
        (one("rest").replace("rule", "chunk: 4, rule"), "'chunk' says nothing"),
        (one("rest").replace("every: 1 step, ", ""), "does not say how often it updates"),
        (one("rest").replace("loss", "l2"), "NLC1001"),
    ],
)
def test_refused(levels: str, message: str) -> None:
    assert any(message in f for f in refusals(model, levels, "x = x + linear(x)", train=False))


def test_a_weight_may_belong_to_other_levels_in_other_layers() -> None:
    levels = one("select(blocks.1.*)").replace("every: 1 step", "every: never").replace("name: t", "name: still")
    graph = model(levels, "x = x + linear(x)")
    weight: Weight = graph["blocks.*.x.linear"]
    assert weight.owners == ("level:train", "level:still", "level:train")
    assert weight.id in graph["level:still"].weights and weight.id in graph["level:train"].weights
    text = train(graph, header=("",), digest="0")
    assert 'weights.freeze("blocks.1.x.linear")' in text and 'train = Level("train", weights.take("*")' in text


@pytest.mark.parametrize(
    ("chosen", "rest"), [("rest", True), ("select(*)", True), ("select(blocks.*, *norm, e*)", False)]
)
def test_only_a_level_of_the_rest_takes_all_that_is_left(chosen: str, rest: bool) -> None:
    text = train(model(one(chosen), "x = x + linear(x)", train=False), header=("",), digest="0")
    assert ('weights.take("*")' in text) == ("# all that is left" in text) == rest


def test_a_level_that_never_fires_is_not_said_to_be_updated_at_each_step() -> None:
    """Its period is as long as a step, and each sequence's clock begins anew."""
    graph = build(load("hope", {"levels.cms.memories.mid.every": "2048 tokens"}))
    (mid,) = (level for level in explain(graph).levels if level.name == "cms.mid")
    assert (mid.per_step, mid.per_sequence) == ("0", "never fires")
    graph = build(load("hope", {"levels.cms.memories.mid.every": "200 tokens"}))
    (mid,) = (level for level in explain(graph).levels if level.name == "cms.mid")
    assert (mid.per_step, mid.per_sequence) == ("8", "2")  # 4 sequences, 512 tokens of each


def test_memories_are_counted_in_the_layers_that_have_them() -> None:
    assert sentence(summary(build(load("hope")))).startswith("5 levels, 8 memories in each layer, ")
    levels = """
    - {name: a, every: 1 token, keys: k, values: k, memories: {m: {form: matrix}, n: {form: matrix}}}
    - {name: f, memories: {see: {form: attention, keys: kk, values: kk}}}
    """
    one = "k = l2norm(heads(linear(x)))\n    x = x + linear(merge(m(n(k))))"
    two = "kk = heads(linear(x))\n    x = x + linear(merge(see(kk)))"
    more = f"blocks:\n  one: |\n    {one}\n  two: |\n    {two}\nstack: [one, 2 * two]\n"
    assert sentence(summary(model(levels, "", more=more))).startswith("3 levels, 4 memories in 3 layers of 2 kinds, ")


def test_the_host_owns_the_weights_of_a_bare_program() -> None:
    graph = cell("- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: v}}}", "y = linear(m(q))")
    assert {w.owner for w in graph.of(Weight)} == {""}
