"""The graph: nodes by id, edges derived from their references, frozen once built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from nlc.graph.nodes import (
    AnyNode,
    Carry,
    Cost,
    Flow,
    Fused,
    Input,
    Level,
    Loss,
    Memory,
    Node,
    Number,
    Op,
    Output,
    Read,
    Recurrence,
    Run,
    Weight,
)

if TYPE_CHECKING:
    import networkx as nx

N = TypeVar("N", bound=Node)


@dataclass(frozen=True)
class Graph:
    """One program.  `nodes` is ordered: a block's values in program order, then its fields' values."""

    name: str
    file: str  # the spec's file, as the user named it
    doc: str
    sizes: Mapping[str, int]
    run: Run
    stack: tuple[str, ...]  # the block kind of each layer ("block" when there is one kind)
    tied: bool
    bare: bool  # a program with named inputs: no embedding, no head, no loss
    nodes: Mapping[str, AnyNode] = field(default_factory=dict)
    cost: Cost | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "sizes", MappingProxyType(dict(self.sizes)))

    def __getitem__(self, id: str) -> Any:
        return self.nodes[id]

    def of(self, kind: type[N], block: str | None = None) -> list[N]:
        """The nodes of one type, in order; of one block kind when given."""
        if (kind, block) not in self._found:
            nodes = self.nodes.values() if block is None else self.of(kind)
            found = (n for n in nodes if block is None or getattr(n, "block", None) == block)
            self._found[kind, block] = tuple(n for n in found if isinstance(n, kind))
        return list(self._found[kind, block])

    @cached_property
    def _found(self) -> dict[tuple[type, str | None], tuple[Any, ...]]:
        """What `of` was asked for: the interpreter asks at every token."""
        return {}

    @property
    def levels(self) -> list[Level]:
        """Fastest first (Definition 2) once pass levels has run."""
        return sorted(self.of(Level), key=lambda level: level.index)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block kinds, in order of first use."""
        return tuple(dict.fromkeys(self.stack))

    def with_nodes(self, nodes: Iterable[AnyNode]) -> Graph:
        """A graph in which these nodes replace those with their ids; new ones are appended."""
        return replace(self, nodes={**self.nodes, **{n.id: n for n in nodes}})

    @cached_property
    def net(self) -> nx.MultiDiGraph[str]:
        """The typed edges: `kind` is a Flow.  Frozen."""
        import networkx as nx  # here, since it takes longer to import than a spec takes to check

        net: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        net.add_nodes_from(self.nodes)
        for node in self.nodes.values():
            for source, target, kind in flows(node):
                net.add_edge(source, target, kind=kind)
        if not self.bare:
            for loss in self.of(Loss):
                learning = [m.id for m in self.of(Memory) if m.objective.kind == "loss" and m.carry is not Carry.MODEL]
                learning += [w for level in self.of(Level) if level.objective == "loss" for w in level.weights]
                for id in learning:
                    net.add_edge(loss.id, id, kind=Flow.ERROR)
        frozen: nx.MultiDiGraph[str] = nx.freeze(net)
        return frozen


def flows(node: AnyNode) -> list[tuple[str, str, Flow]]:
    """(source, target, kind) for every reference a node holds."""
    match node:
        case Op():
            return [(i, node.id, Flow.DATA) for i in node.inputs] + [(w, node.id, Flow.WEIGHT) for w in node.weights]
        case Read():
            return [(node.memory, node.id, Flow.READS), (node.query, node.id, Flow.QUERY)]
        case Memory():
            edges = [(w, node.id, Flow.WEIGHT) for w in node.form_weights]
            edges += [(i, node.id, Flow.INITIALISES) for i in (*node.weights, *([node.nest] if node.nest else []))]
            for key, value in node.pairs:
                edges += [(key, node.id, Flow.KEY), (value, node.id, Flow.VALUE)]
            fields = ((node.rate, Flow.RATE), (node.retain, Flow.RETAIN), (node.weigh, Flow.RATE))
            edges += [(v, node.id, kind) for v, kind in fields if v]
            edges += [(p.value, node.id, Flow.RULE) for p in node.rule.params if p.value]
            edges += [(p.value, node.id, Flow.OBJECTIVE) for p in node.objective.params if p.value]
            return edges
        case Level():
            return [(node.id, i, Flow.OWNS) for i in (*node.memories, *node.weights)]
        case Output():
            return [(node.value, node.id, Flow.DATA)]
        case Input() | Number() | Weight() | Recurrence() | Fused() | Loss():
            return []
    raise TypeError(f"unexpected node {node!r}")
