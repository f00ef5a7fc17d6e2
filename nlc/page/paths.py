"""A graph -> the picture of its levels, every flow coloured by what the gradient of the slower levels does along it.

    plain      an ordinary path: reads, and the loss to the weights it updates
    through    through a write: `meta: full`, and what stays open in the writes of other kinds
    first      the write's own gradient is a constant: `meta: first_order`
    stopped    the state is a constant where it is read: `meta: none`

What is open is what pass gradients lets through (nlc.passes.gradients, `open_roles`).
"""

from __future__ import annotations

from dataclasses import dataclass

from nlc.graph.draw_levels import RAIL, Layout
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Meta
from nlc.graph.outline import outline
from nlc.passes.gradients import open_roles, written

WRITES = ("key", "value", "rate", "retain", "rule", "objective", "write", "error")


@dataclass
class Paths(Layout):
    """The drawing of levels in these colours; the page around it has the title and the legend."""

    def header(self) -> None:
        pass

    def colour(self, role: str) -> str:
        if self.at is None or role not in (*WRITES, "initialises"):
            return "plain"
        written_here = [m for m in self.at.memories if written(m) and m.form.kind != "attention"]
        found = {self.of(memory, role) for memory in written_here}
        return next((kind for kind in ("stopped", "first", "through") if kind in found), "plain")

    @staticmethod
    def of(memory: Memory, role: str) -> str:
        if memory.meta is Meta.NONE:
            return "stopped"
        return "through" if role in open_roles(memory) else "first"


def svg(graph: Graph) -> tuple[str, float]:
    """The picture, light and dark, and its width in pixels."""
    scene = Paths(graph, outline(graph), words={}).draw()
    what = "flows, coloured by what the gradient does along them"
    return scene.svg(f"Gradient paths of {graph.name}", what, margin=24, top=RAIL - 48), scene.size()[0] + 24
