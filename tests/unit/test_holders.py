"""Nested memories, `carry: slow`: whose life ends with whose writes, what holds a start, and what is refused."""

from __future__ import annotations

import pytest
from programs import model, refusals

from nlc.explain import explain
from nlc.graph.nodes import Memory, Weight

LEVEL = """
- name: cms
  objective: loss
  memories:
    fast: {{form: mlp(hidden=1x), every: 2 tokens, carry: mid {fast}}}
    mid: {{form: mlp(hidden=1x), every: {mid}, rule: momentum, carry: slow}}
    slow: {{form: mlp(hidden=1x), every: {slow}, rate: 0.1}}
"""
BLOCK = "x = slow(mid(fast(x)))"


def level(fast: str = "", mid: str = "4 tokens", slow: str = "8 tokens") -> str:
    return LEVEL.format(fast=f", {fast}" if fast else "", mid=mid, slow=slow)


def test_a_start_is_a_memory_of_the_slower_level() -> None:
    graph = model(level(), BLOCK)
    start: Memory = graph["cms.fast.start"]
    assert (start.level, start.rule.name, start.of) == ("level:cms.mid", "momentum", "cms.fast")
    assert graph["cms.fast"].nest == start.id and start.nest == "cms.fast.start.start"
    assert graph["cms.fast.start.start"].level == graph["cms.mid.start"].level == "level:cms.slow"
    assert not graph["cms.fast.start.start"].nest
    facts = {m.name: m for m in explain(graph).memories}
    assert facts["cms.fast"].start == "held with mid"
    assert facts["cms.fast.start"].reads == "where fast begins again"


def test_a_start_that_the_model_holds_is_weights_of_its_level() -> None:
    graph = model(level(slow="2 steps, carry: model"), BLOCK)
    owners = {w.path: graph[w.owner].name for w in graph.of(Weight) if w.block}
    assert owners["cms.mid.start.W_in"] == owners["cms.fast.start.W_in"] == "cms.slow"
    assert [m.id for m in graph.of(Memory) if m.of] == ["cms.fast.start"]


def test_never_leaves_a_nested_memory_as_it_is() -> None:
    graph = model(level(mid="never"), BLOCK)
    assert not any(m.of or m.nest for m in graph.of(Memory))


@pytest.mark.parametrize(
    ("levels", "block", "expected"),
    [
        (level(mid="5 tokens", slow="10 tokens"), BLOCK, "NLC0702 9: memory 'cms.fast': a life of 5 tokens is not a"),
        (level("chunk: 6"), BLOCK, "NLC0702 9: memory 'cms.fast': a life of 4 tokens is not a"),
        (level(mid="2 tokens"), BLOCK, "NLC0411 9: memory 'cms.fast': it is written every 2 tokens, and"),
        (level(slow="8 tokens, carry: fast"), BLOCK, "NLC0411 9: memories hold each other's starts: fast -> mid"),
        (level("tail: flush"), BLOCK, "NLC1001 9: memory 'cms.fast': nested memories with tail: flush ('cms.fast')"),
        (
            level().replace("fast: {", "fast: {objective: l2, keys: x, values: x, "),
            BLOCK,
            "NLC1001 9: memory 'cms.fast': nested memories with objective l2 ('cms.fast')",
        ),
        (
            "- {name: a, memories: {m: {form: attention, keys: z, values: z}}}" + level().replace(": slow}", ": m}"),
            "z = rmsnorm(x)\nx = slow(mid(fast(m(z))))",
            "NLC0411 11: memory 'cms.mid': attention ('a.m') keeps pairs, and holds no start",
        ),
    ],
    ids=["period", "chunk", "not slower", "ring", "tail", "pairs", "attention"],
)  # fmt: skip
def test_refused(levels: str, block: str, expected: str) -> None:
    found = refusals(model, levels, block)
    assert found and found[0].startswith(expected), found


def test_a_holder_that_is_refused_is_refused_once() -> None:
    found = refusals(model, level().replace("slow: {form: mlp(hidden=1x), ", "slow: {"), BLOCK)
    assert len(found) == 1 and "memory 'cms.slow' has no form" in found[0], found


def test_two_kinds_of_block_cannot_share_a_life() -> None:
    more = "blocks:\n  one: x = fast(x)\n  two: x = slow(mid(x))\nstack: [one, two, one]\n"
    found = refusals(model, level(), "", more=more)
    assert found[0].startswith("NLC0411") and "are read in different kinds of block" in found[0]
