"""Pass keep: what stays in memory for the backward pass, and what it makes again.

Needs        cost.
Establishes  `span` of the cost where the activations of a step do not fit; `kept` on every Recurrence that is written
             once in several tokens; adds what is kept to the activations.
Refuses      nothing: where not even the least fits into the budget, the least is kept.

The budget is `run.memory`, less weights, their gradients and optimiser states.  Where the activations of all tokens do
not fit, those of as many tokens are kept as do: a sequence is run in spans, between which there is only the state of
every memory, and each is run again in the backward pass.  A span ends where every period and chunk ends.

A memory written once in n tokens leaves, for every period of every sequence, its new state, the sum of its gradients
and what its rule remembers.  To make these again a period is gathered and written once more, for which the work of a
token is the same whatever n, so that a byte saves the more the longer the period: the slowest memories are kept first,
while they fit beside the activations.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, lcm

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Meta, Recurrence, Unit
from nlc.passes.cost import BYTES, memory_size

LOWERINGS = ("segment", "periodic")
BACKWARD = 1.5  # of what is saved: with it the gradients that a backward pass has at a time (hope at width 256: 1.55)


def keep(graph: Graph) -> Graph:
    """The span, then the slowest first, while they fit."""
    cost, context, batch = graph.cost, graph.sizes.get("context", 0), graph.run.batch
    if cost is None or not context:
        return graph
    left = graph.run.memory - _always(graph)
    span = _span(graph, left)
    left -= _needed(graph, span or context)
    found, more = [], 0
    for recurrence in sorted(graph.of(Recurrence), key=lambda r: -written_every(graph, r)):
        if not written_every(graph, recurrence):
            continue
        taken = batch * _bytes(graph, recurrence, span or context)
        if taken <= left:
            left -= taken
            more += taken
            found.append(replace(recurrence, kept=True))
    saved = cost.activation_bytes + more // (batch * (span or context))
    return replace(graph.with_nodes(found), cost=replace(cost, activation_bytes=saved, span=span))


def _span(graph: Graph, left: int) -> int:
    """0 where the activations of the whole context fit; else as many tokens as do, or those that need least."""
    context = graph.sizes["context"]
    if _needed(graph, context) <= left:
        return 0
    spans = [_least_span(graph)]
    while 2 * spans[-1] < context:
        spans.append(2 * spans[-1])
    if spans[0] >= context:
        return 0
    fitting = [span for span in spans if _needed(graph, span) <= left]
    return max(fitting) if fitting else min(spans, key=lambda span: _needed(graph, span))


def _least_span(graph: Graph) -> int:
    """Tokens in which every period and every chunk ends."""
    memories = graph.of(Memory)
    periods = [m.period.count for m in memories if m.period.unit is Unit.TOKEN and m.period.count]
    return lcm(*periods, *(m.chunk for m in memories if m.chunk))


def _needed(graph: Graph, span: int) -> int:
    """Activations of the tokens of a span, their gradients, and a state at every border."""
    assert graph.cost is not None
    borders = ceil(graph.sizes["context"] / span)
    saved = int(BACKWARD * span * graph.cost.activation_bytes)
    return graph.run.batch * (saved + (borders + 1) * graph.cost.state_bytes)


def written_every(graph: Graph, recurrence: Recurrence) -> int:
    """Tokens between two writes that leave states to choose about; else 0."""
    if recurrence.lowering not in LOWERINGS:
        return 0
    memory: Memory = graph[recurrence.members[0]]
    return memory.period.count if memory.period.unit is Unit.TOKEN and memory.period.count > 1 else 0


def _bytes(graph: Graph, recurrence: Recurrence, tokens: int) -> int:
    """What so many tokens keep of a memory, in all layers: by every write its state and its sums, and twice the rule's
    states, which a write reads and makes; where a gradient passes through the sums, also theirs."""
    memory: Memory = graph[recurrence.members[0]]
    remembered = sum(len(level.state) for level in memory.rule.levels)
    each = memory_size(memory) * (2 + 2 * remembered + (memory.meta is Meta.FULL))
    layers = graph.stack.count(memory.block) if memory.block else 1
    return BYTES * layers * each * (tokens // memory.period.count)


def _always(graph: Graph) -> int:
    """Weights, their gradients, and what the outer rules remember."""
    assert graph.cost is not None
    levels = [level for level in graph.of(Level) if level.rule and level.weights]
    remembered = max((len(own.state) for level in levels if level.rule for own in level.rule.levels), default=0)
    return BYTES * graph.cost.parameters * (2 + remembered)
