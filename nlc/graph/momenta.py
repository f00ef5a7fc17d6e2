"""What update rules remember, as what it is: memories of gradients, each in a level of its own frequency.

    momenta(graph) -> [Momenta, ...]

A rule's level that runs once in n updates of its owner, a memory or a level of weights, is written once in n of the
owner's periods.  So Adam's m and v are written as often as the weights; M3's slow momentum once in ten times as many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Period, Rule, Unit


@dataclass(frozen=True, slots=True)
class Momenta:
    """One level of a rule: the memories that it writes."""

    id: str
    owner: str  # id of the memory, or of the level of weights, whose gradients they are
    of: str  # its name
    rule: str
    period: Period
    names: tuple[str, ...]


def momenta(graph: Graph) -> list[Momenta]:
    """Of every rule that keeps something, in the order of the graph."""
    found = []
    for node in graph.nodes.values():
        match node:
            case Level(rule=Rule() as rule) if node.weights:
                found += _levels(node.id, node.name, rule, node.period)
            case Memory(period=Period(unit=Unit.TOKEN)) if node.period.count and graph[node.level].rule is None:
                found += _levels(node.id, node.id.split("/")[-1], node.rule, node.period)
    return found


def _levels(owner: str, of: str, rule: Rule, period: Period) -> list[Momenta]:
    found = []
    for i, level in enumerate(rule.levels, 1):
        names = (*level.state, *(memory.name for memory in level.memories))
        if names:
            slower = replace(period, count=period.count * level.period)
            found.append(Momenta(f"{owner} {rule.name} {i}", owner, of, rule.name, slower, names))
    return found


def said(found: Momenta) -> str:
    """train, adamw: every step"""
    every = f"every {found.period.unit.value}" if found.period.count == 1 else f"every {found.period}"
    return f"{found.of}, {found.rule}: {every}"
