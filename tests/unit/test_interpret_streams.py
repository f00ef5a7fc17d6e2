"""Batches, pieces, borders, padding and tails: how a state goes on."""

from __future__ import annotations

import pytest
import torch

import nlc
from nlc.graph.nodes import Weight
from nlc.interpret import interpret
from nlc.passes import build
from nlc.spec import loads

EVERYTHING = """
nlc: 1
name: everything
sizes: {{width: 4, heads: 2, layers: 2, vocab: 5, context: 64}}
levels:
  - name: fast
    every: 1 token
    chunk: 4
    rule: dgd
    tail: {tail}
    rate: sigmoid(linear(eta(u), out=1))
    retain: sigmoid(linear(u, out=1) + 1)
    retain_to: start
    memories:
      key:  {{form: matrix, keys: k, values: key(v)}}
      eta:  {{form: matrix, keys: k, values: eta(v)}}
      deep: {{form: mlp(hidden=1x), keys: k, values: v, read: after, rule: momentum(beta=0.8), rate: 0.1}}
  - name: lane
    every: 3 tokens
    rate: 0.2
    memories: {{long: {{form: matrix, keys: k, values: v, carry: {carry}}}}}
  - name: slow
    every: 5 tokens
    objective: loss
    rule: 'adamw(lr=0.1, eps=0.1)'
    tail: {tail}
    memories: {{f: {{form: 'mlp(hidden=1x, bias=true)'}}}}
  - {{name: look, memories: {{look: {{form: attention(window=5), keys: rope(k), values: v}}}}}}
  - {{name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}}
block: |
  h = conv(rmsnorm(x), 3) + prev(linear(x))
  u = heads(h)
  k = l2norm(key(u))
  v = l2norm(heads(linear(h)))
  y = deep(k) + long(k) + look(rope(u))
  x = f(x + linear(merge(y)))
"""


def weights_of(graph):
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for weight in graph.of(Weight):
        layers = [i for i, kind in enumerate(graph.stack) if kind == weight.block]
        for name in [f"blocks.{i}.{weight.path}" for i in layers] if weight.block else [weight.path]:
            weights[name] = 0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return weights


def program(carry="stream", tail="carry"):
    graph = nlc.build(loads(EVERYTHING.format(carry=carry, tail=tail)))
    weights = weights_of(graph)
    return lambda *args, **more: nlc.interpret(graph, weights, *args, gradients=False, **more)


def text(T, B=2, seed=0):
    return torch.randint(5, (B, T), generator=torch.Generator().manual_seed(seed))


def same(a, b):
    assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)


def same_state(a, b):
    assert set(a) == set(b)
    for place in a:
        assert set(a[place]) == set(b[place]), place
        for name in a[place]:
            same(a[place][name].double(), b[place][name].double())


def in_pieces(run, tokens, cuts, **more):
    """The same tokens in several calls, the state handed on."""
    ends = [*cuts, tokens.shape[1]]
    state, logits, begin = None, [], 0
    for end in ends:
        part = {name: x[:, begin:end] for name, x in more.items()}
        result = run(tokens[:, begin:end], state=state, **part)
        logits.append(result.logits)
        state, begin = result.state, end
    return torch.cat(logits, 1), state


@pytest.mark.parametrize("cuts", [[1], [4, 5], [7, 8, 13]])
def test_stream_equals_whole(cuts):
    run, tokens = program(), text(17)
    whole = run(tokens)
    logits, state = in_pieces(run, tokens, cuts)
    same(logits, whole.logits)
    same_state(state, whole.state)


@pytest.mark.parametrize("cuts", [[3], [1, 9]])
def test_stream_of_losses_equals_whole(cuts):
    """With given targets nothing is left over: each token teaches in its own call."""
    run, tokens = program(), text(14)
    whole = run(tokens[:, :-1], tokens[:, 1:])
    parts, state, begin = [], None, 0
    for end in [*cuts, 13]:
        result = run(tokens[:, begin:end], tokens[:, begin + 1 : end + 1], state=state)
        parts.append(result.nats)
        state, begin = result.state, end
    same(torch.cat(parts, 1), whole.nats)
    same_state(state, whole.state)


