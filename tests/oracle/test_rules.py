"""Every shipped rule equals its equations, inside a sequence and outside, and torch.optim's where torch has it."""

from __future__ import annotations

import re
import types
from typing import Any

import numpy as np
import pytest
import torch
from rule_equations import ORACLES
from torch import Tensor, nn

import nlc
from codegen.rules import rule_view, states
from nlc.diagnostics import Reporter
from nlc.graph import choices
from nlc.graph.declare import Said
from nlc.graph.nodes import Rule
from nlc.interpret.rules import Carried, mentions, run_rule
from nlc.source import Position, place_from
from nlc.spec import loads, rules
from nlc.spec.rulebook import RuleBook, find_rule
from runtime.level import Level, Weights

CALLS = [*rules(), "momentum(nesterov=true)", "m3(ema=true, period=3)", "m3(alpha=0)", "muon(nesterov=false)"]
CALLS += [
    "adamw(weight_decay=0.3)",
    "dgd(exact=true)",
    "ftrl(l1=0.05, l2=0.1)",
    "elastic_net(l1=0.03)",
    "lq(q=4)",
    "adam(betas=(0.5, 0.6))",
]
RATE = 0.05


def made(text: str) -> tuple[Rule, dict[str, Any]]:
    """A rule as a spec calls it, and the parameters given."""
    at = Position("here.yaml", 1, 1)
    said = Said(text, at, place_from(at, text), True)
    rule, _, _ = choices.rule(said, None, {}, lambda p: pytest.fail(p), Reporter(), RuleBook())
    return rule, {p.name: p.number for p in rule.params}


def function(rule: Rule, inside: bool) -> Any:
    """The generated function."""
    view = rule_view(rule, "rule", inside)
    head = "import math\nimport torch\nimport torch.nn.functional as F\nfrom runtime.ops import *\n"
    text = "\n".join([*view.constants, f"def rule({view.arguments}):", *(f"    {line}" for line in view.lines)])
    module = types.ModuleType("made")
    exec(head + text, module.__dict__)
    return module.rule, view


def level_of(model: nn.Module, step: Any, view: Any) -> Level:
    """The level that train.py would make."""
    state = [name for name in view.state if name not in view.own] + ["start"] * view.starts
    own = [step.__globals__[name] for name in view.remembered]
    return Level("train", Weights(model, ("*",)).take("*"), state, view.entrywise, remembered=own)


def oracle(text: str, rows: int, cols: int, steps: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """(gradients, grams, weights after each step) of the equations; the first weight is the start."""
    draw = np.random.default_rng(0)
    _, params = made(text)
    name = re.match(r"\w+", text).group()
    grads = [draw.standard_normal((rows, cols)) for _ in range(steps)]
    inputs = [draw.standard_normal((cols, 3)) * 0.3 for _ in range(steps)]
    grams = [x @ x.T for x in inputs]
    weights, state = [draw.standard_normal((rows, cols))], {}
    for n, (g, gram) in enumerate(zip(grads, grams, strict=True), 1):
        W = weights[-1]
        weights.append(W + ORACLES[name](g, W, weights[0], RATE, n, gram, state, **params))
    return grads, grams, weights


def test_every_shipped_rule_has_an_oracle() -> None:
    assert set(ORACLES) == set(rules())


@pytest.mark.parametrize("text", CALLS)
def test_the_interpreter_is_the_equation(text: str) -> None:
    rule, params = made(text)
    grads, grams, weights = oracle(text, 4, 3, 13)
    weight, carried = torch.tensor(weights[0]), Carried.zero(rule, {"M": torch.tensor(weights[0])})
    for g, gram, expected in zip(grads, grams, weights[1:], strict=True):
        seen = {"grad": torch.tensor(g), "gram": torch.tensor(gram), "weight": weight, **params}
        seen |= {"start": torch.tensor(weights[0]), "lr": torch.tensor(RATE, dtype=torch.float64), "retain": 1.0}
        weight, carried = run_rule(rule, "M", weight, seen, carried.counted())
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("text", [text for text in CALLS if not mentions(made(text)[0], "gram")])
def test_a_level_that_counts_steps_is_the_equation(text: str) -> None:
    """Two matrices of one shape, stacked, each with gradients of its own; those of inputs are test_layer_inputs'."""
    rule, params = made(text)
    step, view = function(rule, inside=False)
    grads, _, weights = oracle(text, 4, 3, 13)
    model = nn.ParameterDict(
        {name: nn.Parameter(torch.tensor(sign * weights[0])) for name, sign in (("a", 1), ("b", 1))}
    )
    level = level_of(model, step, view)
    for g, expected in zip(grads, weights[1:], strict=True):
        for weight in model.values():
            weight.grad = torch.tensor(g)
        level.update(step, lr=RATE, **{name: params[name] for name in view.parameters})
        for weight in model.values():
            np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-10, atol=1e-10)


