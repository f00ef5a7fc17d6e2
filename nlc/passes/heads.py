"""Heads: a memory whose heads have several axes becomes one whose heads have one, counted row by row.

Needs: shapes, and every fact that names weights by their shape (owners).
Establishes: no memory has more than one axis of heads.  What it is read with, its keys, values, rates, retentions and
parameters are reshaped on their way in, what it gives on its way out; its weights and state have the one axis.
Refuses: fields that would not survive it: an objective that mixes the axes, a parameter of one for some of them, and
forms of one's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import prod

from nlc.diagnostics import Reporter
from nlc.equations import Binary, Call, walk
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Memory, Objective, Op, Param, Read, Rule, Shape, Value, Weight

MIXING = ("transpose", "merge", "heads", "outer", "trace", "eye", "newton_schulz")  # they look at more than one axis


def heads(graph: Graph) -> Graph:
    report = Reporter()
    wide = {m.id: m for m in graph.of(Memory) if len(m.heads) > 1}
    for memory in wide.values():
        _check(graph, memory, report)
    report.check()
    return _Folding(graph, wide).run() if wide else graph


def _check(graph: Graph, memory: Memory, report: Reporter) -> None:
    axes, said = ", ".join(map(str, memory.heads)), dict(memory.said)
    subject = f"memory '{memory.id}' has the axes [{axes}] of heads"
    tree = memory.objective.tree
    mixing = [e.func for e in walk(tree) if isinstance(e, Call) and e.func in MIXING] if tree is not None else []
    mixing += ["@" for e in walk(tree) if isinstance(e, Binary) and e.op == "@"] if tree is not None else []
    if mixing:
        message = f"{subject}: '{mixing[0]}' in its objective is not supported yet"
        report.error("NLC1001", said.get("objective", memory.at), message, "merge() them, or read it with fewer")
    if memory.form.kind not in ("matrix", "vector", "mlp", "swiglu", "attention"):
        message = f"{subject}: a form of one's own with more than one is not supported yet"
        report.error("NLC1001", said.get("form", memory.at), message, "merge() them, or read it with fewer")
    for param in memory.objective.params:
        shape = graph[param.value].shape if param.value else ()
        if 0 < len(shape) < len(memory.heads):
            message = f"{subject}: one '{param.name}' for some of them is not supported yet"
            report.error("NLC1001", said.get("objective", memory.at), message, "one for each head, or for all")


@dataclass
class _Folding:
    """The values in their order, with reshaped ones beside those that flow into and out of wide memories."""

    graph: Graph
    wide: dict[str, Memory]
    beside: dict[str, list[Op]] = field(default_factory=dict)  # id of a value -> what follows it
    folded: dict[tuple[str, int], str] = field(default_factory=dict)  # (id, axes) -> id of it with one axis of heads

    def run(self) -> Graph:
        reads = {r.id: self.read(r) for r in self.graph.of(Read) if r.memory in self.wide}
        memories = {m.id: self.memory(m) for m in self.wide.values()}
        weights = {w: self.weight(m, self.graph[w]) for m in self.wide.values() for w in m.weights}
        nodes: dict[str, AnyNode] = {}
        for id, node in self.graph.nodes.items():
            if id in reads:
                inner, outer = reads[id]
                nodes |= {inner.id: inner, outer.id: outer}
            else:
                nodes[id] = memories.get(id) or weights.get(id) or node
            nodes |= {op.id: op for op in self.beside.get(id, ())}
        return replace(self.graph, nodes=nodes)

    def read(self, read: Read) -> tuple[Read, Op]:
        """The read under an id of its own, and its result in all axes under the id that others know."""
        memory = self.wide[read.memory]
        axes = len(memory.heads)
        (*leading, width) = read.shape or ()
        inner = replace(
            read, id=f"{read.id}/folded", query=self.fold(read.query, axes), name="", version=0,
            shape=(prod(leading), width),
        )  # fmt: skip
        self.folded[read.id, axes] = inner.id
        outer = Op(id=read.id, at=read.at, block=read.block, op="unfold", inputs=(inner.id,),
                   options=(("sizes", tuple(leading)),), name=read.name, version=read.version, field=read.field,
                   shape=read.shape)  # fmt: skip
        return inner, outer

    def fold(self, id: str, axes: int) -> str:
        """The id of a value whose first axes are one; a number is as it is."""
        value: Value = self.graph[id]
        shape = value.shape or ()
        if len(shape) < axes:
            return id
        if (id, axes) not in self.folded:
            op = Op(id=f"{id}/fold", at=value.at, block=value.block, op="fold", inputs=(id,),
                    options=(("axes", axes),), field=getattr(value, "field", ""),
                    shape=(prod(shape[:axes]), *shape[axes:]))  # fmt: skip
            self.beside.setdefault(id, []).append(op)
            self.folded[id, axes] = op.id
        return self.folded[id, axes]

    def memory(self, memory: Memory) -> Memory:
        axes = len(memory.heads)

        def one(id: str) -> str:
            return self.fold(id, axes) if id else id

        def params(given: Iterable[Param]) -> tuple[Param, ...]:
            return tuple(replace(p, value=one(p.value)) if p.value else p for p in given)

        rule: Rule = replace(memory.rule, params=params(memory.rule.params))
        objective: Objective = replace(memory.objective, params=params(memory.objective.params))
        return replace(
            memory, heads=(prod(memory.heads),), pairs=tuple((one(k), one(v)) for k, v in memory.pairs),
            rate=one(memory.rate), retain=one(memory.retain), weigh=one(memory.weigh), rule=rule, objective=objective,
            parts=tuple((name, _folded(shape, axes)) for name, shape in memory.parts),
        )  # fmt: skip

    def weight(self, memory: Memory, weight: Weight) -> Weight:
        first = 1 if memory.form.kind == "attention" else 0  # persistent pairs are counted before the heads
        shape = weight.shape or ()
        return replace(weight, shape=(*shape[:first], *_folded(shape[first:], len(memory.heads))))


def _folded(shape: Shape, axes: int) -> Shape:
    return (prod(shape[:axes]), *shape[axes:])
