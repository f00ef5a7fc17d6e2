"""A program whose steps torch's compiler computes: outputs and gradients, as a training step makes them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from codegen.model import argument
from nlc.compile import Program
from nlc.graph.nodes import Output
from nlc.verify.cases import Case
from runtime.compiled import Compiled

OPERATIONS = 400  # that are compiled, those that are there most often; the others are recorded and run again


def computed(
    program: Program, model: nn.Module, case: Case, scalar: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and the gradient of every weight, by a step that was compiled for other tokens of the same shape.

    scalar: of outputs, what gradients are of.  Raises RuntimeError where a step is not recorded or nothing compiled.
    """
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    graph = program.graph
    names = [output.name for output in graph.of(Output)] if graph.bare else ["nats"]

    def function(given: list[Tensor]) -> list[Tensor | None]:
        if graph.bare:
            found, _ = model(**dict(zip(map(argument, case.inputs), given, strict=True)), state=None, final=True)
            outputs = found if isinstance(found, tuple) else (found,)
        else:
            outputs = (cast(Any, model).nats(*given, final=True)[0],)
        end = scalar(dict(zip(names, outputs, strict=True)))
        gradients = torch.autograd.grad(end, list(weights.values()), allow_unused=True)
        return [*(y.detach() for y in outputs), *gradients]

    recordings = Compiled(refused, most=OPERATIONS)
    dtype = next((p.dtype for p in model.parameters()), torch.float64)
    given = [x.to(dtype) for x in case.inputs.values()] if graph.bare else [case.tokens, case.targets]
    recordings.run(cast(Any, model), "other tokens", function, [x.flip(1) for x in given])
    if not recordings.compiler.made:
        raise RuntimeError("nothing of its step was compiled")
    made = recordings.run(cast(Any, model), "other tokens", function, given)
    outputs = {name: cast(Tensor, y) for name, y in zip(names, made, strict=False)}
    found = {name: torch.zeros_like(p) if g is None else g
             for (name, p), g in zip(weights.items(), made[len(names) :], strict=True)}  # fmt: skip
    frozen = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name not in weights}
    return outputs, found | frozen


def refused(line: str) -> None:
    raise RuntimeError(line)
