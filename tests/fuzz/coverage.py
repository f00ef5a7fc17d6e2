"""What of the language a program uses, read off its graph; and the counts of many programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Op, Read, Recurrence, Unit

Covered = dict[str, list[str]]


def covered(graph: Graph) -> Covered:
    """kind of thing -> what of it occurs, each once."""
    found: dict[str, set[str]] = {}

    def add(kind: str, *what: object) -> None:
        found.setdefault(kind, set()).update(str(getattr(w, "value", w)) for w in what)

    add("program", "bare" if graph.bare else "tokens")
    add("layers", len(graph.stack))
    add("heads", graph.sizes.get("heads", 0))
    add("kinds of block", len(set(graph.stack)))
    if not graph.bare:
        add("head", "tied" if graph.tied else "untied")
    for node in graph.nodes.values():
        match node:
            case Op():
                add("operator", node.op)
            case Read():
                add("read", "in a field" if node.field else node.when)
            case Recurrence():
                add("lowering", node.lowering)
            case Level():
                if node.rule is not None:
                    add("rule of a level that counts steps", node.rule.name)
                if node.period.unit is Unit.STEP:
                    add("steps", node.period.count)
            case Memory():
                _memory(graph, node, add)
    return {kind: sorted(what) for kind, what in sorted(found.items())}


def _memory(graph: Graph, memory: Memory, add: object) -> None:
    assert callable(add)
    add("form", memory.form.kind)
    add("carry", memory.carry)
    if memory.form.kind == "attention":
        return
    add("period", memory.period.unit if memory.period.unit is not Unit.TOKEN else f"{memory.period.count} tokens")
    add("start", memory.start)
    if memory.period.unit is not Unit.TOKEN:
        return
    add("objective", memory.objective.kind)
    add("rule", memory.rule.name)
    add("meta", memory.meta)
    add("tail", memory.tail)
    add("chunk", "1" if memory.chunk == 1 else "more")
    add("pairs", len(memory.pairs))
    add("state of the gradient", "kept" if memory.grad_at_kept else "old")
    add("retention", _retention(graph, memory))
    add("rate", "differs by token" if memory.rate_varies else "one for all")
    if any(p.value for p in memory.rule.params):
        add("parameter of a rule", "value of the block")
    if any(p.value for p in memory.objective.params):
        add("parameter of an objective", "value of the block")


def _retention(graph: Graph, memory: Memory) -> str:
    if not memory.retain:
        return "all"
    axes = len(graph[memory.retain].shape or ()) - len(memory.heads)
    by = "by channel" if axes > 0 else "by head" if axes == 0 and memory.heads else "one"
    return f"{by}, to {'the start' if memory.retain_to_start else 'zero'}"


def counted(programs: Iterable[Covered]) -> dict[str, dict[str, int]]:
    """kind -> what -> in how many programs."""
    counts: dict[str, Counter[str]] = {}
    for program in programs:
        for kind, what in program.items():
            counts.setdefault(kind, Counter()).update(what)
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}
