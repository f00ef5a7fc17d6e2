"""What depends on itself within one token, and what a register breaks."""

from __future__ import annotations

import pytest

from nlc.graph.nodes import Input, Number, Op, Read
from nlc.passes import build
from nlc.passes.causality import needs
from nlc.spec import load
from tests.unit.programs import cell, model, refusals, values

INPUTS = "{u: [heads, head], v: [heads, head]}"


def level(more: str = "", memory: str = "keys: k, values: v") -> str:
    return f"- {{name: a, every: 1 token{more}, memories: {{m: {{form: matrix, {memory}}}}}}}"


def test_a_cycle_is_named() -> None:
    (found,) = refusals(values, "q = silu(k)\nk = silu(q) + x\ny = k")
    assert "'q' depends on itself within one token: q -> k -> q" in found
    assert "a cycle must pass through a memory's state" in found


def test_a_name_in_its_own_equation() -> None:
    assert "h -> h" in refusals(values, "h = silu(h)\ny = h + x")[0]


def test_prev_is_a_register() -> None:
    graph = values("h = 0.5 * prev(h) + g\ng = x * prev(h)\ny = h")
    assert graph["y" if "y" in graph.nodes else "h"].shape == (12,)


@pytest.mark.parametrize("read", ["chunk", "before"])
def test_a_state_of_an_earlier_token_is_a_register(read: str) -> None:
    assert cell(level(f", read: {read}"), "k = l2norm(m(u))\ny = m(u)", inputs=INPUTS)["k"].shape == (2, 8)


def test_a_read_after_the_write_it_feeds() -> None:
    (found,) = refusals(cell, level(), "k = l2norm(m(u, read=after))\ny = m(u)", inputs=INPUTS)
    assert found.startswith("NLC0801")
    assert "'k' reads 'a.m' after a write that needs it: k -> k (read it before or at the chunk's first state" in found


def test_a_read_after_a_write_that_does_not_need_it() -> None:
    graph = cell(level(), "k = l2norm(u)\ny = m(k, read=after)", inputs=INPUTS)
    order = list(graph.nodes)
    assert order.index("k") < order.index("y")


def test_two_memories_that_need_each_others_writes() -> None:
    levels = (
        "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: j, values: v}, n: {form: matrix, "
        "keys: k, values: v}}}"
    )
    (found,) = refusals(cell, levels, "k = m(u, read=after)\nj = n(u, read=after)\ny = m(u) + n(u)", inputs=INPUTS)
    assert found.startswith("NLC0801")


def test_attention_sees_its_own_token() -> None:
    attention = "- {name: a, memories: {m: {form: attention, keys: k, values: v}}}"
    found = refusals(cell, attention, "k = l2norm(m(u))\ny = m(u)", inputs=INPUTS)
    assert found[0].startswith("NLC0801") and "k -> k" in found[0]
    assert cell(attention, "k = l2norm(u)\ny = m(u)", inputs=INPUTS)["y"].shape == (2, 8)


def test_the_loss_is_not_known_when_the_token_is_read() -> None:
    loss = "- {name: c, every: 2 tokens, objective: loss, rule: gd, read: after, memories: {w: {form: matrix}}}"
    (found,) = refusals(model, loss, "x = w(x)")
    assert found.startswith("NLC0801") and "'c.w' learns from the loss" in found


@pytest.mark.parametrize("name", ["hope", "titans_lmm", "transformer"])
def test_values_stand_after_what_they_need(name: str) -> None:
    graph = build(load(name))
    place = {id: i for i, id in enumerate(graph.nodes)}
    for node in graph.nodes.values():
        if isinstance(node, Input | Number | Op | Read):
            assert all(place[n] < place[node.id] for n in needs(graph, node))


def test_errors_of_several_passes_come_together() -> None:
    levels = """
    - {name: s, every: 100 tokens, carry: model, objective: loss, rule: gd, memories: {w: {form: matrix}}}
    - {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: v}}}
    """
    block = "k = heads(linear(x))\nv = linear(k)\nx = w(x) + merge(v)[0:7]"
    codes = [f[:7] for f in refusals(model, levels, block)]
    assert sorted(codes) == ["NLC0601", "NLC0701", "NLC0901"]
