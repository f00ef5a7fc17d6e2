"""The equations of the reference, written again in NumPy, judge every way of running a spec.

    ran = backend.run(text, inputs=..., weights=...)        a bare program
    ran = backend.run(text, tokens=..., targets=...)        a language model
    ran.agrees(oracle)                                      outputs and all gradients

An oracle is a function of arrays to arrays.  Its derivative along a direction is taken by a complex step, the imaginary
part of f(x + i h d) / h, exact to rounding; so an oracle uses analytic functions, and `np.real` marks what is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nlc
from nlc.graph.graph import Graph
from nlc.graph.nodes import Weight
from nlc.spec import loads

BACKENDS = ["interpreter", "compiled"]
TOLERANCE = 1e-10  # float64, some hundred operations in a row
STEP = 1e-30

Arrays = dict[str, np.ndarray]
Oracle = Callable[[Arrays, Arrays], Arrays]  # inputs, weights -> outputs


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


@dataclass
class Ran:
    """One run: what went in, what came out, and d sum(output * cotangent) / d everything that went in."""

    graph: Graph
    inputs: Arrays
    weights: Arrays
    outputs: Arrays
    state: dict[str, Arrays]
    cotangents: Arrays
    gradients: Arrays  # by weight
    input_gradients: Arrays
    raw_state: Any = None  # as the next call takes it
    fires: dict[str, list[list[int]]] = field(default_factory=dict)

    def agrees(self, oracle: Oracle) -> None:
        """Outputs equal the oracle's; so do derivatives along random directions of one input or weight at a time."""
        expected = oracle(self.inputs, self.weights)
        for name, y in expected.items():
            assert relative(self.outputs[name], y) < TOLERANCE, name
        rng = np.random.default_rng(7)
        groups: tuple[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], ...] = (
            (self.inputs, self.input_gradients),
            (self.weights, self.gradients),
        )
        scale = max((np.linalg.norm(g) for _, grads in groups for g in grads.values()), default=0.0)
        for which, (values, grads) in enumerate(groups):
            for name, value in values.items():
                direction = rng.standard_normal(value.shape)
                moved = {**values, name: value + 1j * STEP * direction}
                out = oracle(moved, self.weights) if which == 0 else oracle(self.inputs, moved)
                along = sum((np.imag(y) * self.cotangents[n]).sum() for n, y in out.items()) / STEP
                found = (grads[name] * direction).sum()
                assert abs(found - along) <= 10 * TOLERANCE * max(abs(along), scale), f"{name}: {found}, not {along}"


def shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Every weight's name in a state dict, and its shape."""
    found = {}
    for weight in graph.of(Weight):
        layers = [i for i, kind in enumerate(graph.stack) if kind == weight.block]
        for name in [f"blocks.{i}.{weight.path}" for i in layers] if weight.block else [weight.path]:
            found[name] = weight.shape
    return found


def random_weights(graph: Graph, seed: int) -> Arrays:
    """Starts of a size that keeps memories lively and stable."""
    rng = np.random.default_rng(seed)
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in sorted(shapes(graph).items())}


@dataclass
class Backend:
    name: str
    folder: Path

    def run(
        self,
        text: str,
        inputs: Arrays | None = None,
        weights: Arrays | None = None,
        tokens: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        seed: int = 0,
        **more: Any,
    ) -> Ran:
        spec = loads(text)
        graph = nlc.build(spec)
        weights = random_weights(graph, seed) | (weights or {})
        torch_weights = {name: torch.tensor(x, requires_grad=True) for name, x in weights.items()}
        torch_inputs = {name: torch.tensor(x, requires_grad=True) for name, x in (inputs or {}).items()}
        if self.name == "interpreter":
            outputs, state, fires = self.interpret(graph, torch_weights, torch_inputs, tokens, targets, more)
        else:
            run = self.compiled(spec, torch_weights, torch_inputs, tokens, targets, more)
            outputs, state, fires, torch_weights = run
        rng = np.random.default_rng(seed + 1)
        cotangents = {name: rng.standard_normal(tuple(y.shape)) for name, y in outputs.items()}
        scalar = sum((y * torch.tensor(cotangents[name])).sum() for name, y in outputs.items())
        leaves = [*torch_weights.values(), *torch_inputs.values()]
        grads = torch.autograd.grad(scalar, leaves, allow_unused=True)
        found = [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(leaves, grads, strict=True)]
        n = len(torch_weights)
        return Ran(
            graph=graph,
            inputs=inputs or {},
            weights=weights,
            outputs={name: y.detach().numpy() for name, y in outputs.items()},
            state={place: {k: x.detach().numpy() for k, x in parts.items()} for place, parts in state.items()},
            cotangents=cotangents,
            gradients=dict(zip(torch_weights, found[:n], strict=True)),
            input_gradients=dict(zip(torch_inputs, found[n:], strict=True)),
            raw_state={p: {k: x.detach() for k, x in parts.items()} for p, parts in state.items()},
            fires=fires,
        )

    def interpret(self, graph: Graph, weights: Any, inputs: Any, tokens: Any, targets: Any, more: Any) -> Any:
        if graph.bare:
            result = nlc.interpret(graph, weights, inputs=inputs, **more)
            return result.outputs, result.state, result.fires
        result = nlc.interpret(graph, weights, torch.tensor(tokens), torch.tensor(targets), **more)
        return {"nats": result.nats}, result.state, result.fires

    def compiled(self, spec: Any, weights: Any, inputs: Any, tokens: Any, targets: Any, more: Any) -> Any:
        model = nlc.compile(spec, out=self.folder / "built").model(dtype=torch.float64)
        model.load_state_dict({name: x.detach() for name, x in weights.items()})
        parameters = dict(model.named_parameters())
        if inputs:
            outputs, state = model(**inputs, **more)
            named = outputs if isinstance(outputs, tuple) else (outputs,)
            return dict(zip(spec.model.outputs, named, strict=True)), state, {}, parameters
        nats, state = model.nats(torch.tensor(tokens), torch.tensor(targets), **more)
        return {"nats": nats}, state, {}, parameters


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(request.param, tmp_path)
