"""What a write does, and what it may not do: perturbed writes, firing times, errors of callers, the law of imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import nlc
from nlc.graph.nodes import Weight
from nlc.spec import loads

HOPE = {
    "sizes.width": 8, "sizes.heads": 2, "sizes.layers": 2, "sizes.vocab": 7, "sizes.context": 32,
    "levels.titans.chunk": 2, "levels.cms.memories.fast.every": "2 tokens", "levels.cms.memories.mid.every": "3 tokens",
}  # fmt: skip


def weights(graph, seed=0, scale=0.4):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for weight in graph.of(Weight):
        layers = [i for i, kind in enumerate(graph.stack) if kind == weight.block]
        for name in [f"blocks.{i}.{weight.path}" for i in layers] if weight.block else [weight.path]:
            found[name] = scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return found


def text(T, B=1, vocab=7):
    row = torch.randint(vocab, (B, T + 1), generator=torch.Generator().manual_seed(1))
    return row[:, :-1], row[:, 1:]


@pytest.mark.parametrize(("name", "count"), [("hope", 14), ("hope_deep", 14), ("hope_attention", 4)])
def test_every_memory_is_trained_through_its_writes(name, count):
    """The loss depends on every write; no token's own loss depends on a write it did not yet see."""
    sets = {key: value for key, value in HOPE.items() if "titans" not in key or name != "hope_attention"}
    graph = nlc.build(nlc.load(name, set=sets))
    W, (x, y) = weights(graph), text(6)
    plain = nlc.interpret(graph, W, x, y)
    places = [place for place, rows in plain.fires.items() if any(rows)]
    assert len(places) == count
    deltas = {}
    for place in places:
        ticks = plain.fires[place][0][0]
        shapes = {n: v.shape[1:] for n, v in plain.state[place].items() if n in ("M", "W_in", "b_in", "W_out", "b_out")}
        deltas[place, ticks] = {n: torch.zeros(s, dtype=torch.float64, requires_grad=True) for n, s in shapes.items()}
    result = nlc.interpret(graph, W, x, y, perturb=deltas)
    assert torch.equal(result.loss, plain.loss)
    for (place, ticks), delta in deltas.items():
        for n, grad in result.differentiate(result.loss, delta).items():
            assert grad.norm() > 0, f"{place} {n}"
        early = result.differentiate(result.nats[:, :ticks].sum(), delta)
        assert not any(grad.any() for grad in early.values()), place


def test_a_perturbation_is_added_to_the_write():
    graph = nlc.build(nlc.load("hope", set=HOPE))
    W, (x, y) = weights(graph), text(4, B=2)
    delta = torch.randn(2, 4, 4, dtype=torch.float64)
    plain = nlc.interpret(graph, W, x, y, learn={"titans"})
    moved = nlc.interpret(graph, W, x, y, learn={"titans"}, perturb={("blocks.1.titans.memory", 4): delta})
    found = moved.state["blocks.1.titans.memory"]["M"] - plain.state["blocks.1.titans.memory"]["M"]
    assert torch.allclose(found, delta.expand(2, -1, -1, -1))


CELL = """
nlc: 1
name: cell
sizes: {{head: 3}}
inputs: {{k: [head], v: [head], q: [head]}}
levels:
  - name: m
    every: 1 token
    rate: 0.5
    meta: {meta}
    memories: {{memory: {{form: matrix, keys: k, values: v, start: zeros}}}}
block: y = memory(q)
outputs: [y]
"""


@pytest.mark.parametrize("meta", ["full", "none"])
def test_meta_none_hides_writes_from_the_outer_gradient(meta):
    graph = nlc.build(loads(CELL.format(meta=meta)))
    inputs = {name: torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("kvq")}
    gradients = nlc.interpret(graph, {}, inputs=inputs).input_gradients
    assert bool(gradients["k"].any()) is (meta == "full")
    assert gradients["q"].any()


def test_bare_program_in_pieces():
    """Inputs by name, state in and out, documents and padding, as for tokens."""
    graph = nlc.build(loads(CELL.format(meta="full")))
    inputs = {name: torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("kvq")}
    starts = torch.zeros(2, 7, dtype=torch.bool)
    starts[1, 4] = True
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 2] = False
    whole = nlc.interpret(graph, {}, inputs=inputs, starts=starts, mask=mask)
    state, parts = None, []
    for a, b in ((0, 3), (3, 7)):
        piece = {name: x[:, a:b] for name, x in inputs.items()}
        done = nlc.interpret(graph, {}, inputs=piece, state=state, starts=starts[:, a:b], mask=mask[:, a:b])
        parts.append(done.outputs["y"])
        state = done.state
    assert torch.allclose(torch.cat(parts, 1), whole.outputs["y"])
    assert torch.allclose(state["blocks.0.m.memory"]["M"], whole.state["blocks.0.m.memory"]["M"])
    assert state["clock"]["sequence"].tolist() == [6, 3]
    assert not whole.outputs["y"][0, 2].any()
    weight = torch.randn(2, 7, 3, dtype=torch.float64)
    weighed = nlc.interpret(graph, {}, inputs=inputs, cotangents={"y": weight})
    plain = nlc.interpret(graph, {}, inputs=inputs)
    expected = plain.differentiate((plain.outputs["y"] * weight).sum(), plain.inputs)
    assert all(torch.equal(weighed.input_gradients[name], expected[name]) for name in "kvq")


