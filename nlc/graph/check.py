"""Invariants of the graph, stated apart from the passes and tested between them.  A violation is ours: CompilerBug.

check(graph, after)      everything that must hold once the pass `after` has run
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from nlc.diagnostics import CompilerBug
from nlc.graph.graph import Graph, flows
from nlc.graph.nodes import Carry, Input, Level, Memory, Number, Op, Output, Read, Recurrence, Unit, Weight
from nlc.operators import OPERATORS

VALUES = (Input, Number, Op, Read)
ORDER = (
    "build",
    "names",
    "causality",
    "shapes",
    "clocks",
    "owners",
    "gradients",
    "still",
    "levels",
    "heads",
    "chunks",
    "share",
    "cost",
    "keep",
)


def check(graph: Graph, after: str) -> None:
    """Raise CompilerBug at the first invariant that does not hold."""
    for since, name, holds in INVARIANTS:
        if ORDER.index(after) >= ORDER.index(since):
            for id in holds(graph):
                raise CompilerBug(f"after pass {after}: {name}: {id}")


def _references(graph: Graph) -> list[str]:
    """Every reference names a node."""
    return [
        f"{s} -> {t}"
        for n in graph.nodes.values()
        for s, t, _ in flows(n)
        if s not in graph.nodes or t not in graph.nodes
    ]


def _ids(graph: Graph) -> list[str]:
    return [id for id, node in graph.nodes.items() if node.id != id]


def _operators(graph: Graph) -> list[str]:
    """Operators exist and take what they are given."""
    bad = []
    for op in graph.of(Op):
        known = OPERATORS.get(op.op)
        least, most = known.operands if known else (0, 0)
        if (
            known is None
            or len(op.inputs) < least
            or (most is not None and len(op.inputs) > most)
            or list(op.options) != sorted(op.options)
        ):
            bad.append(op.id)
    return bad


def _kinds(graph: Graph) -> list[str]:
    """References point at the right kind of node, within one block."""
    bad = []
    for node in graph.nodes.values():
        match node:
            case Op():
                fits = all(isinstance(graph[i], VALUES) and graph[i].block == node.block for i in node.inputs)
                fits &= all(isinstance(graph[w], Weight) for w in node.weights)
            case Read():
                fits = (
                    isinstance(graph[node.memory], Memory)
                    and graph[node.memory].block == node.block
                    and isinstance(graph[node.query], VALUES)
                )
            case Memory():
                fits = isinstance(graph[node.level], Level) and node.id in graph[node.level].memories
                fits &= all(isinstance(graph[v], VALUES) for pair in node.pairs for v in pair)
            case Output():
                fits = isinstance(graph[node.value], VALUES)
            case _:
                fits = True
        if not fits:
            bad.append(node.id)
    return bad


def _one_name(graph: Graph) -> list[str]:
    """Single assignment: a name and version is one value of a block."""
    seen: set[tuple[str, str, int]] = set()
    bad = []
    for node in graph.nodes.values():
        if isinstance(node, Op | Read) and node.name:
            key = (node.block, node.name, node.version)
            bad += [node.id] if key in seen else []
            seen.add(key)
    return bad


def _shaped(graph: Graph) -> list[str]:
    """Everything has a shape; memories have widths and the parts of their form."""
    bad = [n.id for n in graph.nodes.values() if isinstance(n, Op | Read | Weight) and n.shape is None]
    bad += [w.id for w in graph.of(Weight) if w.scale is None]
    for memory in graph.of(Memory):
        if not memory.inner or not memory.outer or memory.form.times:
            bad.append(memory.id)
        if memory.parts and memory.weights and [graph[w].shape for w in memory.weights] != [s for _, s in memory.parts]:
            bad.append(memory.id)
        if memory.parts and prod(memory.heads) < 1:
            bad.append(memory.id)
    return bad


def _clocked(graph: Graph) -> list[str]:
    """Tokens count what a sequence or lane holds; steps, tasks and never what the model holds."""
    bad = [m.id for m in graph.of(Memory) if m.period != graph[m.level].period]
    for memory in graph.of(Memory):
        tokens = memory.period.unit is Unit.TOKEN
        if memory.period.unit is not Unit.NEVER and tokens == (memory.carry is Carry.MODEL):
            bad.append(memory.id)
    return bad


def _unwritten(graph: Graph) -> list[str]:
    """Nothing flows into a write that never comes."""
    never = [m for m in graph.of(Memory) if m.period.unit is Unit.NEVER]
    return [m.id for m in never if m.pairs or m.rate or m.retain or m.weigh or m.nest]


def _owned(graph: Graph) -> list[str]:
    bad = [w.id for w in graph.of(Weight) for owner in w.by if owner and w.id not in graph[owner].weights]
    return bad + [w.id for w in graph.of(Weight) if not all(w.by) and not graph.bare]


def _ordered(graph: Graph) -> list[str]:
    """A value stands after what it needs of its own token."""
    place = {id: i for i, id in enumerate(graph.nodes)}
    bad = [op.id for op in graph.of(Op) if op.op != "prev" and any(place[i] > place[op.id] for i in op.inputs)]
    return bad + [r.id for r in graph.of(Read) if place[r.query] > place[r.id]]


def _indexed(graph: Graph) -> list[str]:
    """Levels are numbered from 1 without gaps."""
    found = sorted({level.index for level in graph.of(Level)})
    return [] if found == list(range(1, len(found) + 1)) else ["levels"]


def _computed(graph: Graph) -> list[str]:
    """Every memory is computed by exactly one recurrence."""
    members = [m for r in graph.of(Recurrence) for m in r.members]
    return [m.id for m in graph.of(Memory) if members.count(m.id) != 1]


INVARIANTS: tuple[tuple[str, str, Callable[[Graph], list[str]]], ...] = (
    ("build", "a node is filed under its id", _ids),
    ("build", "every reference names a node", _references),
    ("build", "an operator is known and takes its operands", _operators),
    ("build", "a reference points at the right kind of node", _kinds),
    ("build", "a name and version is one value", _one_name),
    ("shapes", "everything has a shape", _shaped),
    ("clocks", "a period is counted in its own clock", _clocked),
    ("owners", "every weight has an owner, which knows it", _owned),
    ("causality", "a value stands after what it needs", _ordered),
    ("still", "what is never written needs nothing", _unwritten),
    ("levels", "levels are numbered", _indexed),
    ("chunks", "every memory is computed once", _computed),
)