CELL = """
nlc: 1
name: cell
sizes: {{narrow: 3, wide: 4}}
inputs: {{k: [narrow], v: [wide], q: [narrow]}}
levels:
  - {{name: m, every: {every}, objective: dot, rule: '{rule}', rate: 0.05, read: before,
     memories: {{memory: {{form: matrix, keys: k, values: v, start: learned}}}}}}
block: |
  y = memory(q)
outputs: [y]
"""


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("text", CALLS)
def test_a_memory_inside_a_sequence_is_the_equation(text: str, every: int) -> None:
    """The gradient of `dot` is -v k^T, whatever the state."""
    _, params = made(text)
    layer = nlc.compile(loads(CELL.format(rule=text, every=f"{every} token{'s' * (every > 1)}"))).model(
        seed=0, dtype=torch.float64
    )
    draw = np.random.default_rng(1)
    ks, vs, q = (draw.standard_normal((39, n)) * 0.5 for n in (3, 4, 3))
    start = next(iter(layer.parameters())).detach().numpy()
    W, state, reads, name = start, {}, [], re.match(r"\w+", text).group()
    for t in range(39):
        reads.append(W @ q[t])
        if (t + 1) % every == 0:
            pairs = list(zip(ks[t + 1 - every : t + 1], vs[t + 1 - every : t + 1], strict=True))
            g, gram = -sum(np.outer(v, k) for k, v in pairs), sum(np.outer(k, k) for k, _ in pairs)
            W = W + ORACLES[name](g, W, start, RATE, (t + 1) // every, gram, state, **params)
    y, _ = layer(**{n: torch.tensor(x)[None] for n, x in (("k", ks), ("v", vs), ("q", q))})
    np.testing.assert_allclose(y[0].detach().numpy(), np.stack(reads), rtol=1e-9, atol=1e-10)


# ---- torch.optim -----------------------------------------------------------------------------------------------------

OPTIM: dict[str, Any] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9),
    "momentum(nesterov=true)": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, nesterov=True),
    "gd": lambda p: torch.optim.SGD(p, lr=RATE),
    "adam": lambda p: torch.optim.Adam(p, lr=RATE),
    "adamw(weight_decay=0.3)": lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=RATE),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=RATE),
    "muon(weight_decay=0.1)": lambda p: torch.optim.Muon(p, lr=RATE, weight_decay=0.1),
}


@pytest.mark.parametrize("text", OPTIM)
def test_fifty_steps_are_torchs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32.  torch's Muon orthogonalises in bfloat16; here it is kept from it, to compare what is computed."""
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self)
    torch.manual_seed(0)
    rule, params = made(text)
    step, view = function(rule, inside=False)
    model = nn.ParameterDict({"w": nn.Parameter(torch.randn(6, 4))})
    theirs = nn.Parameter(model["w"].detach().clone())
    level = level_of(model, step, view)
    optimiser = OPTIM[text]([theirs])
    for _ in range(50):
        gradient = torch.randn(6, 4)
        model["w"].grad, theirs.grad = gradient.clone(), gradient.clone()
        level.update(step, lr=RATE, **{name: params[name] for name in view.parameters})
        optimiser.step()
    torch.testing.assert_close(model["w"].detach(), theirs.detach(), rtol=1e-6, atol=1e-6)


# ---- single claims ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (24, 6), (5, 40)])
def test_muon_brings_singular_values_near_1(shape: tuple[int, int]) -> None:
    """Of gradients whose singular values all exceed 0.002 of their Frobenius norm."""
    torch.manual_seed(0)
    step, _ = function(made("muon(beta=0)")[0], inside=False)
    U, _, V = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    for low in (0.003, 0.05, 1.0):
        G = U @ torch.diag(torch.logspace(np.log10(low), 0, min(shape), dtype=torch.float64)) @ V
        assert torch.linalg.svdvals(G).min() > 0.002 * G.norm()
        delta, _ = step(grad=G, weight=0 * G, lr=1.0, state={"m": 0 * G}, beta=0.0, ns_steps=5, weight_decay=0.0)
        values = torch.linalg.svdvals(delta) / max(1.0, shape[0] / shape[1]) ** 0.5
        assert values.min() >= 0.65 and values.max() <= 1.25


@pytest.mark.parametrize("ema", [False, True])
def test_m3_falls_at_its_own_rate(ema: bool) -> None:
    """The mean squared error of W x, where x has entries that are always 0: what has no gradient does not run away."""
    rule = find_rule("m3")
    assert rule is not None
    numbers: dict[str, Any] = {**rule.params, "ema": ema}
    rng, lr, state = np.random.default_rng(0), numbers.pop("lr"), {}
    x = rng.standard_normal((16, 256)) * (np.arange(16) < 12)[:, None]
    W, y = np.zeros((8, 16)), 0.3 * rng.standard_normal((8, 16)) @ x
    losses = []
    for n in range(1, 101):
        error = W @ x - y
        losses.append((error**2).mean() / 2)
        W = W + ORACLES["m3"](error @ x.T / error.size, W, W, lr, n, None, state, **numbers)
    assert max(losses) == losses[0] and losses[-1] < 0.4 * losses[0]
    assert np.linalg.norm(W) < 5


def test_m3_without_alpha_is_its_fast_path() -> None:
    *_, weights = oracle("m3(alpha=0, period=3)", 4, 3, 13)
    *_, fast = oracle("m3(alpha=0, period=1000)", 4, 3, 13)
    np.testing.assert_array_equal(weights[-1], fast[-1])
    assert states(made("m3")[0]) == ("m1", "v2", "m2", "o2", "level2_grad")
