"""Pass place: which recurrences a kernel computes on the target, and why the others are left to PyTorch.

Needs        share.
Establishes  on every Recurrence, for the target cuda, `kernel` (empty: PyTorch) and `placed`, the reason.  The cpu has
             no kernels: nothing changes.
Refuses      nothing.
"""

from __future__ import annotations

from dataclasses import replace

from nlc.graph.gates import Gate, Gates, Unknown, gates_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Recurrence
from nlc.target import Target

CHUNKS = (16, 32, 64)  # tokens of a chunk that the kernels are written for
HEADS = (16, 128)  # narrowest and widest head


def place(graph: Graph, target: Target = Target.CPU) -> Graph:
    """Choose a kernel for each recurrence."""
    if target is Target.CPU:
        return graph
    return graph.with_nodes([_placed(graph, r) for r in graph.of(Recurrence)])


def _placed(graph: Graph, recurrence: Recurrence) -> Recurrence:
    if recurrence.lowering != "shared_product":
        return replace(recurrence, placed=f"PyTorch: '{recurrence.lowering}' has no kernel")
    try:
        gates = gates_of(graph, recurrence)
    except Unknown as unknown:
        return replace(recurrence, placed=f"PyTorch: {unknown}")
    against = _sizes(graph[recurrence.members[0]])
    if against:
        return replace(recurrence, placed=f"PyTorch: {against}")
    return replace(recurrence, kernel="shared_product", placed=f"a kernel: {_said(gates)}")


def _sizes(memory: Memory) -> str:
    """Why a kernel cannot take a memory of these sizes; "" where it can."""
    if memory.chunk not in CHUNKS:
        return f"chunks of {memory.chunk}, expected {', '.join(map(str, CHUNKS))} tokens"
    if not HEADS[0] <= memory.inner <= HEADS[1]:
        return f"heads of width {memory.inner}, expected {HEADS[0]} to {HEADS[1]}"
    return ""


def _said(gates: Gates) -> str:
    over = " over its norm" if gates.unit_value else ""
    parts = [f"the key is a read of {gates.key} over its norm", f"the value one of {gates.value}{over}"]
    parts += [_gate("rate", gates.rate), _gate("retention", gates.keep)]
    return ", ".join(p for p in parts if p)


def _gate(name: str, gate: Gate) -> str:
    if gate.form in ("given", "none"):
        return f"the {name} is known before the loop" if gate.form == "given" else ""
    return f"the {name} is a {gate.form} of a row of {gate.box}"
