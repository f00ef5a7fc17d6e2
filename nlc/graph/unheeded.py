"""Fields of retention that a rule makes nothing of, since it sets the state itself: legal, and said at `nlc check`.

    unheeded(graph) -> (Diagnostic, ...)        warnings, each where its field is said

A rule that sets the weight at every update decides itself what is kept: `retain_to` says nothing beside it, and
`retain` nothing beside one that never reads it.  Where gradients are taken after retention (`grad_at: kept`)
both say something.  A level's field is heeded where one of its memories heeds it.
"""

from __future__ import annotations

from nlc.diagnostics import Diagnostic, Position
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory
from nlc.graph.specialise import keeps_no_share, sets_weight
from nlc.period import Unit


def unheeded(graph: Graph) -> tuple[Diagnostic, ...]:
    found: dict[Position, Diagnostic] = {}
    heeded: set[Position] = set()
    for memory in graph.of(Memory):
        if not memory.retain or memory.period.unit is Unit.NEVER:
            continue
        said, idle = dict(memory.said), _idle(memory)
        heeded |= {said.get(name, memory.at) for name in ("retain", "retain_to") if name in said and name != idle}
        if idle:
            at = said.get(idle, memory.at)
            why = f"rule {memory.rule.name} sets the state itself, so {idle} says nothing"
            found.setdefault(at, Diagnostic("NLC0411", at, f"memory '{memory.id}': {why}", "take it away"))
    return tuple(one for at, one in found.items() if at not in heeded)


def _idle(memory: Memory) -> str:
    """The field that its rule makes nothing of; where it is `retain`, `retain_to` goes with it."""
    if memory.grad_at_kept:
        return ""
    if keeps_no_share(memory.rule):
        return "retain"
    return "retain_to" if memory.retain_to_start and sets_weight(memory.rule) else ""
