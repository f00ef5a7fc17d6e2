"""Pass place: which recurrences a kernel computes on the target, and why the others are left to PyTorch.

Needs        share.
Establishes  on every Recurrence, for the target cuda, `kernel` (empty: PyTorch) and `placed`, the reason; a Fused for
             every convolution and every gated norm, with the same.  The cpu has no kernels: nothing changes.
Refuses      nothing.
"""

from __future__ import annotations

from dataclasses import replace

from nlc.graph.flow import self_query
from nlc.graph.fusion import fusions
from nlc.graph.gates import Gate, Gates, Unknown, gates_of
from nlc.graph.graph import Graph
from nlc.graph.linearity import linear
from nlc.graph.nodes import Memory, Meta, Recurrence
from nlc.target import Target

CHUNKS = (16, 32, 64)  # tokens of a chunk that the kernels are written for
HEADS = (16, 128)  # narrowest and widest head


def place(graph: Graph, target: Target = Target.CPU) -> Graph:
    """Choose a kernel for each recurrence, and find the operators that one computes together."""
    if target is Target.CPU:
        return graph
    return graph.with_nodes([*(_placed(graph, r) for r in graph.of(Recurrence)), *fusions(graph)])


def _placed(graph: Graph, recurrence: Recurrence) -> Recurrence:
    try:
        match recurrence.lowering:
            case "shared_product":
                return _shared_product(graph, recurrence)
            case "linear":
                return _linear_memory(graph, recurrence)
    except Unknown as unknown:
        return replace(recurrence, placed=f"PyTorch: {unknown}")
    return replace(recurrence, placed=f"PyTorch: '{recurrence.lowering}' has no kernel")


def _shared_product(graph: Graph, recurrence: Recurrence) -> Recurrence:
    gates, memory = gates_of(graph, recurrence), graph[recurrence.members[0]]
    _sizes(memory.chunk, memory.inner)
    return replace(recurrence, kernel="shared_product", placed=f"a kernel: {_said(gates)}")


def _linear_memory(graph: Graph, recurrence: Recurrence) -> Recurrence:
    memory: Memory = graph[recurrence.members[0]]
    shape = linear(memory.rule)
    if shape is None or shape.state:
        raise Unknown("the rule has momentum")
    if memory.objective.kind not in ("dot", "l2") or memory.window > 1:
        raise Unknown("the gradient is not affine in the state, or over more than one pair")
    if self_query(graph, memory):
        raise Unknown("the memory makes its own values")
    if memory.meta is not Meta.FULL:
        raise Unknown(f"meta is {memory.meta.value}")
    if any(r.lowering == "segment" for r in graph.of(Recurrence)):
        raise Unknown("a level learns from each token's own error")
    _sizes(recurrence.block_length, memory.inner, memory.outer)
    said = f"chunks of {recurrence.block_length} tokens at once, then the state from chunk to chunk"
    return replace(recurrence, kernel="linear_memory", placed=f"a kernel: {said}")


def _sizes(chunk: int, *widths: int) -> None:
    """Raises Unknown where a kernel cannot take a memory of these sizes."""
    if chunk not in CHUNKS:
        raise Unknown(f"chunks of {chunk}, expected {', '.join(map(str, CHUNKS))} tokens")
    for width in widths:
        if not HEADS[0] <= width <= HEADS[1]:
            raise Unknown(f"heads of width {width}, expected {HEADS[0]} to {HEADS[1]}")


def _said(gates: Gates) -> str:
    over = " over its norm" if gates.unit_value else ""
    parts = [f"the key is a read of {gates.key} over its norm", f"the value one of {gates.value}{over}"]
    parts += [_gate("rate", gates.rate), _gate("retention", gates.keep)]
    return ", ".join(p for p in parts if p)


def _gate(name: str, gate: Gate) -> str:
    if gate.form in ("given", "none"):
        return f"the {name} is known before the loop" if gate.form == "given" else ""
    return f"the {name} is a {gate.form} of a row of {gate.box}"