def test_gradient_does_not_depend_on_the_pieces():
    """The state carries the graph: the summed loss of the pieces has the gradient of the whole."""
    graph = nlc.build(loads(EVERYTHING.format(carry="sequence", tail="carry")))
    tokens, found = text(9, B=1), []
    for cuts in ([8], [3, 8], [1, 2, 5, 8]):
        W = {name: w.clone().requires_grad_() for name, w in weights_of(graph).items()}
        state, total, begin = None, torch.zeros((), dtype=torch.float64), 0
        for end in cuts:
            part = nlc.interpret(graph, W, tokens[:, begin:end], tokens[:, begin + 1 : end + 1], state=state)
            total, state, begin = total + part.nats.sum(), part.state, end
        found.append(torch.autograd.grad(total, list(W.values())))
    for pieces in found[1:]:
        for a, b in zip(pieces, found[0], strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_last_token_waits_for_its_target():
    """model(tokens) stops before the last token; the next call feeds it again, so its error is written at its place."""
    run, tokens = program(), text(12)
    first = run(tokens[:, :7])
    assert first.state["clock"]["sequence"].tolist() == [6, 6]
    assert first.state["unlearned"]["token"].tolist() == tokens[:, 6].tolist()
    same_state(run(tokens[:, :6], tokens[:, 1:7]).state, {k: v for k, v in first.state.items() if k != "unlearned"})
    loss = run(tokens[:, 7:11], tokens[:, 8:], state=first.state)  # the waiting token's target is tokens[:, 7]
    same_state(run(tokens[:, :11], tokens[:, 1:]).state, loss.state)
    assert loss.nats.shape == (2, 4)


def test_batch_equals_separate_runs():
    run, tokens = program(), text(11, B=3)
    together = run(tokens)
    for b in range(3):
        alone = run(tokens[b : b + 1])
        same(together.logits[b : b + 1], alone.logits)
        same_state({p: {n: x[b : b + 1] for n, x in f.items()} for p, f in together.state.items()}, alone.state)


def test_border_resets_all_but_streams():
    """After a border a document is as if it came first; with a stream in the model, it is not."""
    tokens = text(13)
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[:, 0] = starts[0, 6] = starts[1, 9] = True
    run = program(carry="sequence")
    packed = run(tokens, starts=starts)
    same(packed.logits[0, 6:], run(tokens[:1, 6:]).logits[0])
    same(packed.logits[1, 9:], run(tokens[1:, 9:]).logits[0])
    assert packed.state["clock"]["sequence"].tolist() == [6, 3]
    assert packed.state["clock"]["stream"].tolist() == [12, 12]
    run = program(carry="stream")
    streamed = run(tokens, starts=starts)
    assert not torch.allclose(streamed.logits[0, 7:], run(tokens[:1, 6:]).logits[0, 1:])


@pytest.mark.parametrize("cuts", [[6], [5], [7, 9, 10]])
def test_borders_in_pieces(cuts):
    run, tokens = program(), text(13)
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[0, 6] = starts[1, 9] = starts[1, 10] = True
    whole = run(tokens, starts=starts)
    logits, state = in_pieces(run, tokens, cuts, starts=starts)
    same(logits, whole.logits)
    same_state(state, whole.state)


def test_last_token_of_a_document_has_no_observed_target():
    run, tokens = program(carry="sequence"), text(9, B=1)
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[0, 5] = True
    targets = torch.cat((tokens[:, 1:], torch.tensor([[-100]])), 1)
    targets[0, 4] = -100
    given = run(tokens, targets, starts=starts)
    same(run(tokens, starts=starts).logits, given.logits)


def test_padding_is_absent():
    """Padding anywhere in a lane: the other tokens compute what they would without it."""
    run, tokens = program(), text(12)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, 8:] = mask[1, :3] = mask[1, 6] = False
    padded = run(tokens, mask=mask)
    for b in range(2):
        alone = run(tokens[b : b + 1, mask[b]])
        same(padded.logits[b, mask[b]], alone.logits[0])
        assert not padded.logits[b, ~mask[b]].any()
        assert padded.state["clock"]["sequence"][b] == mask[b].sum() - 1
    loss = run(tokens, tokens, mask=mask)
    assert torch.isclose(loss.loss, loss.nats.sum() / mask.sum())


