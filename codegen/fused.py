"""Operators that a kernel of the target computes together, as one call."""

from __future__ import annotations

from codegen.expressions import Scope
from codegen.places import place_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Fused, Op


def by_value(graph: Graph, block: str) -> dict[str, Fused]:
    """What a kernel computes in a block, by the value it gives."""
    return {f.members[-1]: f for f in graph.of(Fused, block) if f.kernel}


def convolution_call(scope: Scope, fused: Fused) -> str:
    """convolution(x, taps, history, act="silu", heads=4, norm="rmsnorm", gain=...)."""
    graph = scope.graph
    conv, *rest = (graph[m] for m in fused.members)
    x = scope.spread(conv.inputs[0]) if scope.tokenless(conv.inputs[0]) else scope.text(conv.inputs[0])
    arguments = [x, scope.weight(graph[conv.weights[0]].path), f's["{place_of(graph, conv)}"]["past"]']
    for op in rest:
        match op.op:
            case "silu":
                arguments.append('act="silu"')
            case "heads":
                arguments.append(f"heads={dict(op.options)['n']}")
            case norm:
                arguments.append(f'norm="{norm}"')
        arguments += [f"gain={scope.weight(graph[w].path)}" for w in op.weights]
    scope.runtime.add("convolution")
    return f"convolution({', '.join(arguments)})"


def gated_norm_text(scope: Scope, fused: Fused) -> str:
    """gated_norm(x, gain, z, "silu"), of heads that are merged afterwards where the norm is of each."""
    graph = scope.graph
    ops: dict[str, Op] = {graph[m].op: graph[m] for m in fused.members[:-1]}
    norm = ops["rmsnorm"]
    gate = next(op for name, op in ops.items() if name not in ("rmsnorm", "merge"))
    x, z = scope.text(norm.inputs[0]), scope.text(gate.inputs[0])
    gain = scope.weight(graph[norm.weights[0]].path)
    scope.runtime.add("gated_norm")
    if "merge" not in ops:
        return f'gated_norm({x}, {gain}, {z}, "{gate.op}")'
    scope.runtime |= {"heads", "merge"}
    return f'merge(gated_norm({x}, {gain}, heads({z}, {(norm.shape or (0,))[0]}), "{gate.op}"))'
