"""A rule of the weights that looks at its layers' inputs: the trained module collects what the interpreter sums, and a
step of dgd outside is its equation."""

from __future__ import annotations

import sys
import types

import pytest
import torch

import nlc
from codegen.train import train
from nlc.compile import Program
from nlc.diagnostics import SpecError
from nlc.spec import loads
from runtime.level import IGNORED

SPEC = """
nlc: 1
name: looked
sizes: {width: 8, heads: 2, layers: 2, vocab: 11, context: 12}
run: {batch: 2, clip: 0.0}
levels:
  - {name: inner, every: 4 tokens, objective: loss, rate: 0.1, rule: gd, memories: {fast: {form: 'mlp(hidden=6)'}}}
  - {name: slow, every: 2 steps, objective: loss, rule: 'dgd(lr=0.1)', carry: model,
     memories: {old: {form: 'mlp(hidden=6, bias=true)'}}}
  - {name: train, every: 1 step, objective: loss, rule: 'dgd(lr=0.1, exact=true)', memories: rest}
block: |
  h = linear(rmsnorm(x))
  k = linear(heads(h))
  g = sigmoid(linear(k, out=1))
  x = x + merge(g * k)
  x = old(fast(x))
"""


@pytest.fixture(scope="module")
def program() -> Program:
    return nlc.compile(loads(SPEC))


@pytest.fixture(scope="module")
def module(program: Program) -> types.ModuleType:
    """The generated train.py over the generated model.py."""
    found = types.ModuleType("looked_train")
    kept = sys.modules.get("model")
    sys.modules["model"] = program.module
    try:
        exec(train(program.graph, header=("looked",), digest="0" * 16), found.__dict__)
    finally:
        sys.modules.pop("model") if kept is None else sys.modules.update(model=kept)
    return found


def test_the_module_sums_what_the_interpreter_does_and_a_step_is_the_equation(
    program: Program, module: types.ModuleType
) -> None:
    model = program.model(seed=0, dtype=torch.float64)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
    levels = {level.name: level for level in module.levels(model)}
    torch.manual_seed(0)
    tokens, targets = torch.randint(11, (2, 2, 12)).unbind(0)
    targets[0, 5] = IGNORED
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    right = nlc.interpret(program.graph, model.state_dict(), tokens, targets, looking=True)
    with levels["train"].inputs(targets), levels["slow"].inputs(targets):
        loss, _ = model.loss(tokens, targets)
    loss.backward()
    seen = {}
    for level in levels.values():
        level.put_back([None] * len(level.weights))
        seen |= {w.name: w.gram.clone() for w in level.weights}
    layers = {name for level in levels.values() for name in (w.name for w in level.layers)}
    assert layers == set(right.grams) and "blocks.0.slow.old.W_in" in layers and "blocks.1.g.linear" in layers
    for name, gram in seen.items():
        torch.testing.assert_close(gram, right.grams.get(name, torch.zeros_like(gram)), rtol=1e-10, atol=1e-12)
    assert {name for name in vars(module) if name.startswith("dgd")} == {"dgd", "dgd_slow"}
    levels["train"].update(module.dgd, lr=0.1)
    for w in levels["train"].weights:
        g, W, C = (x if x.dim() > 1 else x[:, None] for x in (right.gradients[w.name], start[w.name], seen[w.name]))
        rate = 0.1 / (1 + 0.1 * C.diagonal(dim1=-2, dim2=-1).sum(-1))[..., None, None]
        eye = torch.eye(C.shape[-1], dtype=torch.float64)
        torch.testing.assert_close(
            w.value.detach().reshape(W.shape), W @ (eye - rate * C) - rate * g, rtol=1e-9, atol=1e-11
        )


def test_a_layer_inside_a_walk_is_refused_where_the_rule_stands() -> None:
    with pytest.raises(SpecError) as caught:
        nlc.build(nlc.load("hope", set={"levels.train.rule": "dgd"}))
    assert {d.code for d in caught.value.diagnostics} == {"NLC1001"}
    assert "looks at the inputs of 'titans.rate.linear'" in caught.value.diagnostics[0].message
