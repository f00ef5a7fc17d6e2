"""Pass heads: memories with several axes of heads have one afterwards; what would not survive that is refused."""

from __future__ import annotations

import pytest
from programs import cell, refusals

from nlc.graph.nodes import Memory, Op, Read, Weight

INPUTS = "{k: [few, many, head], v: [few, many, head], q: [few, many, head], g: [few, many], f: [few]}"
SIZES = "{few: 2, many: 3, head: 4}"


def level(more: str = "", form: str = "matrix") -> str:
    return (
        f"- {{name: a, every: 1 token, memories: {{m: {{form: {form}, keys: k, values: v, rate: sigmoid(g){more}}}}}}}"
    )


def test_heads_are_counted_in_one_axis() -> None:
    graph = cell(level(), "y = m(q) + f", inputs=INPUTS, sizes=SIZES)
    memory: Memory = graph["a.m"]
    assert (memory.heads, memory.parts) == ((6,), (("M", (6, 4, 4)),))
    assert graph[memory.rate].op == "fold" and graph[memory.rate].shape == (6,)
    assert [w.shape for w in graph.of(Weight)] == [(6, 4, 4)]
    (read,) = graph.of(Read)
    (after,) = (op for op in graph.of(Op) if op.op == "unfold")
    assert read.shape == (6, 4) and after.shape == (2, 3, 4) and after.inputs == (read.id,)


def test_a_value_that_flows_in_twice_is_folded_once() -> None:
    graph = cell(level(), "y = m(k) + m(q) + f", inputs=INPUTS, sizes=SIZES)
    assert [op.inputs for op in graph.of(Op) if op.op == "fold"].count(("k",)) == 1


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (level(", objective: sum(M @ v)"), "NLC0601"),
        (level(", objective: sum((M - transpose(transpose(v))) ** 2)"), "NLC1001 7: memory 'a.m' has the axes [2, 3]"),
        (level(", objective: huber(softplus(f))"), "NLC1001 7: memory 'a.m' has the axes [2, 3] of heads: one 'd' for"),
    ],
)
def test_refused(levels: str, expected: str) -> None:
    (found,) = refusals(cell, levels, "y = m(q) + f", inputs=INPUTS, sizes=SIZES)
    assert found.startswith(expected), found


def test_one_axis_of_heads_is_left_alone() -> None:
    text = "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: v}}}"
    graph = cell(text, "y = m(q)")
    assert not [op for op in graph.of(Op) if op.op in ("fold", "unfold")]
