"""Names: one name, one thing.

Needs: the graph as built.
Establishes: no two memories, weights or levels answer to one name, in a spec or in generated code; a weight used in
several places is used by `name=`.
Refuses: a name with two meanings, such as a memory called like an operator.
"""

from __future__ import annotations

from collections import defaultdict

from nlc.diagnostics import Reporter, suggest
from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Op, Weight
from nlc.operators import CALLABLE


def names(graph: Graph) -> Graph:
    report = Reporter()
    for memory in graph.of(Memory):
        if memory.name in CALLABLE or memory.name == "learned":
            report.error(
                "NLC0504",
                memory.at,
                f"a memory called '{memory.name}', which is an operator",
                "a call could mean either",
            )
    _alike(graph, report)
    _weights(graph, report)
    _levels(graph, report)
    report.check()
    return graph


def _alike(graph: Graph, report: Reporter) -> None:
    """Memories, and levels, must differ in letters and digits, in either case: generated code has names for both."""
    for nodes in (graph.of(Memory), graph.of(Level)):
        seen: dict[str, Memory | Level] = {}
        for node in nodes:
            called = node.id if isinstance(node, Memory) else node.name
            other = seen.setdefault("".join(c if c.isalnum() else "_" for c in called).casefold(), node)
            before = other.id if isinstance(other, Memory) else other.name
            if before != called:
                message = f"'{called}' and '{before}' would be called the same in the generated code"
                report.error("NLC0504", node.at, message, "call one of them something else: case and _ do not tell")


def _weights(graph: Graph, report: Reporter) -> None:
    """A weight belongs to one memory, or to operators of one kind that share it."""
    users: dict[str, list[Op | Memory]] = defaultdict(list)
    nodes = [*graph.nodes.values(), *(inside for m in graph.of(Memory) for inside in m.form.body)]
    for node in nodes:
        if isinstance(node, Op | Memory):
            for id in node.weights:
                users[id].append(node)
    for id, found in users.items():
        kinds = {n.op if isinstance(n, Op) else "memory" for n in found}
        if len(kinds) > 1:
            weight = graph[id]
            message = f"the weight '{weight.path}' belongs to {' and '.join(sorted(kinds))} at once"
            report.error("NLC0504", found[-1].at, message, "give one of them another name=")
    _inside(graph, report)


def _inside(graph: Graph, report: Reporter) -> None:
    """No weight has others inside it: the path of each is that of a tensor, not of a module."""
    levels = {level.name.split(".")[0] for level in graph.of(Level)}
    weights = graph.of(Weight)
    for outer in weights:
        inner = next((w for w in weights if w.id.startswith(outer.id + ".")), None)
        if inner is None:
            continue
        message = f"'{outer.path}' is a weight, and so is '{inner.path}' inside it"
        if outer.path in levels:
            message = f"'{outer.path}' is a weight and a level, and '{inner.path}' would be inside both"
        report.error("NLC0504", outer.at, message, "give the weight another name=")


def _levels(graph: Graph, report: Reporter) -> None:
    seen: dict[str, Level] = {}
    for level in graph.of(Level):
        if level.name in seen:
            report.error("NLC0211", level.at, f"two levels are called '{level.name}'", suggest(level.name, seen))
        seen[level.name] = level
