"""Memories of one walk that are written alike, so that they are computed as the heads of one memory."""

from __future__ import annotations

from nlc.graph.flow import pieces, reads_of, self_query
from nlc.graph.graph import Graph
from nlc.graph.linearity import linear
from nlc.graph.nodes import Memory, Recurrence, Tail, When


def twins(graph: Graph, recurrence: Recurrence) -> list[tuple[Memory, ...]]:
    """Groups of members that differ in name and start alone: same pairs (or values by themselves of the same), rates,
    retention, form, rule and clock.  Only of a walk from border to border, where all are read before any is written."""
    if recurrence.lowering != "loop" or pieces(graph, recurrence.members, recurrence.inside) == (1,):
        return []
    groups: dict[tuple[object, ...], list[Memory]] = {}
    for id in recurrence.members:
        memory: Memory = graph[id]
        if _one_of_several(graph, memory):
            groups.setdefault(_written_by(graph, memory), []).append(memory)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _one_of_several(graph: Graph, memory: Memory) -> bool:
    """Whether its heads mean the same among those of other memories."""
    shape = linear(memory.rule)
    channels = memory.retain and len(graph[memory.retain].shape or ()) > len(memory.heads)
    return (
        memory.form.kind in ("matrix", "mlp", "swiglu")
        and len(memory.heads) == 1
        and shape is not None
        and not shape.state
        and memory.period.count == 1
        and len(memory.pairs) == 1
        and memory.window == 1
        and memory.tail is Tail.CARRY
        and not (channels or memory.weigh or memory.objective.params or memory.objective.tree)
        and all(r.when is When.CHUNK for r in reads_of(graph, memory.block, [memory.id]))
    )


def _written_by(graph: Graph, memory: Memory) -> tuple[object, ...]:
    """What twins have in common."""
    own = self_query(graph, memory)
    (key, value), m = memory.pairs[0], memory
    return (
        key, own or value, bool(own), m.rate, m.retain, m.retain_to_start, m.grad_at_kept, m.form, m.normalise_hidden,
        m.objective, m.rule, m.chunk, m.carry, m.meta, m.heads, m.inner, m.outer, m.level, m.parts,
    )  # fmt: skip
