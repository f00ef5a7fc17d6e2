"""The flow of a shared product, where it is one that a kernel knows: what the key, value, rate and retention are.

    k = l2norm(a read),  v = l2norm(a read) or a read,  all with one query
    rate = scale * sigmoid or softplus(one row read out of a box + shift), or nothing that is read in the loop
    retain = sigmoid(one row read out of a box + shift), or nothing that is read in the loop, or none

Proved from the expressions, whatever they are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nlc.graph.flow import reads_of, self_query
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Number, Op, Read, Recurrence


@dataclass(frozen=True)
class Gate:
    """scale * form(a read of `box` + shift).  form: sigmoid, softplus; given: no read of the loop; none."""

    form: str
    box: str = ""
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Gates:
    """Boxes by name.  unit_value: the value is normalised."""

    key: str
    value: str
    unit_value: bool
    rate: Gate
    keep: Gate


class Unknown(Exception):
    """Why no kernel knows the flow."""


def gates_of(graph: Graph, recurrence: Recurrence) -> Gates:
    """What the flow of a shared product is.  Raises Unknown."""
    first: Memory = graph[recurrence.members[0]]
    proof = _Proof(graph, recurrence)
    key = proof.read(proof.normalised(first.pairs[0][0], "the key"), "the key")
    target = graph[self_query(graph, first)]
    unit = isinstance(target, Op) and target.op == "l2norm"
    value = proof.read(target.inputs[0] if unit else target.id, "the value")
    rate = proof.gate(first.rate, "the rate", ("sigmoid", "softplus"))
    keep = proof.gate(first.retain, "the retention", ("sigmoid",)) if first.retain else Gate("none")
    if keep.scale != 1:
        raise Unknown(f"the retention is {keep.scale:g} times a sigmoid")
    proof.nothing_else([key, value, rate.box, keep.box])
    return Gates(key, value, unit, rate, keep)


class _Proof:
    def __init__(self, graph: Graph, recurrence: Recurrence) -> None:
        self.graph, self.recurrence = graph, recurrence
        self.reads = [r for r in reads_of(graph, recurrence.block, recurrence.members) if r.id in recurrence.inside]
        self.queries = {r.query for r in self.reads}

    def normalised(self, id: str, what: str) -> str:
        node = self.graph[id]
        if not (isinstance(node, Op) and node.op == "l2norm"):
            raise Unknown(f"{what} is no l2norm of a read")
        return node.inputs[0]

    def read(self, id: str, what: str) -> str:
        """The box that this value is read from, in the loop and with the one query."""
        node = self.graph[id]
        if not isinstance(node, Read) or node.id not in self.recurrence.inside:
            raise Unknown(f"{what} is made of more than a read")
        if len(self.queries) > 1:
            raise Unknown(f"boxes are read with {len(self.queries)} queries")
        memory: Memory = self.graph[node.memory]
        if memory.outer != memory.inner:
            raise Unknown(f"{what} is read from a box of width {memory.outer}, not {memory.inner}")
        return memory.name

    def gate(self, id: str, what: str, forms: Iterable[str]) -> Gate:
        if not self.depends(id):
            return Gate("given")
        scale, id = self.factor(id)
        node = self.graph[id]
        if not (isinstance(node, Op) and node.op in forms):
            raise Unknown(f"{what} is no {' or '.join(forms)} of what is read")
        shift, row = self.term(node.inputs[0])
        out = self.graph[row]
        if not (isinstance(out, Op) and out.op == "linear" and len(out.weights) == 1 and not out.name):
            raise Unknown(f"{what} is read out of its box by more than one linear map")
        if dict(out.options).get("out") != 1:
            raise Unknown(f"{what} is not one row for each head")
        box = self.read(out.inputs[0], what)
        if not self.graph[self.graph[out.inputs[0]].memory].heads:
            raise Unknown(f"{what} is read out of a box without heads")
        return Gate(node.op, box, scale, shift)

    def factor(self, id: str) -> tuple[float, str]:
        """A constant factor and what it multiplies."""
        node = self.graph[id]
        if isinstance(node, Op) and node.op == "mul":
            for a, b in (node.inputs, node.inputs[::-1]):
                if isinstance(number := self.graph[a], Number) and number.value > 0:
                    return float(number.value), b
        return 1.0, id

    def term(self, id: str) -> tuple[float, str]:
        """A constant term and what it is added to."""
        node = self.graph[id]
        if isinstance(node, Op) and node.op in ("add", "sub"):
            a, b = (self.graph[i] for i in node.inputs)
            if isinstance(b, Number):
                return float(b.value) * (1 if node.op == "add" else -1), a.id
            if isinstance(a, Number) and node.op == "add":
                return float(a.value), b.id
        return 0.0, id

    def depends(self, id: str) -> bool:
        """On a read of the loop."""
        if id in self.recurrence.inside:
            return True
        node = self.graph[id]
        return isinstance(node, Op) and any(self.depends(i) for i in node.inputs)

    def nothing_else(self, boxes: list[str]) -> None:
        """Each of these boxes is read once, and no other is."""
        wanted = sorted(box for box in boxes if box)
        found = sorted(self.graph[r.memory].name for r in self.reads)
        if len(set(wanted)) < len(wanted) or found != wanted:
            raise Unknown(
                f"the loop reads {', '.join(found)} where a kernel reads one box for each of {len(wanted)} uses"
            )