def test_lane_of_padding_keeps_its_waiting_token():
    run, tokens = program(), text(10)
    first = run(tokens[:, :4])
    mask = torch.tensor([[True] * 3, [False] * 3])
    second = run(tokens[:, 4:7], state=first.state, mask=mask)
    assert second.state["unlearned"]["token"].tolist() == [tokens[0, 6], tokens[1, 3]]
    third = run(tokens[:, 7:], state=second.state)
    same(third.logits[1], run(torch.cat((tokens[1:, :4], tokens[1:, 7:]), 1)).logits[0, 4:])


def test_tail_carry_keeps_a_part_chunk():
    run, tokens = program(tail="carry"), text(6)
    state = run(tokens[:, :-1], tokens[:, 1:]).state
    assert not torch.equal(state["blocks.0.fast.key"]["M"], state["blocks.0.fast.key"]["held.M"])
    assert "origin" not in state["blocks.0.fast.key"]


def test_tail_flush_applies_a_part_chunk():
    """The part chunk's state is read from the next call on, the part period is written, and both begin afresh."""
    run, tokens = program(tail="flush"), text(9)
    state = run(tokens[:, :3], tokens[:, 1:4]).state
    key, f = state["blocks.0.fast.key"], state["blocks.0.slow.f"]
    same(key["M"], key["held.M"])
    assert key["origin"].tolist() == f["origin"].tolist() == [3, 3]
    assert not f["sum.W_in"].any()
    assert f["rule.count"].tolist() == [1, 1]
    carried = program(tail="carry")(tokens[:, :3], tokens[:, 1:4]).state
    same(key["M"], carried["blocks.0.fast.key"]["M"])
    assert carried["blocks.0.slow.f"]["rule.count"].tolist() == [0, 0]
    later = run(tokens[:, 3:8], tokens[:, 4:9], state=state)
    assert later.fires["blocks.0.slow.f"] == [[8], [8]]  # 5 tokens after the flush


def test_tail_drop_forgets_a_part_chunk():
    run, tokens = program(tail="drop"), text(7)
    state = run(tokens[:, :6], tokens[:, 1:]).state
    whole = program(tail="carry")(tokens[:, :4], tokens[:, 1:5]).state
    key, f = state["blocks.0.fast.key"], state["blocks.0.slow.f"]
    same(key["M"], whole["blocks.0.fast.key"]["M"])
    same(key["M"], key["held.M"])
    assert not f["sum.W_in"].any()
    assert f["origin"].tolist() == [6, 6]


def test_learning_can_be_off_by_level():
    run, tokens = program(), text(12)
    frozen = run(tokens, learn=False)
    assert not any(any(row) for rows in frozen.fires.values() for row in rows)
    only = run(tokens, learn={"slow"})
    assert only.fires["blocks.0.slow.f"] == [[5, 10], [5, 10]]
    assert only.fires["blocks.0.fast.key"] == [[], []]
    same(only.logits[:, :5], frozen.logits[:, :5])
    assert not torch.allclose(only.logits[:, 5:], frozen.logits[:, 5:])
    with pytest.raises(ValueError, match=r"no level 'fats' writes inside a sequence; levels: fast, "):
        run(tokens, learn={"fats"})


NONE_KEPT = """nlc: 1
name: none_kept
sizes: {width: 2}
inputs: {x: [width], s: []}
levels:
  - {name: m, every: 4 tokens, rate: 0.1, retain: s, memories: {slots: {form: matrix, keys: x, values: x}}}
block: y = slots(x)
outputs: [y]
"""


def test_a_period_of_which_nothing_is_kept_has_gradients_across_a_cut() -> None:
    graph = build(loads(NONE_KEPT))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    share = torch.tensor([[0.9, 0.0, 0.8, 0.7] * 2], dtype=torch.float64, requires_grad=True)
    weights = {"blocks.0.m.slots.start": torch.eye(2, dtype=torch.float64)}
    whole = interpret(graph, weights, inputs={"x": x, "s": share}).outputs["y"]
    first = interpret(graph, weights, inputs={"x": x[:, :2], "s": share[:, :2]})
    rest = interpret(graph, weights, inputs={"x": x[:, 2:], "s": share[:, 2:]}, state=first.state)
    parts = torch.cat([first.outputs["y"], rest.outputs["y"]], 1)
    one, other = (torch.autograd.grad(y.square().sum(), [x, share]) for y in (whole, parts))
    assert torch.allclose(whole, parts, rtol=1e-14) and torch.allclose(one[0], other[0], rtol=1e-12)
    assert torch.allclose(one[1][share > 0], other[1][share > 0], rtol=1e-12)
