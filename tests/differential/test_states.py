"""A state is the same thing to the interpreter and to the compiled model: either goes on from what the other left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codegen.model import argument
from nlc.compile import Program
from nlc.graph.nodes import Output
from nlc.interpret import interpret
from nlc.verify.cases import Case
from nlc.verify.judge import FLOAT64, compare
from tests.differential.machine import SPECS, Run, case_of, compiled

NAMES = sorted(p.stem for p in SPECS.glob("*.yaml"))
CUT, LENGTH = 6, 11

Step = tuple[dict[str, Tensor], Any]


def reference(program: Program, model: nn.Module, case: Case, a: int, b: int, state: Any) -> Step:
    weights = model.state_dict()
    if program.graph.bare:
        inputs = {name: x[:, a:b] for name, x in case.inputs.items()}
        result = interpret(program.graph, weights, inputs=inputs, state=state, gradients=False)
        return result.outputs, result.state
    result = interpret(program.graph, weights, case.tokens[:, a:b], case.targets[:, a:b], state=state, gradients=False)
    assert result.nats is not None
    return {"nats": result.nats}, result.state


@torch.no_grad()
def generated(program: Program, model: nn.Module, case: Case, a: int, b: int, state: Any) -> Step:
    if not program.graph.bare:
        nats, state = model.nats(case.tokens[:, a:b], case.targets[:, a:b], state=state)
        return {"nats": nats}, state
    out, state = model(**{argument(name): x[:, a:b] for name, x in case.inputs.items()}, state=state)
    names = [o.name for o in program.graph.of(Output)]
    return dict(zip(names, out if isinstance(out, tuple) else (out,), strict=True)), state


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_on_from_the_others_state(name: str) -> None:
    program, model = compiled(SPECS / f"{name}.yaml")
    case = case_of(program, LENGTH, batch=1, seed=5)
    _, state = reference(program, model, case, 0, CUT, None)
    right, after = reference(program, model, case, CUT, LENGTH, state)
    expected = Run(right.get("nats"), right, after, {})
    for first, second in ((reference, generated), (generated, reference)):
        _, state = first(program, model, case, 0, CUT, None)
        found, state = second(program, model, case, CUT, LENGTH, state)
        outcome = compare(name, "", Run(found.get("nats"), found, state, {}), expected, FLOAT64)  # type: ignore[arg-type]
        assert outcome.passed, f"{first.__name__} first: {outcome.error:.1e} at {outcome.where}"
