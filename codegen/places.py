"""Where the state of a memory, a convolution or prev is kept, below `blocks.<layer>.`."""

from __future__ import annotations

from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Op


def place_of(graph: Graph, node: Memory | Op) -> str:
    """titans.key, h.conv: the node's id without its kind of block, an unnamed operator behind the name it is in."""
    name = node.id.removeprefix(f"{node.block}/") if len(graph.blocks) > 1 else node.id
    if isinstance(node, Op):
        return name.replace("/", ".") if "/" in name else f"{name}.{node.op}"
    return name
