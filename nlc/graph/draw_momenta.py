"""The picture of what update rules remember: below a level, a band for each frequency at which its rules write.

    shelves(graph, level, memories)                   -> [Shelf, ...], fastest first
    shelf.place(left, top)                            where it stands: boxes right of all memories, where no line passes
    draw_shelf(scene, shelf, right, every, owner)     its band, its boxes, its lines

Each box is a memory of gradients.  Two lines join a band to its owner: down the gradient, up what the rule makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlc.graph.draw_scene import Scene, width_of
from nlc.graph.graph import Graph
from nlc.graph.momenta import momenta
from nlc.graph.nodes import Level, Memory, Period

GAP, BOX_HEIGHT, HEIGHT = 10.0, 30.0, 62.0
INDENT = 20.0  # of a band below its owner's


@dataclass
class Shelf:
    """One level of a rule: what it keeps of the gradients of a level's weights or memories."""

    rule: str
    names: tuple[str, ...]
    period: Period
    of: tuple[str, ...]  # the memories it serves, where a level has others too
    left: float = 0.0
    top: float = 0.0

    def widths(self) -> list[float]:
        return [max(54.0, width_of(name, 13) + 20) for name in self.names]

    @property
    def width(self) -> float:
        return sum(self.widths()) + GAP * len(self.names)

    @property
    def boxes(self) -> float:
        return self.top + (HEIGHT - BOX_HEIGHT) / 2

    def place(self, left: float, top: float) -> None:
        self.left, self.top = left, top


def shelves(graph: Graph, level: Level, memories: Sequence[Memory]) -> list[Shelf]:
    """What the rules of a level and its memories keep; memories of one rule and period share theirs."""
    owners: dict[str, str] = {level.id: ""} | {m.id: m.name for m in memories}
    found: dict[tuple[str, tuple[str, ...], Period], list[str]] = {}
    for kept in momenta(graph):
        if kept.owner in owners:
            found.setdefault((kept.rule, kept.names, kept.period), []).append(owners[kept.owner])
    made = [Shelf(*key, tuple(of) if "" not in of and len(of) < len(memories) else ()) for key, of in found.items()]
    return sorted(made, key=lambda shelf: shelf.period.count)


def draw_shelf(scene: Scene, shelf: Shelf, right: float, every: str, owner: tuple[float, float]) -> None:
    """The band, its boxes, and its lines; `owner`: the right end of the box whose gradients they are, and its top."""
    left, y = 24 + INDENT, shelf.boxes
    scene.box(left, shelf.top, right - left, HEIGHT, fill="band", stroke="rim", radius=12, stroke_width=1)
    said = f"{shelf.rule} of {', '.join(shelf.of)}" if shelf.of else shelf.rule
    scene.text(70, shelf.top + 27, said, size=13, bold=True)
    scene.text(70, shelf.top + 45, every, "faint", size=12)
    x = shelf.left
    for name, width in zip(shelf.names, shelf.widths(), strict=True):
        scene.box(x, y, width, BOX_HEIGHT)
        scene.text(x + width / 2, y + 19, name, size=13, anchor="middle", bold=True)
        x += width + GAP
    end, top = owner
    down, up = shelf.left + 14, x - GAP - 14
    scene.line([(end, top + 14), (down, top + 14), (down, y)], "gradient", arrow=True)
    scene.line([(up, y), (up, top + 30), (end, top + 30)], "write", arrow=True)
