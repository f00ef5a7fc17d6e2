"""Causality: nothing depends on itself within one token.

Needs: values, reads and memories.
Establishes: a block's values in an order in which each comes after what it needs.
Refuses: a cycle that passes through no register, by its names; a read `after` a write that needs it.

A register breaks a cycle: a read before the write or at the chunk's first state needs only its query, `prev` needs
nothing of this token.  A read `after` needs everything its memory's write needs.
"""

from __future__ import annotations

from dataclasses import replace

from nlc.diagnostics import Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Input, Memory, Number, Op, Read, Value, When


def causality(graph: Graph) -> Graph:
    report = Reporter()
    _after_loss(graph, report)
    values = [n for n in graph.nodes.values() if isinstance(n, Input | Number | Op | Read)]
    order = _Order(graph, values, report)
    ordered = order.run()
    report.check()
    rest: dict[str, AnyNode] = {id: n for id, n in graph.nodes.items() if not isinstance(n, Input | Number | Op | Read)}
    return replace(graph, nodes={**{v.id: v for v in ordered}, **rest})


def write_needs(memory: Memory) -> list[str]:
    """The values of its own token that a memory's write needs."""
    needs = [v for pair in memory.pairs for v in pair]
    needs += [v for v in (memory.rate, memory.retain, memory.weigh) if v]
    return needs + [p.value for p in (*memory.rule.params, *memory.objective.params) if p.value]


def needs(graph: Graph, value: Value) -> list[str]:
    """The values of the same token that a value needs."""
    match value:
        case Op():
            return [] if value.op == "prev" else list(value.inputs)
        case Read():
            return [value.query, *(write_needs(graph[value.memory]) if value.when is When.AFTER else [])]
    return []


class _Order:
    """A depth-first walk: the order in which values can be computed, or the cycle that forbids one."""

    def __init__(self, graph: Graph, values: list[Value], report: Reporter) -> None:
        self.graph, self.values, self.report = graph, values, report
        self.done: dict[str, Value] = {}
        self.fields = [v for v in values if getattr(v, "field", "")]

    def run(self) -> list[Value]:
        reported = False
        for value in self.values:
            if value.id not in self.done and not reported:
                reported = self.visit(value)
        return list(self.done.values())

    def visit(self, start: Value) -> bool:
        """Order a value after what it needs; whether a cycle was reported.  Iterative: a block may be long."""
        path: dict[str, list[str]] = {start.id: needs(self.graph, start)}
        stack = [start.id]
        while stack:
            waiting = path[stack[-1]]
            if not waiting:
                id = stack.pop()
                self.done[id] = self.graph[id]
                continue
            id = waiting.pop(0)
            if id in self.done:
                continue
            if id in path:
                self.cycle(stack[stack.index(id) :])
                return True
            path[id] = needs(self.graph, self.graph[id])
            stack.append(id)
        return False

    def cycle(self, ids: list[str]) -> None:
        """Report a cycle, from the name that stands first in the file, in the order of dependence."""
        nodes = [self.graph[id] for id in ids]
        after = next((n for n in nodes if isinstance(n, Read) and n.when is When.AFTER), None)
        named = [n for n in nodes if getattr(n, "name", "") or (getattr(n, "field", "") == n.id)] or nodes
        first = min(range(len(named)), key=lambda i: (named[i].at.line, named[i].at.column))
        named = named[first:] + named[:first]
        names = [getattr(n, "name", "") or n.id for n in named]
        trail = " -> ".join([*names, names[0]])
        if after is not None and self.graph[after.memory].form.kind != "attention":
            message = f"'{names[0]}' reads '{after.memory}' after a write that needs it: {trail}"
            self.report.error("NLC0801", after.at, message, "read it before or at the chunk's first state")
            return
        note = "a cycle must pass through a memory's state; read one of these from 'before'"
        if len(names) == 1:
            note += ", or through prev()"
        self.report.error(
            "NLC0801", named[0].at, f"'{names[0]}' depends on itself within one token: {trail}", note=note
        )


def _after_loss(graph: Graph, report: Reporter) -> None:
    """What a token's loss teaches is not there when the token is read."""
    for read in graph.of(Read):
        memory = graph[read.memory]
        if read.when is When.AFTER and memory.form.kind != "attention" and memory.objective.kind == "loss":
            at = dict(memory.said).get("read", read.at) if memory.read is When.AFTER else read.at
            message = f"'{memory.id}' learns from the loss, which is known only after the token was read"
            report.error("NLC0801", at, message, "read it before, or at the chunk's first state")
