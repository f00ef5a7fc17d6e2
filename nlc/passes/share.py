"""Pass share: work that several recurrences have in common is done once.

Needs        chunks.
Establishes  a memory whose writes are the same product as those of a shared_product group joins it: with the same keys,
             rate and retention one transition matrix per chunk and head serves all of them.
Refuses      nothing.
"""

from __future__ import annotations

from dataclasses import replace

from nlc.graph.graph import Graph
from nlc.graph.nodes import Recurrence
from nlc.passes.chunks import proof, shared_product_refusals


def share(graph: Graph) -> Graph:
    """Merge what one transition can serve."""
    nodes = dict(graph.nodes)
    for group in graph.of(Recurrence):
        if group.lowering != "shared_product":
            continue
        for other in graph.of(Recurrence, group.block):
            if other.lowering != "linear":
                continue
            members = tuple(i for i in graph.nodes if i in (*group.members, *other.members))
            if not shared_product_refusals(graph, members, group.inside):
                names = ", ".join(graph[m].name for m in members)
                shared = f"{names} are multiplied by the same matrices, whatever they hold"
                group = replace(group, members=members, reason=f"{shared}: {proof(graph, graph[members[0]])}")
                nodes[group.id] = group
                del nodes[other.id]
    return replace(graph, nodes=nodes)
