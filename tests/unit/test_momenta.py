"""What rules remember is a memory in a level of its own frequency."""

from __future__ import annotations

from nlc.graph.dump import to_text
from nlc.graph.momenta import momenta, said
from nlc.passes import build
from nlc.spec import load, loads

INSIDE = """
nlc: 1
name: inside
sizes: {width: 4}
inputs: {k: [width], v: [width]}
levels:
  - {name: m, every: 4 tokens, rule: m3(period=3), rate: 0.1, memories: {memory: {form: matrix, keys: k, values: v}}}
block: y = memory(k)
outputs: [y]
"""


def test_a_slow_momentum_is_written_once_in_ten_times_as_many_steps() -> None:
    graph = build(load("transformer", set={"levels.train.rule": "m3", "levels.train.every": "2 steps"}))
    assert [(m.names, said(m)) for m in momenta(graph)] == [
        (("m1", "v2"), "train, m3: every 2 steps"),
        (("m2", "o2"), "train, m3: every 20 steps"),
    ]
    assert 'momentum "level:train m3 2" of=level:train rule=m3 every="20 steps" names=[m2,o2]' in to_text(graph)


def test_a_memory_inside_a_sequence_has_momenta_of_its_own() -> None:
    assert [said(m) for m in momenta(build(loads(INSIDE)))] == [
        "m.memory, m3: every 4 tokens",
        "m.memory, m3: every 12 tokens",
    ]


def test_a_rule_that_remembers_nothing_has_none() -> None:
    assert momenta(build(load("transformer", set={"levels.train.rule": "gd"}))) == []
