"""Which memories are written inside a sequence, from what, and how often a level has fired."""

from __future__ import annotations

import math

from codegen.layout import fit
from codegen.places import place_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Level, Memory, Read, Recurrence, Unit, When


def loss_driven(graph: Graph) -> list[Memory]:
    """The memories that learn from each token's own error inside a sequence."""
    return [graph[m] for r in graph.of(Recurrence) if r.lowering == "segment" for m in r.members]


def in_sequence(memory: Memory) -> bool:
    """Written while a sequence runs."""
    return memory.carry is not Carry.MODEL and memory.period.unit is Unit.TOKEN and memory.form.kind != "attention"


def shown_every(graph: Graph, level: Level) -> int:
    """After how many tokens reads see what a level has written; 1: at once, or at the next token."""
    members = [graph[m] for m in level.memories if in_sequence(graph[m])]
    return math.gcd(*(_border(memory, {r.when for r in graph.of(Read) if r.memory == memory.id}) for memory in members))


def _border(memory: Memory, reads: set[When]) -> int:
    if When.AFTER in reads:
        return 1
    return memory.period.count if When.BEFORE in reads else math.lcm(memory.period.count, memory.chunk)


def count_lines(graph: Graph, tokens: str, clock: str = "clock", writing: str = "learn") -> list[str]:
    """How often each level that writes inside a sequence has fired: its ticks, even one that no token reads after."""
    lines = []
    for level in graph.levels:
        if not any(in_sequence(graph[m]) for m in level.memories):
            continue
        n, memory = level.period.count, graph[level.memories[0]]
        at = f'{clock}["stream"]' if memory.carry is Carry.STREAM else f'{clock}["sequence"]'
        at = f'{clock}["{place_of(graph, memory)}"]' if memory.tail.value != "carry" else at
        times = tokens if n == 1 else f"({at} + {tokens}) // {n} - {at} // {n}"
        lines += fit(f'self.fired("{level.name}", {times} if "{level.name}" in {writing} else 0)', 2)
    return lines
