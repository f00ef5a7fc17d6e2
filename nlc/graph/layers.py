"""Which weights multiply a layer's input x, so that a rule of the weights may look at the sum of x x^T over it.

    layers(graph) -> {id of a weight: where its inputs are hidden, "" where they are seen}

The weights of `linear`, the head's, and the matrices of memories that no token writes.  What is multiplied inside a
walk over chunks is not seen as it goes by.
"""

from __future__ import annotations

from nlc.graph.graph import Graph
from nlc.graph.memories import is_vector
from nlc.graph.nodes import Memory, Op, Recurrence


def layers(graph: Graph) -> dict[str, str]:
    """Needs pass chunks."""
    walks = {id: walk for walk in graph.of(Recurrence) for id in walk.inside}
    found: dict[str, str] = {}
    for op in graph.of(Op):
        if op.op == "linear":
            walk = walks.get(op.id)
            names = "" if walk is None else ", ".join(graph[m].name for m in walk.members)
            found[op.weights[0]] = found.get(op.weights[0], "") or names
    for walk in graph.of(Recurrence):
        for memory in (graph[m] for m in walk.members if walk.lowering == "weights"):
            found |= dict.fromkeys(matrices(graph, memory), "")
    if not graph.bare:
        found["frame:embedding" if graph.tied else "frame:linear"] = ""
    return found


def matrices(graph: Graph, memory: Memory) -> list[str]:
    """The weights of a memory that multiply: not biases, nor a vector's."""
    if memory.form.kind in ("vector", "attention"):
        return []
    named = zip(memory.parts, memory.weights, strict=False)
    return [id for (name, _), id in named if not is_vector(memory.form, name)]
