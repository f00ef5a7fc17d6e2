"""Still: memories that no write can change become memories that are never written.

Needs: shapes, clocks and gradients.
Establishes: period `never`, and nothing that flows into a write, on every memory of a level where the rate is 0, the
rule takes no step at that rate, and retention keeps the state or leads it to the start, where it is.  Such memories are
computed as ordinary weights are, by the same operations and so to the same bits.  Values that only their writes needed
are gone.
Refuses: nothing.  A level stays as it is where a weight would lose its gradient or a memory its last read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Number, Op, Period, Read, Rule, Unit, Weight
from nlc.graph.ranges import range_of
from nlc.graph.standstill import stands
from nlc.passes.gradients import reach, written

NEVER = Period(0, Unit.NEVER)


def still(graph: Graph) -> Graph:
    for group in _together(graph):
        levels: list[Level] = [graph[id] for id in group]
        memories: list[Memory] = [graph[id] for level in levels for id in level.memories]
        if memories and all(_unchanged(graph, memory) for memory in memories):
            graph = _never_written(graph, levels, memories)
    return graph


def _together(graph: Graph) -> Iterable[tuple[str, ...]]:
    """The levels, those together whose nested memories begin again from starts that another of them writes."""
    group: dict[str, tuple[str, ...]] = {level.id: (level.id,) for level in graph.of(Level)}
    for memory in graph.of(Memory):
        if memory.nest and written(graph[memory.nest]):
            joined = tuple(dict.fromkeys(group[memory.level] + group[graph[memory.nest].level]))
            group |= dict.fromkeys(joined, joined)
    return dict.fromkeys(group.values())


def _unchanged(graph: Graph, memory: Memory) -> bool:
    """Whether a write at the start gives back the start."""
    if memory.form.kind == "attention" or not written(memory):
        return False
    kept = not memory.retain or memory.retain_to_start or range_of(graph, memory.retain).point == 1
    return kept and bool(memory.rate) and range_of(graph, memory.rate).point == 0 and stands(memory.rule)


def _never_written(graph: Graph, levels: Sequence[Level], memories: Sequence[Memory]) -> Graph:
    """The graph without these writes, and without the starts that these memories hold for one another; or as it is."""
    gone = {m.id for m in memories if m.of}
    never = [
        replace(m, period=NEVER, rule=Rule(name="gd"), pairs=(), rate="", retain="", weigh="", nest="", still=_why(m))
        for m in memories
        if not m.of
    ]
    resting = [
        replace(level, period=NEVER, memories=tuple(m for m in level.memories if m not in gone)) for level in levels
    ]
    after = graph.with_nodes([*resting, *never])
    before, now = reach(graph), reach(after)
    untrained = [id for id in before.outer - now.outer if isinstance(graph[id], Weight)]
    unread = [m.id for m in graph.of(Memory) if m.id in before.used - now.used - gone]
    if untrained or unread:
        return graph
    gone |= {id for id in before.used - now.used if isinstance(graph[id], Number | Op | Read)}
    return replace(after, nodes={id: node for id, node in after.nodes.items() if id not in gone})


def _why(memory: Memory) -> str:
    return f"a write every {memory.period} changes nothing: its rate is 0, and {memory.rule.name} then takes no step"