def test_a_batch_of_padding_computes_nothing():
    graph = nlc.build(nlc.load("linear_attention", set={k: v for k, v in HOPE.items() if k.startswith("sizes")}))
    x, y = text(3)
    result = nlc.interpret(graph, weights(graph), x, y, mask=torch.zeros_like(x, dtype=torch.bool))
    assert not result.logits.any()
    assert result.loss == 0


def test_learned_start_is_the_first_state():
    graph = nlc.build(nlc.load("hope", set=HOPE))
    W = weights(graph)
    state = nlc.interpret(graph, W, text(1)[0]).state  # one token, read only
    for box in ("key", "value", "eta", "alpha", "memory"):
        assert torch.equal(state[f"blocks.0.titans.{box}"]["M"][0], W[f"blocks.0.titans.{box}.start"])


def test_memories_that_no_token_writes_have_no_state():
    graph = nlc.build(nlc.load("hope", set={**HOPE, "levels.cms.memories.mid.every": "never"}))
    state = nlc.interpret(graph, weights(graph), text(3)[0]).state
    assert not any(".slow" in place or ".mid" in place for place in state)
    assert "blocks.0.cms.fast" in state


def test_several_kinds_of_block():
    graph = nlc.build(
        loads("""
nlc: 1
name: two
sizes: {width: 4, heads: 1, layers: 2, vocab: 5, context: 16}
levels:
  - {name: fast, every: 1 token, rate: 0.3, memories: {a: {form: matrix, keys: l2norm(h), values: h}}}
  - {name: look, memories: {look: {form: attention, keys: h, values: h}}}
  - {name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}
blocks:
  first: |
    h = linear(x)
    x = x + a(h)
  second: |
    h = linear(x)
    x = x + look(h) + a(h)
stack: [first, second]
""")
    )
    x, y = text(6, vocab=5)
    result = nlc.interpret(graph, weights(graph), x, y)
    assert {"blocks.0.fast.a", "blocks.1.fast.a", "blocks.1.look.look"} <= set(result.state)
    assert "blocks.0.look.look" not in result.state
    assert all(g.any() for g in result.gradients.values())


def test_untied_head():
    graph = nlc.build(
        loads("""
nlc: 1
name: untied
sizes: {width: 4, heads: 1, layers: 1, vocab: 5, context: 16}
tied: false
levels: [{name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}]
block: x = x + linear(tanh(x))
""")
    )
    W, (x, y) = weights(graph), text(3, vocab=5)
    h = W["embedding"][x]
    h = h + torch.tanh(h) @ W["blocks.0.x.linear"].T
    h = h / (h.square().mean(-1, keepdim=True) + 1e-5).sqrt() * W["rmsnorm"]
    result = nlc.interpret(graph, W, x, y)
    assert torch.allclose(result.logits, h @ W["linear"].T)
    assert torch.allclose(result.loss, torch.nn.functional.cross_entropy(result.logits.flatten(0, 1), y.flatten()))


def test_ignored_targets_leave_the_mean():
    graph = nlc.build(nlc.load("linear_attention", set={k: v for k, v in HOPE.items() if k.startswith("sizes")}))
    W, (x, y) = weights(graph), text(5)
    y = y.clone()
    y[0, 2] = -100
    result = nlc.interpret(graph, W, x, y)
    assert result.nats[0, 2] == 0
    assert torch.isclose(result.loss, result.nats.sum() / 4)


def test_arguments_that_do_not_fit_are_said():
    graph = nlc.build(nlc.load("linear_attention", set={k: v for k, v in HOPE.items() if k.startswith("sizes")}))
    with pytest.raises(ValueError, match="tokens: none were given"):
        nlc.interpret(graph, weights(graph))
    with pytest.raises(
        ValueError, match=r"perturb: no memory is written at 'memory'; places: blocks\.0\.attention\.memory"
    ):
        nlc.interpret(graph, weights(graph), *text(2), perturb={("memory", 1): torch.zeros(2, 4, 4)})


def test_interpreter_imports_neither_codegen_nor_runtime():
    code = (
        "import sys, nlc; nlc.interpret; print([m for m in sys.modules if m.split('.')[0] in ('codegen', 'runtime')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("rule", ["gd", "dgd", "delta_momentum", "adam", "muon", "m3"])
def test_rates_that_are_the_same_at_each_token_of_a_period_are_one_rate(rule: str) -> None:
    """Also of rules whose step is as long as the rate, however long the gradient; two such rates make twice one."""
    text = """
nlc: 1
name: rates
sizes: {heads: 2, head: 3}
inputs: {k: [heads, head], v: [heads, head], e: [heads]}
levels:
  - {name: m, every: 3 tokens, rule: RULE, rate: RATE, memories: {memory: {form: matrix, keys: k, values: v}}}
block: y = memory(k) + sum(e)
outputs: [y]
"""
    draw = torch.Generator().manual_seed(0)
    given = {name: torch.randn(1, 9, 2, 3, generator=draw, dtype=torch.float64) for name in ("k", "v")}
    states = []
    for rate, e in (("0.06", 0.0), ("e", 0.06), ("2 * e", 0.03)):
        graph = nlc.build(loads(text.replace("RULE", rule).replace("RATE", rate)))
        start = {"blocks.0.m.memory.start": torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)}
        inputs = {**given, "e": torch.full((1, 9, 2), e, dtype=torch.float64)}
        states.append(nlc.interpret(graph, start, inputs=inputs).state["blocks.0.m.memory"]["M"])
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-12, atol=1e-13)
