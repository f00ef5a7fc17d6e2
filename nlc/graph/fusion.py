"""Operators that one kernel computes together, found in the expressions whatever they are called.

    convolution   conv, then silu, heads and l2norm or rmsnorm of every head, as many of them as follow one another
    gated_norm    rmsnorm(a) * act(b), act silu, sigmoid or gelu; the norm of every head too, where its heads are merged

Nothing else may use a value in between, which no longer exists.  A gated norm may have its factors under names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from nlc.graph.graph import Graph, flows
from nlc.graph.nodes import Fused, Input, Op, Read, Recurrence

TAPS = (2, 8)
CHANNELS = (16, 256)  # over which a norm after a convolution may go
ROW = 8192  # over which a gated norm may
GATES = ("silu", "sigmoid", "gelu")
NORMS = ("l2norm", "rmsnorm")


def fusions(graph: Graph) -> Iterator[Fused]:
    """Every convolution of the graph and every gated norm, with the reason where no kernel computes it."""
    found = _Found(graph)
    for op in graph.of(Op):
        if op.op == "conv":
            yield found.convolution(op)
        elif members := found.gates.get(op.id):
            said = "norm, gate and their product in one pass: 12 bytes a number, not 28, and 20 backward, not 56"
            yield _fused(op, "gated_norm", members, f"a kernel: {said}")


def _fused(last: Op, kernel: str, members: tuple[str, ...], placed: str) -> Fused:
    return Fused(id=f"{last.id}/fused", at=last.at, block=last.block, kernel=kernel, members=members, placed=placed)


class _Found:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.looped = {id for r in graph.of(Recurrence) for id in r.inside}
        self.users: dict[str, list[str]] = defaultdict(list)
        for node in graph.nodes.values():
            for source, target, _ in flows(node):
                self.users[source].append(target)
        self.gates = {op.id: members for op in graph.of(Op) if op.op == "mul" and (members := self.gated(op))}
        self.taken = set().union(*self.gates.values())  # by a gated norm, which comes first: it spares more

    def convolution(self, conv: Op) -> Fused:
        against = self.refused(conv)
        if against:
            return _fused(conv, "", (conv.id,), f"PyTorch: {against}")
        members = [conv]
        while following := self.follows(members):
            members.append(following)
        taps, steps = dict(conv.options)["window"], [m.op for m in members[1:]]
        passes = 8 + (12 * taps - 4) + sum({"silu": 8, "l2norm": 12, "rmsnorm": 8}.get(step, 0) for step in steps)
        said = f"{' and '.join(filter(None, [f'{taps} taps', ', '.join(steps)]))} in one pass"
        ids = tuple(m.id for m in members)
        return _fused(members[-1], "convolution", ids, f"a kernel: {said}: 8 bytes a number, not {passes}")

    def refused(self, conv: Op) -> str:
        taps = dict(conv.options)["window"]
        if conv.id in self.looped:
            return "the convolution is inside of a loop over tokens"
        return "" if TAPS[0] <= taps <= TAPS[1] else f"{taps} taps, expected {TAPS[0]} to {TAPS[1]}"

    def follows(self, members: list[Op]) -> Op | None:
        """What alone uses the last of them and may be computed with it."""
        last, seen = members[-1], {m.op for m in members}
        users = self.users[last.id]
        if last.name or len(users) != 1 or last.op in NORMS:
            return None
        node = self.graph[users[0]]
        if not isinstance(node, Op) or node.id in self.looped | self.taken or node.op in seen:
            return None
        if node.op in NORMS:
            return node if CHANNELS[0] <= (node.shape or (0,))[-1] <= CHANNELS[1] else None
        return node if node.op in ("silu", "heads") else None

    def gated(self, mul: Op) -> tuple[str, ...]:
        """The factors and what is between them and the product; empty where it is no gated norm."""
        if mul.id in self.looped:
            return ()
        for a, b in (mul.inputs, mul.inputs[::-1]):
            side, gate = self.graph[a], self.graph[b]
            norm = self.graph[side.inputs[0]] if isinstance(side, Op) and side.op == "merge" else side
            if not (isinstance(norm, Op) and norm.op == "rmsnorm" and isinstance(gate, Op) and gate.op in GATES):
                continue
            between = dict.fromkeys((norm.id, side.id, gate.id))
            alone = all(len(self.users[i]) == 1 and i not in self.looped for i in between)
            fits = side.shape == gate.shape and (norm.shape or (0,))[-1] <= ROW
            if alone and fits and self.of_tokens(norm.id) and self.of_tokens(gate.id):
                return (*between, mul.id)
        return ()

    def of_tokens(self, id: str) -> bool:
        """Whether a value differs from token to token."""
        node = self.graph[id]
        return isinstance(node, Input | Read) or (isinstance(node, Op) and any(map(self.of_tokens, node.inputs)))
