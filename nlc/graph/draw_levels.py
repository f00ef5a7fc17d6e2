"""The picture of a spec: its levels as bands of one frequency, the fastest on top; tokens flow along a rail above them.

    scene_of(graph) -> Scene

Every memory has a column of its own, so the line that brings its query down from the rail and the one that takes its
output back up cross no box.  Under the memories that tokens write runs a bar: what the write is made of enters it as
coloured labels, below the memory that generates it or, left of them, from the rail; the bar writes to every memory
above it.  What the rules of a level remember stands in bands of its own below it (draw_momenta).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from nlc.graph.draw_momenta import GAP, HEIGHT, Shelf, draw_shelf, shelves
from nlc.graph.draw_scene import Scene, shortened, width_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Input, Level, Memory, Period, Unit
from nlc.graph.outline import OUT, TOKENS, Link, Outline, outline

GUTTER = 228.0  # left of the bands' contents: the level's name and clock
COLUMN, BOX, BOX_HEIGHT = 150.0, 126.0, 62.0
LEFT, MIDDLE, RIGHT = 30.0, 64.0, 98.0  # where lines meet a box
RAIL = 142.0  # y of the rail
WRITE_ROLES = ("key", "value", "rate", "retain", "rule", "objective")
TIMES = "\u00d7"
LEGEND = {
    "query": "query: read a memory", "output": "output", "key": "key", "value": "value", "rate": "rate",
    "retain": "retention", "rule": "rule's parameter",
    "objective": "objective's parameter", "write": "write", "gradient": "gradient", "error": "error of the loss",
    "initialises": "initialises",
}  # fmt: skip


@dataclass
class Band:
    """One level."""

    level: Level
    memories: list[Memory]
    feeds: list[Link]  # labels of a write that come from the rail
    bar: bool
    shelves: list[Shelf]  # what its rules remember, each a band below it
    top: float = 0.0
    height: float = 0.0

    @property
    def boxes(self) -> float:
        return self.top + 36

    @property
    def bar_y(self) -> float:
        return self.boxes + BOX_HEIGHT + 48


@dataclass
class Layout:
    """Where everything stands."""

    graph: Graph
    seen: Outline
    scene: Scene = field(default_factory=Scene)
    bands: list[Band] = field(default_factory=list)
    x: dict[str, float] = field(default_factory=dict)  # memory -> left edge of its box
    feed_x: dict[str, float] = field(default_factory=dict)  # level -> left edge of its labels from the rail
    left: float = GUTTER + 40
    right: float = 0.0
    used: set[str] = field(default_factory=set)  # kinds of line that occur, for the legend
    at: Band | None = None  # the band whose memories are being drawn
    words: dict[str, str] = field(default_factory=lambda: LEGEND)  # of the legend

    # ---- places -----------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        order = {m.id: i for i, m in enumerate(self.graph.of(Memory))}
        first = {m.id: i for i, m in enumerate(self.seen.memories)}
        for level in self.seen.levels:
            members = sorted((self.graph[m] for m in level.memories), key=lambda m: order[m.id])
            bar = any(self.seen.into(m.id, *WRITE_ROLES) for m in members)
            self.bands.append(Band(level, members, self.feeds(members), bar, shelves(self.graph, level, members)))
        x = self.left + 26
        groups = [b for b in self.bands if b.memories]
        for band in sorted(groups, key=lambda b: min((first[m.id] for m in b.memories if m.id in first), default=0)):
            if band.feeds:
                self.feed_x[band.level.id] = x
                x += max(60.0, sum(width_of(f.label or f.role, 11) + 22 for f in band.feeds) + 14)
            for memory in band.memories:
                self.x[memory.id] = x
                x += COLUMN
        self.weight_columns(x)
        self.right = max(self.x.values(), default=x) + COLUMN + 26
        self.right = (
            max(self.right, *(b_right for _, b_right in self.weight_x.values()), self.left + 480)
            if self.weight_x
            else self.right
        )
        remembering = self.right - 10
        self.right = max(
            [self.right, *(remembering + sum(s.width for s in b.shelves) + 26 - GAP for b in self.bands if b.shelves)]
        )
        top = RAIL + 42
        for band in self.bands:
            band.top = top
            said = 64 + 17 * len(self.clock(band))
            band.height = max(said, 36 + BOX_HEIGHT + (72 if band.bar else 22))
            top += band.height + 12
            left = remembering
            for shelf in band.shelves:
                shelf.place(left, top)
                left, top = left + shelf.width, top + HEIGHT + 12
        self.bottom = top - 12

    def feeds(self, members: list[Memory]) -> list[Link]:
        """What the tokens bring to a level's write, without repeats."""
        found: dict[tuple[str, str], Link] = {}
        for memory in members:
            for link in self.seen.into(memory.id, *WRITE_ROLES):
                others = [
                    f for f in self.seen.into(memory.id, link.role) if f.label == link.label and f.source != TOKENS
                ]
                if link.source == TOKENS and not others:
                    found.setdefault((link.role, link.label or link.role), link)
        return list(found.values())

    def weight_columns(self, end: float) -> None:
        """A level's weights stand where no line passes: left of the first memory of a slower level, or at the end."""
        self.weight_x: dict[str, tuple[float, float]] = {}
        for i, band in enumerate(self.bands):
            if not self.own_weights(band):
                continue
            taken = [self.x[m.id] for later in self.bands[i:] for m in later.memories] + [
                self.feed_x[later.level.id] for later in self.bands[i:] if later.level.id in self.feed_x
            ]
            start = self.left + 26
            stop = min(taken, default=max(end, start + 2 * COLUMN)) - (COLUMN - BOX)
            if stop - start < BOX:
                start, stop = max(taken) + COLUMN, max(taken) + COLUMN + 1.4 * COLUMN
            self.weight_x[band.level.id] = (start, stop)

    def own_weights(self, band: Band) -> list[str]:
        """The weights of a level that are no memory carried by the model."""
        mine = {w for m in band.memories if m.carry is Carry.MODEL for w in m.weights}
        return [w for w in band.level.weights if w not in mine]

    # ---- drawing ----------------------------------------------------------------------------------------------

    def draw(self) -> Scene:
        self.arrange()
        self.header()
        for band in self.bands:
            self.band(band)
        for band in self.bands:
            self.at = band
            for memory in band.memories:
                self.memory(band, memory)
            if band.bar:
                self.bar(band)
            if band.level.id in self.weight_x:
                self.weights(band)
            self.remembered(band)
        self.errors()
        self.at = None
        self.rail()
        self.legend()
        return self.scene

    def header(self) -> None:
        graph, scene = self.graph, self.scene
        scene.text(24, 42, graph.name, size=24, bold=True)
        wide = self.right - 24
        lines = _wrapped(graph.doc, 13, wide) if graph.doc else []
        for i, line in enumerate(lines):
            scene.text(24, 66 + 18 * i, line, "faint", size=13)
        sizes = [
            f"{name} {graph.sizes[name]}" for name in ("width", "heads", "context", "vocab") if name in graph.sizes
        ]
        if not graph.bare:
            sizes.insert(2, f"{len(graph.stack)} layers")
        if graph.cost is not None:
            sizes.append(f"{_count(graph.cost.parameters)} parameters")
        scene.text(24, 68 + 18 * len(lines), shortened(" · ".join(sizes), 12, wide), "faint", size=12)

    def band(self, band: Band) -> None:
        scene, level = self.scene, band.level
        scene.box(24, band.top, self.right - 24, band.height, fill="band", stroke="rim", radius=12, stroke_width=1)
        room = GUTTER - 62
        scene.text(44, band.top + 32, str(level.index), "faint", size=20, bold=True)
        scene.text(70, band.top + 31, shortened(level.name, 15, room), size=15, bold=True)
        for i, line in enumerate(self.clock(band)):
            scene.text(70, band.top + 51 + 17 * i, shortened(line, 12, room), "faint", size=12)

    def clock(self, band: Band) -> list[str]:
        level, memories = band.level, band.memories
        attention = any(m.form.kind == "attention" for m in memories)
        lines = [said_period(level.period, attention)]
        chunk = max((m.chunk for m in memories), default=1)
        if chunk > 1:
            lines.append(f"chunks of {chunk} tokens")
        fires = fires_in_context(self.graph, level.period, memories)
        if fires:
            lines.append(fires)
        if not attention and level.period.unit is not Unit.NEVER:
            rules = (
                dict.fromkeys(m.rule.name for m in memories)
                if memories
                else {level.rule.name: None}
                if level.rule
                else {}
            )
            lines.append(f"{', '.join(rules)} on {level.objective or 'loss'}")
        return lines

    def remembered(self, band: Band) -> None:
        """What the rules of a level keep of its gradients, joined to the last of what it owns."""
        ends = [self.x[m.id] + BOX for m in band.memories]
        ends += [self.weight_x[band.level.id][1]] if band.level.id in self.weight_x else []
        for shelf in band.shelves:
            draw_shelf(self.scene, shelf, self.right, said_period(shelf.period, False), (max(ends), band.boxes))
            self.used |= {"gradient", "write"}

    def memory(self, band: Band, memory: Memory) -> None:
        graph, scene, x, y = self.graph, self.scene, self.x[memory.id], band.boxes
        queries = self.seen.into(memory.id, "query")
        if queries:
            self.line([(x + LEFT, RAIL), (x + LEFT, y)], "query", arrow=True)
            label = next((q.label for q in queries if q.label), "")
            colour, room = self.colour("query"), RIGHT - LEFT - 14
            scene.text(x + LEFT + 6, y - 9, shortened(label, 11, room), colour, size=11, mono=True)
        leaves = [f for f in self.seen.out_of(memory.id, "output", "query") if f.target != memory.id]
        if leaves:
            self.line([(x + RIGHT, y), (x + RIGHT, RAIL)], "output", arrow=True)
            label = next(
                (f.label for f in leaves if f.target == OUT and graph.bare), self.seen.outputs.get(memory.id, "")
            )
            colour, room = self.colour("output"), COLUMN - RIGHT - 10
            scene.text(x + RIGHT + 6, y - 9, shortened(label, 11, room), colour, size=11, mono=True)
        scene.box(x, y, BOX, BOX_HEIGHT)
        scene.text(x + BOX / 2, y + 22, shortened(memory.name, 14, BOX - 12), size=14, anchor="middle", bold=True)
        for i, line in enumerate(_form(memory)):
            scene.text(x + BOX / 2, y + 39 + 14 * i, shortened(line, 11, BOX - 10), "faint", size=11, anchor="middle")

    def bar(self, band: Band) -> None:
        """What a write is made of, and the memories it writes."""
        members = [m for m in band.memories if self.seen.into(m.id, *WRITE_ROLES)]
        start = self.feed_x.get(band.level.id, self.x[members[0].id] + LEFT - 16) + 16
        end = self.x[members[-1].id] + RIGHT
        y = band.bar_y
        self.line([(start, y), (end, y)], "write", thickness=2.4)
        for memory in members:
            x = self.x[memory.id]
            self.line([(x + RIGHT, y), (x + RIGHT, band.boxes + BOX_HEIGHT)], "write", arrow=True)
            if memory.id in self.seen.own_values:
                self.own(x, band.boxes + BOX_HEIGHT)
        self.feed_chips(band, y)
        for memory in self.seen.memories:
            made: dict[tuple[str, str], Link] = {}
            for target in members:
                for link in self.seen.into(target.id, *WRITE_ROLES):
                    if link.source == memory.id:
                        made.setdefault((link.role, link.label or link.role), link)
            self.made_chips(band, memory, list(made.values()), y)

    def feed_chips(self, band: Band, y: float) -> None:
        x = self.feed_x.get(band.level.id, 0.0)
        if not band.feeds:
            return
        middle = x + 8
        for link in band.feeds:
            width = width_of(link.label or link.role, 11) + 14
            self.scene.chip(middle + width / 2, y, link.label or link.role, self.colour(link.role))
            self.line([(middle + width / 2, RAIL), (middle + width / 2, y - 9)], link.role, arrow=True)
            middle += width + 8

    def made_chips(self, band: Band, memory: Memory, links: list[Link], y: float) -> None:
        """Labels below the memory that generates them; from another band, its line comes down to this one's bar."""
        source = next(b for b in self.bands if memory in b.memories)
        x = self.x[memory.id] + LEFT
        for i, link in enumerate(links[:2]):
            label = shortened(link.label or link.role, 11, RIGHT - 30)
            at = y if i == 0 else y - 22
            if i == 0:
                self.line([(x, source.boxes + BOX_HEIGHT), (x, at - 9)], link.role, arrow=True)
            self.scene.chip(x + 2, at, label, self.colour(link.role))
            self.used.add(self.colour(link.role))

    def own(self, x: float, y: float) -> None:
        """A small loop: the memory generates its own value."""
        a, b = x + BOX - 16, x + BOX + 8
        self.line(
            [(a, y), (a, y + 12), (b, y + 12), (b, y - 22), (x + BOX, y - 22)], "value", arrow=True, thickness=1.3
        )

    def weights(self, band: Band) -> None:
        scene, (start, stop), y = self.scene, self.weight_x[band.level.id], band.boxes
        mine = self.own_weights(band)
        total = sum(prod(self.graph[w].shape or ()) * (self.graph.stack.count(self.graph[w].block) or 1) for w in mine)
        scene.box(start, y, stop - start, BOX_HEIGHT)
        starts = self.seen.out_of(band.level.id, "initialises")
        scene.text(
            (start + stop) / 2,
            y + 26,
            shortened(f"{_count(total)} weights", 14, stop - start - 10),
            size=14,
            anchor="middle",
            bold=True,
        )
        rest = bool(band.level.selects) and band.level.selects[0].patterns == ("*",)
        said = "every weight no faster level owns" if rest else "the weights it selects"
        longer = f"{said}, the starts of the memories among them" if starts else said
        room = stop - start - 12
        fitting = next(
            (t for t in (longer, said) if width_of(t, 11) < room), "all the rest" if rest else "its selection"
        )
        scene.text(
            (start + stop) / 2, y + 45, shortened(fitting, 11, stop - start - 12), "faint", size=11, anchor="middle"
        )
        for link in starts:
            target = next(b for b in self.bands if any(m.id == link.target for m in b.memories))
            x = self.x[link.target] + MIDDLE
            above = target.top < band.top
            leaves, gap = min(max(x, start + 20), stop - 20), band.top - 6 if above else band.top + band.height + 6
            detour = [] if leaves == x else [(leaves, gap), (x, gap)]
            begin, end = (y, target.boxes + BOX_HEIGHT) if above else (y + BOX_HEIGHT, target.boxes)
            self.line([(leaves, begin), *detour, (x, end)], "initialises", arrow=True, thickness=1.3)

    def errors(self) -> None:
        """From the loss, down the right margin, to every level that learns from it."""
        links = [f for f in self.seen.links if f.role == "error"]
        edge = self.right + 34
        for band in self.bands:
            self.at = band
            ends = [self.x[m.id] + BOX for m in band.memories if any(f.target in (m.id, band.level.id) for f in links)]
            if band.level.id in self.weight_x and any(f.target == band.level.id for f in links):
                ends.append(self.weight_x[band.level.id][1])
            if ends:
                y = band.boxes + 46
                self.line([(edge, y), (max(ends), y)], "error", arrow=True)
                self.lowest = y
        self.at = None
        if links:
            self.line([(edge, RAIL + 17), (edge, self.lowest)], "error")

    def rail(self) -> None:
        scene, graph = self.scene, self.graph
        begins, ends = self.left - 4, self.right + 16
        inputs = [n.name for n in graph.of(Input)]
        entering = ", ".join(inputs) if graph.bare else "tokens"
        leaving = "loss" if not graph.bare else ", ".join(f.label for f in self.seen.links if f.target == OUT)
        scene.text(begins - 12, RAIL + 4, shortened(entering, 13, GUTTER - 30), size=13, anchor="end", bold=True)
        self.line([(begins - 4, RAIL), (ends, RAIL)], "output", arrow=True, thickness=2.2)
        scene.text(ends + 6, RAIL + 5, shortened(leaving, 13, 90), "ink" if graph.bare else "error", size=13, bold=True)
        if not graph.bare:
            kinds = " → ".join(f"{kind} {TIMES}{graph.stack.count(kind)}" for kind in graph.blocks)
            note = f"one block, {len(graph.stack)} layers" if len(graph.blocks) == 1 else kinds
            scene.text(self.right - 4, RAIL - 10, shortened(note, 11, 320), "faint", size=11, anchor="end")

    def legend(self) -> None:
        x, y = 44.0, self.bottom + 28
        for role, label in self.words.items():
            if role not in self.used:
                continue
            if role == "value" and self.seen.own_values:
                label = "value (a loop: of its own making)"
            wide = width_of(label, 11) + 56
            if x + wide > self.right:
                x, y = 44.0, y + 20
            self.scene.line([(x, y - 4), (x + 26, y - 4)], role, arrow=True)
            self.scene.text(x + 33, y, label, "faint", size=11)
            x += wide

    def colour(self, role: str) -> str:
        """How a flow of this kind is drawn; a flow of the band at hand where there is one."""
        return role

    def line(self, points: list[tuple[float, float]], role: str, arrow: bool = False, thickness: float = 1.6) -> None:
        self.used.add(self.colour(role))
        self.scene.line(points, self.colour(role), arrow, thickness)


