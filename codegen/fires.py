"""Which memories are written inside a sequence, from what, when reads see it, and how often a level has fired."""

from __future__ import annotations

import math
from collections.abc import Iterable

from codegen.layout import fit
from codegen.places import place_of
from nlc.graph.flow import pieces
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Level, Memory, Op, Read, Recurrence, Tail, Unit, When


def loss_driven(graph: Graph) -> list[Memory]:
    """The memories that learn from each token's own error inside a sequence."""
    return [graph[m] for r in graph.of(Recurrence) if r.lowering == "segment" for m in r.members]


def in_sequence(memory: Memory) -> bool:
    """Written while a sequence runs."""
    return memory.carry is not Carry.MODEL and memory.period.unit is Unit.TOKEN and memory.form.kind != "attention"


def _shown_every(graph: Graph, memories: Iterable[Memory]) -> int:
    """After how many tokens reads see what has been written to memories; 1: at once, or at the next token."""
    reads = graph.of(Read)
    return math.gcd(*(_border(m, {r.when for r in reads if r.memory == m.id}) for m in memories))


def _border(memory: Memory, reads: set[When]) -> int:
    if When.AFTER in reads:
        return 1
    return memory.period.count if When.BEFORE in reads else math.lcm(memory.period.count, memory.chunk)


def shown_lines(graph: Graph) -> list[str]:
    """Levels whose writes later tokens read; those driven by a token's own error have it a token late anyhow."""
    late = {memory.level for memory in loss_driven(graph)}
    lines = []
    for level in graph.levels:
        lanes: dict[str, list[Memory]] = {}
        for memory in (graph[m] for m in level.memories if in_sequence(graph[m])):
            lanes.setdefault("stream" if memory.carry is Carry.STREAM else "sequence", []).append(memory)
        every = {clock: _shown_every(graph, members) for clock, members in lanes.items()}
        if every and (min(every.values()) > 1 or level.id in late):
            said = ", ".join(f'"{clock}": {n}' for clock, n in every.items())
            lines.append(f'"{level.name}": {{{said}}}')
    return lines


def steady_lines(graph: Graph) -> list[str]:
    """That a token between two borders is read by the same operations wherever it is: no register grows, and nothing in
    a block asks for a clock but for the phase of a chunk, which is other than 0 everywhere but at a border."""
    turns = any(op.op == "rope" for op in graph.of(Op))
    asks = turns or any(_counts_tokens(graph, recurrence) for recurrence in graph.of(Recurrence))
    return [] if graph.bare or asks else ["steady = True"]


def _counts_tokens(graph: Graph, recurrence: Recurrence) -> bool:
    """Whether what computes memories asks how many tokens there have been, beyond the phase of a chunk."""
    match recurrence.lowering:
        case "attention":
            return True
        case "shared_product" | "segment" | "weights":
            return False
        case "loop" if recurrence.inside and pieces(graph, recurrence.members, recurrence.inside) != (1,):
            return True  # it is cut where chunks end
    return any(graph[m].period.count > 1 for m in recurrence.members)


def tail_lines(graph: Graph, kind: str) -> list[str]:
    """What becomes of the part chunks that a call leaves, of the memories of a kind of block."""
    ending = [m for m in graph.of(Memory, kind) if m.tail is not Tail.CARRY and in_sequence(m)]
    said = [f'"{place_of(graph, m)}": ("{graph[m.level].name}", "{m.tail.value}", {m.period.count})' for m in ending]
    return fit(f"tails = {{{', '.join(said)}}}") if said else []


def clocks(graph: Graph, level: Level) -> list[str]:
    """The clocks that the memories of a level tick by, of those written inside a sequence.

    Each memory whose tail no call outlives has a clock of its own; those of one carry show the same."""
    found: dict[tuple[bool, bool], Memory] = {}
    for memory in (graph[m] for m in level.memories if in_sequence(graph[m])):
        found.setdefault((memory.carry is Carry.STREAM, memory.tail is not Tail.CARRY), memory)
    lanes = {False: "sequence", True: "stream"}
    return [place_of(graph, memory) if own else lanes[lane] for (lane, own), memory in found.items()]


def apart(graph: Graph) -> dict[str, list[str]]:
    """The levels whose memories tick by several clocks, and which."""
    found = {level.name: clocks(graph, level) for level in graph.levels if level.period.count > 1}
    return {name: names for name, names in found.items() if len(names) > 1}


def count_lines(graph: Graph, tokens: str, clock: str = "clock", writing: str = "learn") -> list[str]:
    """How often each level that writes inside a sequence has fired: its ticks, even one that no token reads after."""
    lines = []
    for level in graph.levels:
        n, names = level.period.count, clocks(graph, level)
        if not names:
            continue
        at = f'{clock}["{names[0]}"]'
        times = tokens if n == 1 else f"({at} + {tokens}) // {n} - {at} // {n}"
        times = f'self.ticks("{level.name}", {n}, {clock}, {tokens})' if n > 1 and len(names) > 1 else times
        lines += fit(f'self.fired("{level.name}", {times} if "{level.name}" in {writing} else 0)', 2)
    return lines
