"""The interpreter's own gradients against finite differences, and what `meta: first_order` leaves out."""

from __future__ import annotations

import pytest
import torch

import nlc
from nlc.graph.nodes import Weight
from nlc.spec import loads

STEP = 1e-5
TOLERANCE = 1e-6  # a central difference of step 1e-5 leaves the third derivative, and half of the digits

SMALL = {"sizes.width": 8, "sizes.heads": 2, "sizes.layers": 1, "sizes.vocab": 7, "sizes.context": 32}
HOPE = {
    **SMALL,
    "levels.cms.memories.fast.every": "2 tokens",
    "levels.cms.memories.mid.every": "3 tokens",
    "levels.cms.meta": "full",
}


def weights(graph, seed=0, scale=0.4):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for weight in graph.of(Weight):
        layers = [i for i, kind in enumerate(graph.stack) if kind == weight.block]
        for name in [f"blocks.{i}.{weight.path}" for i in layers] if weight.block else [weight.path]:
            found[name] = scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return found


def tokens(graph, T, B=1, seed=0):
    row = torch.randint(graph.sizes["vocab"], (B, T + 1), generator=torch.Generator().manual_seed(seed))
    return row[:, :-1], row[:, 1:]


def check(graph, T=8, **more):
    """The gradients along random directions, each of five weights."""
    W, (x, y) = weights(graph), tokens(graph, T)
    loss = lambda W: nlc.interpret(graph, W, x, y, gradients=False, **more).loss
    gradients = nlc.interpret(graph, W, x, y, **more).gradients
    largest = max(float(g.norm()) for g in gradients.values())
    generator = torch.Generator().manual_seed(3)
    for i in range(0, len(W), 5):
        names = list(W)[i : i + 5]
        d = {name: torch.randn(W[name].shape, generator=generator, dtype=torch.float64) for name in names}
        moved = lambda step, d=d: {**W, **{name: W[name] + step * d[name] for name in d}}
        near, far = (loss(moved(n * STEP)) - loss(moved(-n * STEP)) for n in (1, 2))
        along = (8 * near - far) / (12 * STEP)  # of fourth order in the step
        found = sum((gradients[name] * d[name]).sum() for name in names)
        assert abs(found - along) < TOLERANCE * max(abs(along), largest), names
    return gradients


def test_hope():
    graph = nlc.build(nlc.load("hope", set={**HOPE, "levels.titans.chunk": 4}))
    gradients = check(graph)
    assert all(g.norm() > 0 for g in gradients.values())


def test_hope_deep():
    check(nlc.build(nlc.load("hope_deep", set={**HOPE, "levels.titans.chunk": 2})), T=6)


def test_hope_attention():
    check(nlc.build(nlc.load("hope_attention", set=HOPE)), T=6)


@pytest.mark.parametrize("name", ["titans_lmm", "linear_attention", "transformer"])
def test_shipped(name):
    check(nlc.build(nlc.load(name, set=SMALL)))


EVERYTHING = """
nlc: 1
name: everything
sizes: {width: 4, heads: 2, layers: 1, vocab: 5, context: 32}
levels:
  - name: fast
    every: 1 token
    chunk: 2
    rate: sigmoid(linear(u, out=1))
    retain: sigmoid(linear(u, out=1) + 1)
    retain_to: start
    memories:
      a: {form: swiglu(hidden=2x), keys: k, values: a(v), read: before, objective: huber(0.3)}
      b: {form: matrix, keys: [k, v], values: [v, k], read: after, rule: dgd, grad_at: kept, chunk: 1}
      c: {form: vector, keys: k, values: v, read: after, objective: lp(3)}
      d: {form: 'mlp(hidden=2x, depth=3)', keys: k, values: v, rule: 'adamw(lr=0.1, weight_decay=0.1, eps=0.01)'}
      e: {form: matrix, keys: k, values: v, objective: sum((M - v) ** 4), every: 3 tokens, chunk: 3, rate: 0.1}
  - name: slow
    every: 2 tokens
    objective: loss
    rule: momentum(beta=0.5)
    rate: learned(0.1)
    memories: {f: {form: 'mlp(hidden=2x, norm=rmsnorm, bias=true)'}}
  - {name: look, memories: {look: {form: 'attention(window=3, persistent=1)', keys: rope(k), values: v}}}
  - {name: train, every: 1 step, objective: loss, rule: adamw(lr=1e-3), memories: rest}
block: |
  h = conv(layernorm(x), 2) + prev(x0)
  x0 = linear(x, bias=true)
  u = heads(h)
  k = l2norm(u)
  v = heads(linear(h))
  y = a(k) + b(k) + c(v) + d(k) + e(k) + look(rope(u))
  x1 = f(x + linear(merge(y)))
  x = x1
"""


def test_every_form_and_objective():
    gradients = check(nlc.build(loads(EVERYTHING)), T=7)
    assert all(g.norm() > 0 for g in gradients.values())


def test_gradients_reach_inputs_and_weights_of_the_caller():
    """Weights that require gradients stay in the caller's graph."""
    graph = nlc.build(nlc.load("linear_attention", set=SMALL))
    W, (x, y) = weights(graph), tokens(graph, 6)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    result = nlc.interpret(graph, {name: w * scale for name, w in W.items()}, x, y)
    (found,) = torch.autograd.grad(result.loss, scale)
    plain = nlc.interpret(graph, W, x, y).gradients
    assert torch.isclose(found, sum((plain[name] * w).sum() for name, w in W.items()), rtol=1e-10)


@pytest.mark.parametrize("name", ["hope", "hope_deep"])
def test_meta_full_and_first_order_differ(name):
    found = []
    for meta in ("full", "first_order"):
        graph = nlc.build(nlc.load(name, set={**HOPE, "levels.cms.meta": meta}))
        W, (x, y) = weights(graph), tokens(graph, 8)
        result = nlc.interpret(graph, W, x, y)
        found.append((result.loss, result.gradients["embedding"]))
    assert torch.equal(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).norm() > 1e-4 * found[0][1].norm()
