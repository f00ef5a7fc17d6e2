"""One kind of block: its equations in an order a run of tokens can compute, memories where they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from codegen.axes import Axes
from codegen.equations import spec_text
from codegen.expressions import STATEFUL, Scope
from codegen.fused import by_value, convolution_call, gated_norm_text
from codegen.layout import cited, comment, fit
from codegen.names import local
from codegen.places import place_of
from nlc.graph.flow import self_query, sources
from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Memory, Number, Op, Output, Read, Recurrence, Value


@dataclass
class Emitter:
    """Statements of a block's forward, in an order that respects every dependency."""

    graph: Graph
    block: str
    axes: Axes
    lower: Callable[[Emitter, Recurrence, Read | None], None]  # emits a recurrence: codegen.lowerings.compute
    own: bool  # some level learns from each token's own error: reads must let it pass
    scope: Scope = field(init=False)
    lines: list[str] = field(default_factory=list)
    calls: dict[str, dict[str, str]] = field(default_factory=dict)  # memory written at ticks -> the taps of each read
    functions: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    final: bool = False  # some statement asks whether anybody reads the state afterwards
    owner: dict[str, str] = field(default_factory=dict)  # python variable -> value it holds
    given: dict[str, str] = field(default_factory=dict)  # memory -> the variable of its form with its weights

    def __post_init__(self) -> None:
        self.scope = Scope(self.graph, position="t")
        graph, block = self.graph, self.block
        self.values: dict[str, Value] = {
            n.id: n for n in graph.nodes.values() if isinstance(n, Input | Number | Op | Read) and n.block == block
        }
        self.recurrences = {m: r for r in graph.of(Recurrence, block) for m in r.members}
        self.targets = {v for m in graph.of(Memory, block) if self_query(graph, m) for _, v in m.pairs}
        self.products = {i: r for r in graph.of(Recurrence, block) for i in r.inside}
        fused = by_value(graph, block)
        self.convolutions = {id: f for id, f in fused.items() if f.kernel == "convolution"}
        self.scope.fused = {
            id: partial(gated_norm_text, fused=f) for id, f in fused.items() if f.kernel == "gated_norm"
        }
        self.within = {m: id for id, f in fused.items() for m in f.members[:-1]}  # no value of its own -> of what
        self.uses = self._uses()
        for node in graph.of(Input, block):
            self.define(node.id, self.variable(node.name, node.id))
            self.scope.like = self.scope.like or self.scope.names[node.id]

    # ---- names ----------------------------------------------------------------------------------------------------

    def variable(self, name: str, id: str, again: frozenset[str] = frozenset()) -> str:
        """A Python name with the shape's letters; one still in use by an earlier value gets a number.

        `again`: statements of a loop that this one is in; each turn needs what they use of the values before it."""
        suffix = self.axes.suffix(self.graph[id].shape or (), tokens=not self.scope.tokenless(id))
        for n in ("", *range(2, 100)):
            text = local(f"{name}{n}{suffix}")
            holder = self.owner.get(text)
            done = self.done | {id} if holder in again else (self.done | {id}) - again
            if holder is None or holder == id or self.uses.get(holder, set()) <= done:
                return text
        raise AssertionError(name)

    def claim(self, name: str, id: str, again: frozenset[str] = frozenset()) -> str:
        """A variable that no other value may take before this one is defined."""
        text = self.variable(name, id, again)
        self.owner[text] = id
        return text

    def keep(self, text: str) -> None:
        """A variable of the emitter's own, which no value may take."""
        self.owner[text] = text
        self.uses[text] = {"the whole block"}

    def define(self, id: str, text: str) -> None:
        self.owner[text] = id
        self.scope.names[id] = text
        self.done.add(id)

    def _uses(self) -> dict[str, set[str]]:
        """For every value the statements that will contain it: names, registers, reads, memories, outputs."""
        found: dict[str, set[str]] = {}

        def spread(id: str, root: str) -> None:
            found.setdefault(id, set()).add(root)
            node = self.graph[id]
            if isinstance(node, Op) and not self.is_statement(id):
                for i in node.inputs:
                    spread(i, root)

        for id, node in self.values.items():
            if isinstance(node, Op) and self.is_statement(id):
                for i in node.inputs:
                    spread(i, id)
            if isinstance(node, Read) and id not in self.targets:
                spread(node.query, id)
        for memory in self.graph.of(Memory, self.block):
            for source in sources(self.graph, memory):
                spread(source, self.recurrences[memory.id].id)
        for output in self.graph.of(Output, self.block):
            spread(output.value, output.id)
        return found

    def is_statement(self, id: str) -> bool:
        node = self.graph[id]
        if not isinstance(node, Op) or id in self.within:
            return False
        return bool(node.name or node.op in STATEFUL or id in self.convolutions)

    # ---- statements -----------------------------------------------------------------------------------------------

    def say(self, text: str, indent: int = 0) -> None:
        self.lines += fit(text, indent + 2)

    def equation(self, id: str) -> None:
        """The spec's own line above the statement that lowers it."""
        node = self.graph[id]
        if node.name and not node.field:
            self.lines += comment(f"{node.name} = {spec_text(self.graph, id)}", cited(node.at), 2)

    def all(self) -> None:
        """Every statement of the block in the spec's order, then whatever the state still needs."""
        for id, node in self.values.items():
            if id in self.products:
                self.compute(self.products[id], None)
            elif isinstance(node, Op | Read) and node.name and not node.field and self.uses.get(id):
                self.need(id)
        for output in self.graph.of(Output, self.block):
            self.need(output.value)
        for recurrence in self.graph.of(Recurrence, self.block):
            self.compute(recurrence, None)

    def need(self, id: str) -> None:
        """Compute whatever a value's text needs, and the value itself when it is a statement."""
        node = self.graph[id]
        if self.within.get(id) in self.convolutions:
            self.need(self.within[id])
            return
        if id in self.products:
            self.compute(self.products[id], None)
        if id in self.scope.names or id in self.scope.logs or isinstance(node, Number):
            return
        if isinstance(node, Op) and node.op == "item" and self.siblings(node):
            self.split(node)
            return
        for leaf in self.leaves(id):
            self.need(leaf)
        if id in self.scope.names:  # a loop that a leaf needed holds this value too
            return
        self.equation(id)
        if isinstance(node, Read):
            self.compute(self.recurrences[node.memory], node)
        elif isinstance(node, Op):
            self.hoist(node)
            if node.op in STATEFUL or id in self.convolutions:
                self.register(node)
            elif self.is_statement(id):
                self.assign(id, node.name, self.scope.text(id))

    def leaves(self, id: str) -> list[str]:
        """The values a value is written from that have statements of their own with a name in the spec."""
        node = self.graph[id]
        found: list[str] = []
        for i in [node.query] if isinstance(node, Read) else list(getattr(node, "inputs", ())):
            if i in self.scope.names:
                continue
            below = self.graph[i]
            named = getattr(below, "name", "") and not isinstance(below, Input) and i not in self.within
            found += [i] if named else self.leaves(i)
        return list(dict.fromkeys(found))

    def hoist(self, node: Op) -> None:
        """Reads and registers inside an expression, as statements in front of it."""
        for i in node.inputs:
            below = self.graph[i]
            if i in self.scope.names or isinstance(below, Number):
                continue
            stateful = isinstance(below, Op) and below.op in STATEFUL and i not in self.within
            if isinstance(below, Read) or stateful or i in self.products or i in self.convolutions:
                self.need(i)
            elif isinstance(below, Op):
                self.hoist(below)

    def compute(self, recurrence: Recurrence, read: Read | None) -> None:
        self.lower(self, recurrence, read)

    def assign(self, id: str, name: str, text: str) -> None:
        variable = self.variable(name, id)
        self.say(f"{variable} = {text}")
        self.define(id, variable)

    def siblings(self, node: Op) -> list[Op]:
        items = [n for n in self.values.values() if isinstance(n, Op) and n.op == "item" and n.inputs == node.inputs]
        return items if all(n.name for n in items) and not self.is_statement(node.inputs[0]) else []

    def split(self, node: Op) -> None:
        """a, b = split(v, ...) as one statement."""
        items = sorted(self.siblings(node), key=lambda n: dict(n.options)["index"])
        source = self.graph[node.inputs[0]]
        for i in source.inputs:
            self.need(i)
        names = ", ".join(n.name for n in items)
        self.lines += comment(f"{names} = {spec_text(self.graph, source.id)}", cited(node.at), 2)
        text = self.scope.text(source.id)
        count = 1 + max(dict(n.options)["index"] for n in items)
        targets = ["_"] * count
        for n in items:
            targets[dict(n.options)["index"]] = self.variable(n.name, n.id)
        self.say(f"{', '.join(targets)} = {text}")
        for n in items:
            self.define(n.id, targets[dict(n.options)["index"]])

    def register(self, node: Op) -> None:
        """conv and prev: a value and what the next call must remember."""
        if node.id in self.convolutions:
            self.convolution(node)
            return
        place, text = place_of(self.graph, node), self.scope.text(node.inputs[0])
        if self.scope.tokenless(node.inputs[0]):
            text = self.scope.spread(node.inputs[0])
        variable = self.variable(node.name or node.op, node.id)
        if node.op == "conv":
            self.scope.runtime.add("causal_conv")
            weight = self.scope.weight(self.graph[node.weights[0]].path)
            call = f'causal_conv({text}, {weight}, s["{place}"]["past"])'
        else:
            self.scope.runtime.add("previous")
            call = f'previous({text}, s["{place}"]["past"])'
        self.say(f"{variable}, history = {call}")
        self.say(f's["{place}"] = {{"past": history}}')
        self.define(node.id, variable)

    def convolution(self, last: Op) -> None:
        """A convolution with what follows of it, in one call."""
        fused = self.convolutions[last.id]
        variable = self.variable(last.name or "conv", last.id)
        self.say(f"{variable}, history = {convolution_call(self.scope, fused)}")
        self.say(f's["{place_of(self.graph, self.graph[fused.members[0]])}"] = {{"past": history}}')
        self.define(last.id, variable)
