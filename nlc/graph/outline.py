"""What a drawing shows of a graph: memories, levels and loss, and the typed flows between them, operators left out.

    outline(graph) -> Outline

A flow goes from a memory (its output), the tokens, the loss or a level to a memory, a level or what leaves.  Its role
is the kind of edge: query, key, value, rate, retain, rule, objective, output, error, initialises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Input, Level, Memory, Op, Output, Read, Unit, Value

TOKENS, OUT, LOSS = "tokens", "out", "loss"
ROLES = ("query", "output", "key", "value", "rate", "retain", "rule", "objective", "error", "initialises")


@dataclass(frozen=True, slots=True)
class Link:
    source: str  # id of a memory or level, or TOKENS, LOSS
    target: str  # id of a memory or level, or OUT
    role: str
    label: str = ""  # the value's name in the block, where it has one


@dataclass(frozen=True, slots=True)
class Outline:
    memories: tuple[Memory, ...]  # in the order they are first read
    levels: tuple[Level, ...]  # fastest first
    links: tuple[Link, ...]
    own_values: frozenset[str]  # memories that generate their own values
    outputs: dict[str, str]  # memory -> the name its output gets in the block

    def into(self, target: str, *roles: str) -> list[Link]:
        return [f for f in self.links if f.target == target and f.role in roles]

    def out_of(self, source: str, *roles: str) -> list[Link]:
        return [f for f in self.links if f.source == source and f.role in roles]


def outline(graph: Graph) -> Outline:
    """The memories and levels of a graph after pass levels, and what flows between them."""
    found: dict[Link, None] = {}
    own: set[str] = set()
    for memory in graph.of(Memory):
        for link in _memory(graph, memory, own):
            found[link] = None
    for out in graph.of(Output):
        for source in sources(graph, out.value):
            if source != TOKENS:
                found[Link(source, OUT, "output", out.name if graph.bare else _output_name(graph, source))] = None
    for link in _learning(graph):
        found[link] = None
    outputs = {m.id: _output_name(graph, m.id) for m in graph.of(Memory)}
    return Outline(_by_first_read(graph), tuple(graph.levels), tuple(found), frozenset(own), outputs)


def _memory(graph: Graph, memory: Memory, own: set[str]) -> Iterator[Link]:
    for read in graph.of(Read, memory.block):
        if read.memory == memory.id and not _own(graph, memory, read):
            for source in sources(graph, read.query):
                yield Link(source, memory.id, "query", name_of(graph, read.query))
    for key, value in memory.pairs:
        for source in sources(graph, key):
            yield Link(source, memory.id, "key", name_of(graph, key))
        node = graph[value]
        if isinstance(node, Read) and node.memory == memory.id:
            own.add(memory.id)
            value = node.query
        for source in sources(graph, value):
            yield Link(source, memory.id, "value", name_of(graph, value))
    fields = [("rate", memory.rate, "rate"), ("retain", memory.retain, "retain")]
    fields += [("rule", p.value or "", p.name) for p in memory.rule.params]
    fields += [("objective", p.value or "", p.name) for p in memory.objective.params]
    for role, id, label in fields:
        for source in sources(graph, id) if id else ():
            yield Link(source, memory.id, role, label)


def _own(graph: Graph, memory: Memory, read: Read) -> bool:
    return any(value == read.id for _, value in memory.pairs)


def sources(graph: Graph, id: str) -> list[str]:
    """The memories whose output a value is made of, and the tokens, in order of appearance."""
    found: dict[str, None] = {}
    waiting, seen = [id], set[str]()
    while waiting:
        node: Value = graph[waiting.pop(0)]
        if node.id in seen:
            continue
        seen.add(node.id)
        match node:
            case Read():
                found[node.memory] = None
            case Input():
                found[TOKENS] = None
            case Op():
                waiting += node.inputs
    return list(found)


def name_of(graph: Graph, id: str) -> str:
    """The name a value has in the block, "" for one inside an expression."""
    node = graph[id]
    return str(getattr(node, "name", ""))


def _output_name(graph: Graph, memory: str) -> str:
    """The first name given to what a memory's output becomes; "" where another memory reads it first."""
    read = next((r for r in graph.of(Read) if r.memory == memory and not r.field), None)
    id = read.id if read else ""
    while id and not name_of(graph, id):
        id = next((op.id for op in graph.of(Op) if id in op.inputs), "")
    return name_of(graph, id) if id else ""


def _learning(graph: Graph) -> Iterator[Link]:
    """What learns from the loss, and what a level's weights begin."""
    for memory in graph.of(Memory):
        if memory.objective.kind == "loss" and memory.period.unit is Unit.TOKEN:
            yield Link(LOSS, memory.id, "error")
        if memory.nest and graph[memory.nest].of:
            yield Link(memory.nest, memory.id, "initialises")
        elif memory.carry is not Carry.MODEL:
            for owner in dict.fromkeys(owner for w in memory.weights for owner in graph[w].by):
                if owner:
                    yield Link(owner, memory.id, "initialises")
    for level in graph.of(Level):
        if level.objective == "loss" and level.weights:
            yield Link(LOSS, level.id, "error")


def _by_first_read(graph: Graph) -> tuple[Memory, ...]:
    order: dict[str, int] = {}
    for node in graph.nodes.values():
        if isinstance(node, Read):
            order.setdefault(node.memory, len(order))
    kinds = {kind: i for i, kind in enumerate(graph.blocks)}
    return tuple(sorted(graph.of(Memory), key=lambda m: (kinds[m.block], order.get(m.id, len(order)))))
