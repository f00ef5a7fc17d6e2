"""Every small spec under tests/specs means the same interpreted and compiled, however it is fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codegen.places import place_of
from nlc.compile import compile
from nlc.graph.nodes import Carry, Memory, Meta
from nlc.interpret import interpret
from nlc.spec import load, loads
from nlc.verify.judge import cut_matters, perturbed
from tests.differential.machine import IGNORED, SPECS, assert_agree, case_of, compiled, generated, reference

LENGTH = 17
PIECES = (1, 6, 3, 7)
NAMES = sorted(p.stem for p in SPECS.glob("*.yaml"))
TOKENS = [n for n in NAMES if "inputs:" not in (SPECS / f"{n}.yaml").read_text()]


def path(name: str) -> Path:
    return SPECS / f"{name}.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_whole_and_streamed(name: str) -> None:
    program, model = compiled(path(name))
    case = case_of(program, LENGTH, batch=2 if program.graph.bare else 1)
    right = reference(program, model, case, (LENGTH,))
    assert_agree("whole", generated(program, model, case, (LENGTH,)), right)
    again = reference(program, model, case, PIECES) if cut_matters(program) else right
    assert_agree("in pieces", generated(program, model, case, PIECES), again)
    constant = any(m.meta is Meta.NONE for m in program.graph.of(Memory))
    dead = [name for name, g in right.gradients.items() if not g.any()]
    assert not dead or constant, f"{dead[0]} gets no gradient: the case shows nothing of it"


@pytest.mark.parametrize("name", TOKENS)
def test_borders_and_padding(name: str) -> None:
    program, model = compiled(path(name))
    T = 10
    starts, mask = torch.zeros(2, T, dtype=torch.bool), torch.ones(2, T, dtype=torch.bool)
    mask[0, 8:] = mask[1, 3:5] = False
    starts[:, 0] = starts[0, 6] = starts[1, 5] = True
    case = replace(case_of(program, T, batch=2, seed=1), starts=starts, mask=mask)
    for pieces in ((T,), (4, 6)):
        right = reference(program, model, case, pieces)
        assert_agree(f"pieces {pieces}", generated(program, model, case, pieces), right)


@pytest.mark.parametrize("name", NAMES)
def test_learning_off_and_by_level(name: str) -> None:
    program, model = compiled(path(name))
    case = case_of(program, 9, batch=1, seed=2)
    some = [[level] for level in model.writing] if len(model.writing) > 1 else []
    for learn in (False, *some):
        right = reference(program, model, case, (4, 5), learn)
        assert_agree(f"learn={learn}", generated(program, model, case, (4, 5), learn), right)
    case, pieces, learns = case_of(program, 13, batch=1, seed=2), (5, 4, 4), (True, False, True)
    right = reference(program, model, case, pieces, learns)
    assert_agree("on, off and on again", generated(program, model, case, pieces, learns), right)


@pytest.mark.parametrize("name", TOKENS)
def test_final_leaves_the_loss_and_its_gradients(name: str) -> None:
    program, model = compiled(path(name))
    case = case_of(program, LENGTH, batch=2)
    found = []
    for final in (False, True):
        model.zero_grad()
        loss, _ = model.loss(case.tokens, case.targets, final=final)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TOKENS)
def test_fed_tokens_are_observed(name: str) -> None:
    """model(tokens, state): each token is the target of the one before, the last waits in the state."""
    program, model = compiled(path(name))
    tokens = case_of(program, 9, batch=1, seed=3).tokens
    weights, mine, right = model.state_dict(), None, None
    for a, b in ((0, 3), (3, 4), (4, 9)):
        with torch.no_grad():
            logits, mine = model(tokens[:, a:b], state=mine)
        result = interpret(program.graph, weights, tokens[:, a:b], state=right, gradients=False)
        right = result.state
        assert result.logits is not None
        torch.testing.assert_close(logits, result.logits, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["clocks_apart", "kinds_apart", "loss_constant_query"])
def test_a_level_has_fired_at_each_tick_of_any_of_its_memories(name: str) -> None:
    """Over calls, of which the third begins a document: a lane's clock goes on, a flushed memory's begins anew."""
    program, model = compiled(path(name))
    case, fires, at = case_of(program, 16, batch=1), dict.fromkeys(model.writing, 0), 0
    mine = right = None
    for n, begins in ((4, False), (3, False), (5, True), (4, False)):
        fed = case.tokens[:, at : at + n], case.targets[:, at : at + n]
        starts = torch.zeros(1, n, dtype=torch.bool)
        starts[0, 0] = begins
        before = {c: int(x[0]) for c, x in right["clock"].items()} if right else {"sequence": 0, "stream": 0}
        before["sequence"] *= not begins
        result = interpret(program.graph, model.state_dict(), *fed, state=right, starts=starts, gradients=False)
        _, mine = model.nats(*fed, state=mine, starts=starts)
        right, at = result.state, at + n
        for level in program.graph.levels:
            ticks = {
                tick - before["stream" if program.graph[m].carry is Carry.STREAM else "sequence"]
                for m in level.memories
                for place, (row,) in result.fires.items()
                if place_of(program.graph, program.graph[m]) == place.split(".", 2)[2]
                and program.graph.stack[int(place.split(".")[1])] == program.graph[m].block
                for tick in row
            }
            if level.name in fires:
                fires[level.name] += len(ticks)
        assert model.fires == fires


def test_a_first_error_of_zero_has_finite_gradients() -> None:
    """A rule whose square root is of what no gradient has reached: the first target teaches nothing."""
    program = compile(load(path("loss_adamw"), {"levels.cms.every": "1 token"}))
    model = perturbed(program.model(seed=0, dtype=torch.float64), 0)
    case = case_of(program, 2, batch=1)
    assert int(case.targets[0, 0]) == IGNORED
    right = reference(program, model, case, (2,))
    assert all(g.isfinite().all() for g in right.gradients.values())
    for pieces in ((2,), (1, 1)):
        assert_agree(f"pieces {pieces}", generated(program, model, case, pieces), right)


def test_weights_called_training_leave_a_model_to_be_evaluated() -> None:
    """`model.eval()` sets a flag of that name in every module."""
    text = """nlc: 1
name: n
sizes: {width: 4}
inputs: {x: [width]}
block: |
  training = linear(x)
  y = training + x
outputs: [y]
"""
    model = compile_text(text)
    assert not model.eval().training
    assert model.train().training


def test_a_number_called_as_the_loop_over_pieces_counts_is_itself() -> None:
    text = """nlc: 1
name: walked
sizes: {width: 4}
inputs: {x: [width]}
block: |
  b = norm(index(3), 1)
  h = tanh(linear(x) + prev(h))
  y = h * b
outputs: [y]
"""
    y, _ = compile_text(text)(x=torch.ones(1, 3, 4))
    assert float(y.detach().abs().max()) > 1


def compile_text(text: str) -> torch.nn.Module:
    return compile(loads(text)).model()