def scene_of(graph: Graph) -> Scene:
    """The picture of a graph after all passes."""
    return Layout(graph, outline(graph)).draw()


def fires_in_context(graph: Graph, period: Period, memories: list[Memory]) -> str:
    """How often a level that counts tokens is written in one context, after its last token included."""
    context = graph.sizes.get("context", 0)
    if period.unit is not Unit.TOKEN or period.count < 2 or not context:
        return ""
    if all(m.carry is Carry.SEQUENCE for m in memories) and period.count > context:
        return f"never within {context} tokens"
    times = context // period.count
    return f"{times} {'time' if times == 1 else 'times'} in {context} tokens"


def _form(memory: Memory) -> list[str]:
    form, heads = memory.form, prod(memory.heads)
    by = f"{heads} heads" if memory.heads else ""
    match form.kind:
        case "matrix":
            return [f"matrix {memory.outer}{TIMES}{memory.inner}", by]
        case "vector":
            return [f"vector {memory.inner}", by]
        case "attention":
            seen = (
                f"window {form.window}"
                if form.window
                else f"segment {form.segment}"
                if form.segment
                else "all earlier pairs"
            )
            return [f"attention, {by}" if by else "attention", seen]
        case "equations":
            return [f"{form.called} {memory.inner}→{memory.outer}", by]
    widths = "→".join(map(str, (memory.inner, *[form.hidden] * (form.depth - 1), memory.outer)))
    return [f"{form.kind} {widths}", ", ".join(filter(None, [by, "residual" if form.residual else ""]))]


def _count(n: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def said_period(period: Period, attention: bool) -> str:
    """every token, every 64 tokens, never; of attention: every token, at once."""
    if attention:
        return "every token, at once"
    if period.unit is Unit.NEVER:
        return "never"
    return f"every {period}" if period.count != 1 else f"every {period.unit.value}"


def _wrapped(text: str, size: float, room: float, most: int = 2) -> list[str]:
    """The text on at most so many lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size) > room and len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, size, room) for line in lines]
