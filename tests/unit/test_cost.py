"""Costs against counts by hand."""

from __future__ import annotations

from nlc.graph.graph import Graph
from nlc.graph.nodes import Weight
from nlc.passes import build
from nlc.passes.owners import weight_names
from nlc.spec import load
from tests.unit.programs import cell, model, values


def of(graph: Graph, id: str) -> tuple[int, ...]:
    """(parameters, state bytes, flops, activation bytes) of a node."""
    assert graph.cost is not None
    return next((tuple(numbers) for name, *numbers in graph.cost.by_node if name == id), (0, 0, 0, 0))


def test_operators_by_hand() -> None:
    graph = values("h = conv(rmsnorm(x), 4)\ny = linear(h, out=5) * sigmoid(linear(h, out=1))")
    assert of(graph, "h/rmsnorm") == (0, 0, 4 * 12, 4 * 12)
    assert of(graph, "h") == (0, 4 * 3 * 12, 2 * 4 * 12, 4 * 12)
    assert of(graph, "y/linear") == (0, 0, 2 * 12 * 5, 4 * 12)
    assert of(graph, "y") == (0, 0, 5, 4 * (5 + 1))
    assert of(graph, "blocks.*.h.conv")[0] == 4 * 12
    assert graph.cost is not None and graph.cost.parameters == 12 + 48 + 60 + 12


def test_a_matrix_memory_by_hand() -> None:
    """Two heads of 8 x 8: W = 128.  DGD on l2: 2 W each for product, map and erase, W for retention."""
    level = (
        "- {{name: a, every: 1 token, chunk: {chunk}, rule: {rule}, retain: 0.9, "
        "memories: {{m: {{form: matrix, keys: k, values: v}}}}}}"
    )
    graph = cell(level.format(chunk=4, rule="dgd"), "y = m(q)")
    assert of(graph, "y") == (0, 0, 2 * 128, 4 * 16)
    assert of(graph, "a.m") == (0, 4 * 2 * 128, 6 * 128 + 128, 4 * 128 // 4)
    exact = cell(level.format(chunk=1, rule="momentum"), "y = m(q)")
    assert of(exact, "a.m") == (0, 4 * 2 * 128, 4 * 128 + 128, 0)  # the state and its momentum


def test_a_period_of_several_tokens_keeps_sums() -> None:
    level = "- {name: a, every: 4 tokens, rule: dgd, memories: {m: {form: matrix, keys: k, values: v}}}"
    assert of(cell(level, "y = m(q)"), "a.m")[1] == 4 * (128 + 128 + 2 * 64)  # state, gradients, x x^T


def test_an_mlp_memory_by_hand() -> None:
    level = "- {name: a, every: 1 token, rule: gd, memories: {m: {form: mlp(hidden=2x), keys: k, values: v}}}"
    graph = cell(level, "y = m(q)")
    size = 2 * (16 * 8 + 8 * 16)
    assert of(graph, "y") == (0, 0, 2 * size, 4 * (16 + 2 * 32))
    assert of(graph, "a.m") == (0, 4 * size, 4 * size + 2 * size // 2, 0)


def test_attention_by_hand() -> None:
    """2 (key + value width) per visible pair; over 16 tokens a token sees 8.5 on average."""
    graph = model("- {name: a, memories: {m: {form: attention, keys: k, values: v}}}",
                  "k = heads(linear(x))\nv = heads(linear(x))\nx = x + linear(merge(m(k)))")  # fmt: skip
    assert of(graph, "x:1/m")[2] == 3 * int(2 * 2 * (16 + 16) * 8.5)
    assert of(graph, "a.m")[1] == 3 * 4 * 16 * (32 + 32)
    window = model("- {name: a, memories: {m: {form: attention(window=4), keys: k, values: v}}}",
                   "k = heads(linear(x))\nv = heads(linear(x))\nx = x + linear(merge(m(k)))")  # fmt: skip
    assert of(window, "x:1/m")[2] == 3 * int(2 * 2 * (16 + 16) * (1 + 2 + 3 + 4 * 13) / 16)
    assert of(window, "a.m")[1] == 3 * 4 * 3 * (32 + 32)


def test_the_head() -> None:
    graph = model("", "x = x + linear(x)")
    assert of(graph, "out:loss")[2] == 2 * 32 * 50 + 4 * 32 + 5 * 50


def test_parameters_are_those_of_all_layers() -> None:
    for name in ("hope", "transformer"):
        graph = build(load(name))
        total = 0
        for weight in graph.of(Weight):
            size = 1
            for n in weight.shape or ():
                size *= n
            total += size * len(weight_names(graph, weight))
        assert graph.cost is not None and graph.cost.parameters == total


def test_transformer_by_hand() -> None:
    graph = build(load("transformer", {"sizes.width": 256, "sizes.heads": 4}))
    width, layers, vocab = 256, 4, 256
    block = 4 * width**2 + 3 * 3 * width**2 + 2 * width
    assert graph.cost is not None
    assert graph.cost.parameters == layers * block + vocab * width + width


def test_a_memory_never_written_in_a_sequence_keeps_no_state() -> None:
    graph = build(load("hope", {"levels.cms.memories.mid.every": "never"}))
    assert of(graph, "cms.mid") == (0, 0, 0, 0)
    assert of(graph, "cms.slow") == (0, 0, 0, 0)
    assert of(graph, "cms.fast")[1] > 0
