"""Pass still: what no write can change is never written, and computed as ordinary weights are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import model

from nlc.explain import explain
from nlc.graph.choices import rule_of
from nlc.graph.dump import from_json, from_text, to_json, to_text
from nlc.graph.hash import graph_hash
from nlc.graph.nodes import Memory, Op, Recurrence, Unit, Weight
from nlc.graph.standstill import stands
from nlc.interpret import interpret
from nlc.interpret.rules import Carried, run_rule
from nlc.passes.owners import weight_names
from nlc.spec import load_rule

LOSS = "- {{name: a, every: 4 tokens, objective: loss, {}, memories: {{m: {{form: mlp(hidden=1x)}}}}}}"
PAIRS = "- {{name: a, every: 1 token, {}, memories: {{m: {{form: matrix, keys: k, values: u}}}}}}"
NESTED = """
- name: a
  objective: loss
  rate: {}
  memories:
    m: {{form: mlp(hidden=1x), every: 2 tokens, carry: slow}}
    slow: {{form: mlp(hidden=1x), every: 4 tokens, rate: {}}}
"""
BLOCK = "u = heads(x)\nk = {}\nx = x + linear(merge({}))"
READ, OVER = BLOCK.format("l2norm(u)", "m(u)"), BLOCK.format("u", "slow(m(u))")
STILL = [
    pytest.param(LOSS.format("rate: 0"), READ, id="loss"),
    pytest.param(LOSS.format("rule: 'adam(lr=0)', carry: stream, tail: flush"), READ, id="stream"),
    pytest.param(LOSS.format("rate: 'relu(heads - 3)'"), READ, id="by_its_range"),
    pytest.param(PAIRS.format("rate: 0, rule: dgd, chunk: 4"), READ, id="chunk"),
    pytest.param(PAIRS.format("rate: 0, retain: 0.5, retain_to: start, read: after"), READ, id="towards_the_start"),
    pytest.param(PAIRS.format("rate: 0, rule: muon, window: 3"), READ, id="window"),
    pytest.param(NESTED.format(0, 0), OVER, id="nested"),
]
STANDING = {
    "adagrad", "adam", "adamw", "deep_momentum", "delta_momentum", "dgd", "feature_momentum", "gd", "m3", "momentum",
    "muon", "preconditioned_momentum", "rmsprop",
}  # fmt: skip


@pytest.mark.parametrize(("levels", "block"), STILL)
def test_never_written_means_the_same_to_the_bit(levels: str, block: str) -> None:
    before, after = model(levels, block, after="gradients"), model(levels, block)
    assert all(m.period.unit is Unit.NEVER and m.still for m in after.of(Memory))
    assert {r.lowering for r in after.of(Recurrence)} == {"weights"}
    assert from_text(to_text(after)) == from_json(to_json(after)) == after
    draw = torch.Generator().manual_seed(0)
    weights = {
        name: 0.3 * torch.randn(weight.shape or (), generator=draw, dtype=torch.float64)
        for weight in before.of(Weight)
        for name in weight_names(before, weight)
    }
    tokens, targets = torch.randint(50, (2, 2, 9), generator=draw)
    meant, found = (interpret(graph, weights, tokens, targets) for graph in (before, after))
    assert torch.equal(meant.logits, found.logits)
    assert meant.gradients.keys() == found.gradients.keys()
    for name, gradient in meant.gradients.items():  # summed in another order
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("levels", "block"),
    [
        pytest.param(LOSS.format("rate: learned(0.1)"), READ, id="rate"),
        pytest.param(PAIRS.format("rate: 0, retain: 0.5"), READ, id="forgets"),
        pytest.param(PAIRS.format("rate: 0, rule: kl"), READ, id="rule"),
        pytest.param(PAIRS.format("rate: 0"), BLOCK.format("heads(linear(x))", "m(u)"), id="weight_of_the_keys"),
        pytest.param(NESTED.format(0, 0.1), OVER, id="holder"),
        pytest.param(NESTED.format(0.1, 0), OVER, id="held"),
    ],
)
def test_what_a_write_may_change_is_written(levels: str, block: str) -> None:
    graph = model(levels, block)
    assert not any(m.still or m.period.unit is Unit.NEVER for m in graph.of(Memory))


def test_the_graph_is_that_of_a_memory_that_is_never_written() -> None:
    still = model(LOSS.format("rate: 0"), READ)
    assert graph_hash(still) == graph_hash(model(LOSS.format("rate: 0").replace("4 tokens", "never"), READ))


def test_values_that_only_a_write_needed_are_gone() -> None:
    assert [op.name for op in model(PAIRS.format("rate: 1"), READ).of(Op) if op.op == "l2norm"] == ["k"]
    assert not [op for op in model(PAIRS.format("rate: 0"), READ).of(Op) if op.op == "l2norm"]


def test_explain_says_why() -> None:
    found = explain(model(LOSS.format("rate: 0"), READ))
    assert [(level.name, level.when) for level in found.levels][1:] == [("a", "never written")]
    (why,) = [r.reason for r in found.recurrences if r.members == ("a.m",)]
    expected = "a write every 4 tokens changes nothing: its rate is 0, and gd then takes no step"
    assert why == f"{expected}: weights all tokens share"
    chunked = explain(model(PAIRS.format("rate: 0, chunk: 4"), READ))
    assert [m.reads for m in chunked.memories] == ["never written"]
    assert not any("invisible" in note for note in chunked.notes)


@pytest.mark.parametrize("name", [path.stem for path in sorted(Path("specs/rules").glob("*.yaml"))])
def test_a_rule_proved_to_stand_at_rate_0_leaves_the_weight_to_the_bit(name: str) -> None:
    rule = rule_of(load_rule(name))
    assert stands(rule) == (name in STANDING)
    W = torch.randn(3, 4, dtype=torch.float64)
    state, lr = Carried.zero(rule, {"W": W}), torch.zeros((), dtype=torch.float64)
    for _ in range(3 * stands(rule)):
        seen = {"grad": torch.randn_like(W), "weight": W, "start": W, "lr": lr, "retain": 1 + lr, "gram": W.mT @ W}
        state = state.counted()
        found, state = run_rule(rule, "W", W, {**{p.name: p.number for p in rule.params}, **seen}, state)
        assert torch.equal(found, W)
