"""One small program, every way of running it: the interpreter against the compiled model.

program, model = compiled(path)
case = case_of(program, length, batch)                       what goes in
reference(program, model, case, pieces)                      the interpreter, fed in these pieces
generated(program, model, case, pieces)                      the compiled model, likewise
assert_agree(...)                                            outputs, states, every gradient, to 1e-9 in float64
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codegen.model import argument
from nlc.compile import Program, compile
from nlc.graph.nodes import Output
from nlc.interpret import interpret
from nlc.verify.cases import Case, vectors
from nlc.verify.judge import FLOAT64, compare, cotangents, perturbed

SPECS = Path(__file__).parents[1] / "specs"
IGNORED = -100
Learn = bool | Collection[str] | tuple[bool, ...]  # a tuple: for each piece
Tensors = dict[str, Tensor]


@dataclass
class Run:
    """What a way of running gave.

    Gradients are of the mean loss, or of outputs times fixed cotangents, by weights and inputs.
    """

    nats: Tensor | None
    outputs: Tensors
    state: Mapping[str, Mapping[str, Tensor]]
    gradients: Tensors


def compiled(path: Path, seed: int = 0) -> tuple[Program, nn.Module]:
    """The program, and a model whose weights are off their special starts."""
    program = compile(path)
    return program, perturbed(program.model(seed=seed, dtype=torch.float64), seed)


def case_of(program: Program, length: int, batch: int, seed: int = 0) -> Case:
    """Random tokens with an ignored target; or a bare program's random inputs."""
    draw = torch.Generator().manual_seed(seed)
    if not program.graph.bare:
        fed = torch.randint(program.graph.sizes["vocab"], (batch, length + 1), generator=draw)
        targets = fed[:, 1:].clone()
        targets[0, length // 3] = IGNORED
        return Case(f"length {length}, batch {batch}", fed[:, :-1], targets)
    inputs = vectors(program.graph, batch, length, draw)
    none = torch.zeros(batch, length, dtype=torch.long)
    return Case(f"length {length}, batch {batch}", none, none, inputs=inputs)


def reference(program: Program, model: nn.Module, case: Case, pieces: tuple[int, ...], learn: Learn = True) -> Run:
    """The meaning: one token at a time, float64."""

    def call(weights: Tensors, given: Tensors, state: Any, learn: Any) -> tuple[Tensors, Any]:
        if program.graph.bare:
            result = interpret(program.graph, weights, inputs=given, state=state, learn=learn)
            return result.outputs, result.state
        result = interpret(program.graph, weights, state=state, learn=learn, **given)
        assert result.nats is not None
        return {"nats": result.nats}, result.state

    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    return _run(program, weights, case, pieces, call, learn)


def generated(program: Program, model: nn.Module, case: Case, pieces: tuple[int, ...], learn: Learn = True) -> Run:
    """The compiled model."""

    def call(weights: Tensors, given: Tensors, state: Any, learn: Any) -> tuple[Tensors, Any]:
        if not program.graph.bare:
            nats, state = model.nats(**given, state=state, learn=learn)
            return {"nats": nats}, state
        out, state = model(**{argument(name): x for name, x in given.items()}, state=state, learn=learn)
        names = [o.name for o in program.graph.of(Output)]
        return dict(zip(names, out if isinstance(out, tuple) else (out,), strict=True)), state

    return _run(program, dict(model.named_parameters()), case, pieces, call, learn)


def _run(
    program: Program,
    weights: Tensors,
    case: Case,
    pieces: tuple[int, ...],
    call: Callable[[Tensors, Tensors, Any, Any], tuple[Tensors, Any]],
    learn: Learn,
) -> Run:
    """Feed the pieces one after the other, the state handed on; then differentiate."""
    inputs = {name: x.clone().requires_grad_() for name, x in case.inputs.items()}
    tokens = {"tokens": case.tokens, "targets": case.targets, "starts": case.starts, "mask": case.mask}
    given = inputs or {name: x for name, x in tokens.items() if x is not None}
    state, at, parts = None, 0, []
    learns = learn if isinstance(learn, tuple) else (learn,) * len(pieces)
    for n, each in zip(pieces, learns, strict=True):
        found, state = call(weights, {name: x[:, at : at + n] for name, x in given.items()}, state, each)
        parts.append(found)
        at += n
    outputs = {name: torch.cat([p[name] for p in parts], 1) for name in parts[0]}
    if program.graph.bare:
        by = cotangents(program, outputs)
        scalar = torch.stack([(y * by[name]).sum() for name, y in outputs.items()]).sum()
    else:
        taught = case.targets != IGNORED if case.mask is None else (case.targets != IGNORED) & case.mask
        scalar = outputs["nats"].sum() / taught.sum()
    leaves = weights | {f"input {name}": x for name, x in inputs.items()}
    gradients = {name: torch.zeros_like(x) for name, x in leaves.items()}
    if scalar.requires_grad:
        wanted = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True)
        gradients |= {name: g for name, g in zip(leaves, wanted, strict=True) if g is not None}
    outputs = {name: y.detach() for name, y in outputs.items()}
    return Run(outputs.get("nats"), outputs, state, gradients)


def assert_agree(what: str, mine: Run, right: Run) -> None:
    outcome = compare(what, "float64", mine, right, FLOAT64)  # type: ignore[arg-type]
    assert outcome.passed, f"{what}: relative error {outcome.error:.1e} at {outcome.where}"
