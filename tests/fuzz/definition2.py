"""Definition 2 of Nested Learning by brute force: which level comes before which, from the equations alone.

    f_A = updates of A per unit of time.  A before B when f_A > f_B, or f_A = f_B and B needs A's state of the same
    tick, transitively; independent components of equal frequency share a level.  Attention has f = infinity, frozen
    weights f = 0.

Nothing is taken from pass levels.  Frequencies are counted over a stretch of time that every period divides, by listing
the ticks at which each fires; what needs what is the transitive closure of a matrix of all values of a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, lcm

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Op, Period, Read, Unit, When


def misplaced(graph: Graph) -> list[str]:
    """What is wrong with the order of the levels; empty when it is that of Definition 2."""
    levels = graph.of(Level)
    often = {level.id: frequency(graph, level.period, levels) for level in levels}
    needs = same_tick(graph)
    depth: dict[str, int] = {}
    for _ in levels:  # the longest chain of needs among levels of equal frequency, by relaxation
        for level in levels:
            before = [b for b in needs[level.id] if often[b] == often[level.id] and b != level.id]
            depth[level.id] = max((depth.get(b, 0) + 1 for b in before), default=0)
    faults = []
    for a in levels:
        for b in levels:
            first = (-often[a.id], depth[a.id]) < (-often[b.id], depth[b.id])
            if first != (a.index < b.index):
                faults.append(
                    f"{a.name} ({often[a.id]} updates) is {a.index} and {b.name} ({often[b.id]}) is {b.index}"
                )
    wanted = list(range(1, 1 + len({(often[x.id], depth[x.id]) for x in levels})))
    if sorted({level.index for level in levels}) != wanted:
        faults.append(f"places {sorted({level.index for level in levels})}, not {wanted}")
    faults += [f"{level.name} waits for itself" for level in levels if _inside(graph, level)]
    return faults


def frequency(graph: Graph, period: Period, levels: Iterable[Level]) -> float:
    """How often it fires while every level that counts tokens or steps fires a whole number of times."""
    if period.unit is Unit.NEVER:
        return 0
    if period.unit is Unit.TOKEN and period.count == 0:
        return inf
    span = 1
    for level in levels:
        span = lcm(span, _tokens(graph, level.period) or 1)
    return span // (_tokens(graph, period) or 1)


def _tokens(graph: Graph, period: Period) -> int:
    """Tokens between two updates, of all sequences of a batch taken one after the other."""
    context, batch = graph.sizes.get("context", 1), graph.run.batch
    each = {Unit.TOKEN: 1, Unit.SEQUENCE: context, Unit.STEP: context * batch}
    return period.count * each.get(period.unit, 0)


def same_tick(graph: Graph) -> dict[str, set[str]]:
    """level -> the levels whose state of the same tick its writes need."""
    ids = [n.id for n in graph.nodes.values() if isinstance(n, Op | Read | Memory)]
    reach = {id: set(_needs(graph, id)) for id in ids}
    changed = True
    while changed:  # closure
        changed = False
        for id in ids:
            more = set().union(*(reach[b] for b in reach[id] if b in reach)) - reach[id]
            changed |= bool(more)
            reach[id] |= more
    found: dict[str, set[str]] = {level.id: set() for level in graph.of(Level)}
    for memory in graph.of(Memory):
        found[memory.level] |= {graph[b].level for b in reach[memory.id] if isinstance(graph[b], Memory)}
    return found


def _needs(graph: Graph, id: str) -> list[str]:
    """What of the same token a value, or a memory's new state, is made from."""
    match graph[id]:
        case Op() as op:
            return [] if op.op == "prev" else list(op.inputs)
        case Read() as read:
            return [read.query, *([read.memory] if read.when is When.AFTER else [])]
        case Memory() as memory:
            values = [v for pair in memory.pairs for v in pair] + [memory.rate, memory.retain, memory.weigh]
            values += [p.value or "" for p in (*memory.rule.params, *memory.objective.params)]
            return [v for v in values if v]
    return []


def _inside(graph: Graph, level: Level) -> bool:
    """Whether a memory of the level needs another of it in the same tick."""
    for id in level.memories:
        seen, waiting = set[str](), _needs(graph, id)
        while waiting:
            at = waiting.pop()
            if at not in seen and isinstance(graph[at], Op | Read | Memory):
                seen.add(at)
                waiting += _needs(graph, at)
        if seen & (set(level.memories) - {id}):
            return True
    return False
