"""Levels: the order of the nested system (NL, Definition 2).

Needs: clocks and causality.
Establishes: Level.index, from 1, the fastest first.  A comes before B when A is written more often, or as often and B
needs A's state of the same tick.  Independent levels of equal frequency share an index.  Attention has infinite
frequency, frozen weights none.  A level whose memories need each other's state of the same tick becomes several.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Level, Memory, Op, Period, Read, Unit, When
from nlc.passes.causality import needs, write_needs


def levels(graph: Graph) -> Graph:
    graph = _split(graph)
    found = graph.of(Level)
    frequency = {level.id: rank(graph, level.period) for level in found}
    depth = _depths(graph, found)
    places = sorted(
        {(frequency[level.id], depth[level.id]) for level in found}, key=lambda p: (p[0][0], -p[0][1], p[1])
    )
    index = {place: i for i, place in enumerate(places, 1)}
    return graph.with_nodes(replace(level, index=index[frequency[level.id], depth[level.id]]) for level in found)


def rank(graph: Graph, period: Period) -> tuple[int, Fraction]:
    """(class, updates per token within it).  Classes: at once; tokens, sequences and steps; tasks; never."""
    context, batch = graph.sizes.get("context", 1), graph.run.batch
    match period.unit:
        case Unit.TOKEN if period.count == 0:
            return 0, Fraction(0)
        case Unit.TOKEN:
            return 1, Fraction(1, period.count)
        case Unit.SEQUENCE:
            return 1, Fraction(1, period.count * context)
        case Unit.STEP:
            return 1, Fraction(1, period.count * context * batch)
        case Unit.TASK:
            return 2, Fraction(1, period.count)
        case Unit.NEVER:
            return 3, Fraction(0)


def _same_tick(graph: Graph) -> dict[str, set[str]]:
    """memory -> the memories whose state of the same tick its write needs, transitively."""
    reads: dict[str, set[str]] = {}
    for memory in graph.of(Memory):
        found: set[str] = set()
        waiting, seen = write_needs(memory), set[str]()
        while waiting:
            node = graph[waiting.pop()]
            if node.id in seen:
                continue
            seen.add(node.id)
            if isinstance(node, Read) and node.when is When.AFTER:
                found.add(node.memory)
            if isinstance(node, Op | Read):
                waiting += needs(graph, node)
        reads[memory.id] = found - {memory.id}
    return reads


def _depths(graph: Graph, found: list[Level]) -> dict[str, int]:
    """How many levels of its own frequency a level waits for."""
    needed = _same_tick(graph)
    level_of = {m.id: m.level for m in graph.of(Memory)}
    frequency = {level.id: rank(graph, level.period) for level in found}
    before = {
        level.id: {level_of[n] for m in level.memories for n in needed[m]} - {level.id} for level in found
    }  # fmt: skip
    depth: dict[str, int] = {}

    def of(id: str) -> int:
        if id not in depth:
            depth[id] = 0
            depth[id] = max((of(b) + 1 for b in before[id] if frequency[b] == frequency[id]), default=0)
        return depth[id]

    for level in found:
        of(level.id)
    return depth


def _split(graph: Graph) -> Graph:
    """Within a level, what is needed in the same tick goes before what needs it."""
    needed = _same_tick(graph)
    nodes: dict[str, AnyNode] = {}
    for id, node in graph.nodes.items():
        if not isinstance(node, Level):
            nodes[id] = node
            continue
        rounds = _rounds(node, needed)
        if len(rounds) < 2:
            nodes[id] = node
            continue
        for name, members in zip(_called(graph, node, rounds), rounds, strict=True):
            part = replace(node, id=f"level:{name}", name=name, memories=tuple(members))
            nodes[part.id] = part
            for m in members:
                nodes[m] = replace(graph[m], level=part.id)
    return replace(graph, nodes=nodes)


def _called(graph: Graph, level: Level, rounds: list[list[str]]) -> list[str]:
    """A name for each part of a level: its memories', with their kinds of block where one name would be two parts'."""
    called = [[graph[m].name for m in members] for members in rounds]
    if len({name for names in called for name in set(names)}) < sum(len(set(names)) for names in called):
        called = [[f"{graph[m].block}_{graph[m].name}" for m in members] for members in rounds]
    return [f"{level.name}.{'_'.join(dict.fromkeys(names))}" for names in called]


def _rounds(level: Level, needed: dict[str, set[str]]) -> list[list[str]]:
    left, rounds = list(level.memories), list[list[str]]()
    while left:
        free = [m for m in left if not needed[m] & set(left)]
        rounds.append(free or left)
        left = [m for m in left if m not in rounds[-1]]
    return rounds
