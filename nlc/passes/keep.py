"""Pass keep: which states of slower memories stay for the backward pass, and which it makes again.

Needs        cost.
Establishes  `kept` on every Recurrence that is written once in several tokens; adds what is kept to the activations.
Refuses      nothing: where not even the rest fits into the budget, all is made again.

A memory written once in n tokens leaves, for every period of every sequence, its new state, the sum of its gradients
and what its rule remembers.  To make these again a period is gathered and written once more, for which the work of a
token is the same whatever n, so that a byte saves the more the longer the period: the slowest memories are kept first,
while they fit into `run.memory`, beside weights, their gradients and optimiser states, and the activations of a step.
"""

from __future__ import annotations

from dataclasses import replace

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Meta, Recurrence, Unit
from nlc.passes.cost import BYTES, memory_size

LOWERINGS = ("segment", "periodic")


def keep(graph: Graph) -> Graph:
    """The slowest first, while they fit."""
    cost, context, batch = graph.cost, graph.sizes.get("context", 0), graph.run.batch
    if cost is None or not context:
        return graph
    left = graph.run.memory - _always(graph) - batch * (cost.state_bytes + context * cost.activation_bytes)
    found, more = [], 0
    for recurrence in sorted(graph.of(Recurrence), key=lambda r: -written_every(graph, r)):
        if not written_every(graph, recurrence):
            continue
        taken = batch * _bytes(graph, recurrence)
        if taken <= left:
            left -= taken
            more += taken
            found.append(replace(recurrence, kept=True))
    saved = cost.activation_bytes + more // (batch * context)
    return replace(graph.with_nodes(found), cost=replace(cost, activation_bytes=saved))


def written_every(graph: Graph, recurrence: Recurrence) -> int:
    """Tokens between two writes that leave states to choose about; else 0."""
    if recurrence.lowering not in LOWERINGS:
        return 0
    memory: Memory = graph[recurrence.members[0]]
    return memory.period.count if memory.period.unit is Unit.TOKEN and memory.period.count > 1 else 0


def _bytes(graph: Graph, recurrence: Recurrence) -> int:
    """What one sequence keeps of a memory, in all layers: by every write its state and its sums, and twice the rule's
    states, which a write reads and makes; where a gradient passes through the sums, also theirs."""
    memory: Memory = graph[recurrence.members[0]]
    remembered = sum(len(level.state) for level in memory.rule.levels)
    each = memory_size(memory) * (2 + 2 * remembered + (memory.meta is Meta.FULL))
    layers = graph.stack.count(memory.block) if memory.block else 1
    return BYTES * layers * each * (graph.sizes["context"] // memory.period.count)


def _always(graph: Graph) -> int:
    """Weights, their gradients, and what the outer rules remember."""
    assert graph.cost is not None
    levels = [level for level in graph.of(Level) if level.rule and level.weights]
    remembered = max((len(own.state) for level in levels if level.rule for own in level.rule.levels), default=0)
    return BYTES * graph.cost.parameters * (2 + remembered)
