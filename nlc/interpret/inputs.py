"""What layers multiply: x x^T of each weight's input at one token, for rules of the levels that count steps.

The weights of `linear`, the head's, and the matrices of memories that no token writes; a weight used twice has both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nlc.graph.nodes import Memory, Op
from nlc.interpret.operators import outer, rmsnorm
from nlc.interpret.token import Layer, attends, writes


@torch.no_grad()
def grams(layers: list[Layer], leaving: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """(name of a weight, x x^T), once for each use.  `leaving`: what leaves the last block of a language model."""
    for layer in layers:
        graph = layer.program.graph
        for op in graph.of(Op, layer.kind):
            if op.op == "linear" and op.id in layer.values:
                x = layer.value(op.inputs[0])
                yield layer.program.name(layer.layer, op.weights[0]), outer(x, x)
        for memory in graph.of(Memory, layer.kind):
            if writes(memory) or attends(memory):
                continue
            names = dict(zip((name for name, _ in memory.parts), memory.weights, strict=False))
            for inputs in layer.layer_inputs.get(memory.id, []):
                for part, x in inputs.items():
                    yield layer.program.name(layer.layer, names[part]), outer(x, x)
    if leaving is not None:
        program = layers[0].program
        x = rmsnorm(leaving) * program.weights["rmsnorm"]
        yield "embedding" if program.graph.tied else "linear", outer(x, x)
