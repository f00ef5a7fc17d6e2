"""Memories that feed their own writes, and recursion through prev: a loop over pieces of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.boxes import together
from codegen.layout import fit
from codegen.memories import (
    attention_call,
    clock_of,
    form_of,
    headline,
    holds,
    keep_pairs,
    memory_call,
    pair,
    start_parts,
    straight,
    taps_name,
)
from codegen.names import function_name, local
from codegen.places import place_of
from codegen.written_forms import constant_of
from nlc.graph.flow import asked_with, pieces, reads_of, sources
from nlc.graph.nodes import Input, Memory, Number, Op, Read, Recurrence, When

if TYPE_CHECKING:
    from codegen.block import Emitter


def walk(emitter: Emitter, recurrence: Recurrence) -> None:
    """A loop over pieces of tokens that read frozen states: values inside, then the writes."""
    graph = emitter.graph
    members: list[Memory] = [graph[m] for m in recurrence.members]
    inside = set(recurrence.inside)
    needed = [*recurrence.inside, *(s for m in members for s in sources(graph, m))]
    reads = [graph[i] for i in recurrence.inside if isinstance(graph[i], Read)]
    attended = {r.memory: graph[r.memory] for r in reads if graph[r.memory].form.kind == "attention"}
    queries = [r.query for r in reads] + [i for m in attended.values() for i in sources(graph, m)]
    for id in sorted(straight(graph, [*needed, *queries], inside), key=list(graph.nodes).index):
        emitter.need(id)
    if recurrence.id in emitter.done:
        return
    headline(emitter, recurrence)
    for attention in attended.values():
        keep_pairs(emitter, attention)
    for memory in {
        r.memory: graph[r.memory] for r in reads if emitter.recurrences[r.memory].lowering == "segment"
    }.values():
        for read in [r for r in reads if r.memory == memory.id]:
            emitter.say(f"{taps_name(emitter, memory, read)} = []")
    inner = _Walker(emitter, recurrence)
    groups = list(dict.fromkeys(inner.together.values()))
    for group in groups:
        group.open(emitter)
    inner.emit()
    emitter.done |= {recurrence.id, *recurrence.members}  # not before: the body's variables are in use until its writes
    kept = inner.kept()
    for id in kept:
        emitter.say(f"{inner.lists[id]} = []")
    emitter.scope.runtime.add("segments")
    times = ["(0, 1)"] if inner.one else [f"({clock_of(m, 't')}, {s})" for m, s in _ticks(members)]
    emitter.say(f"for a, b in segments(T, {', '.join(times)}):")
    emitter.lines += inner.lines
    for id in kept:
        emitter.say(f"{inner.lists[id]}.append({inner.scope.names[id]})", 1)
    for group in groups:
        group.close(emitter)
    for id in kept:
        node = graph[id]
        variable = emitter.variable(node.name or inner.base(id), id)
        emitter.say(f"{variable} = torch.cat({inner.lists[id]}, 1)")
        emitter.define(id, variable)


def _ticks(members: list[Memory]) -> list[tuple[Memory, int]]:
    found = {(clock_of(m, "t"), m.chunk): m for m in members}
    return [(m, chunk) for (_, chunk), m in sorted(found.items())]


class _Walker:
    """The body of a walk: the same equations over tokens a..b-1."""

    def __init__(self, outer: Emitter, recurrence: Recurrence) -> None:
        self.outer, self.recurrence, self.graph = outer, recurrence, outer.graph
        self.one = pieces(outer.graph, recurrence.members, recurrence.inside) == (1,)
        names = {id: text if outer.scope.tokenless(id) else f"{text}[:, a:b]" for id, text in outer.scope.names.items()}
        self.scope = replace(outer.scope, names=names, position="t + a", tokens="b - a", logs={})
        self.inside = set(recurrence.inside)
        self.again = frozenset(recurrence.inside)  # the body's statements, once for each piece
        self.lines: list[str] = []
        self.lists: dict[str, str] = {}
        self.written: set[str] = set()
        self.earlier: dict[str, str] = {}  # the register before its write, where a read of it waits for that write
        self.together = together(outer, recurrence)  # memories that are written alike
        self.cycles: list[Op] = []  # prev, whose value is known before what it looks back at

    def say(self, text: str) -> None:
        self.lines += fit(text, 3)

    def emit(self) -> None:
        for id in self.recurrence.inside:
            self.need(id)
        for m in self.recurrence.members:
            self.write(self.graph[m])
        for node in self.cycles:
            self.say(f's["{place_of(self.graph, node)}"] = {{"past": {pair(self.scope, node.inputs[0])}}}')

    def base(self, id: str) -> str:
        node = self.graph[id]
        if isinstance(node, Read):
            return (
                f"{self.graph[node.memory].name}_{self.graph[node.query].name or 'read'}"
                if not node.name
                else node.name
            )
        short = function_name(id.rsplit(":", 1)[-1])  # of x:2/prev, which has no name, the number would come first
        return node.name or (short if short.isidentifier() else function_name(id))

    def need(self, id: str) -> None:
        node = self.graph[id]
        if id in self.scope.names or isinstance(node, Number | Input):
            return
        if isinstance(node, Op) and node.op == "prev" and node.inputs[0] in self.inside:
            self.cycles.append(node)
            self.scope.runtime.add("past")
            self.assign(id, f'past(s["{place_of(self.graph, node)}"]["past"])')
            return
        if isinstance(node, Read):
            self.need(node.query)
            memory: Memory = self.graph[node.memory]
            if memory.id not in self.recurrence.members:
                self.other(node, memory)
                return
            if memory.id in self.together:
                self.read_together(node)
                return
            if node.when is When.AFTER or (node.when is When.BEFORE and not self.one):
                self.write(memory)
                if id in self.scope.names:
                    return
            state = "held" if node.when is When.CHUNK else "now"
            self.scope.runtime.add(state)
            register = f's["{place_of(self.graph, memory)}"]'
            if node.when is not When.AFTER:
                register = self.earlier.get(memory.id, register)
            if node.when is When.AFTER:  # a token's own error passes to what it has just written
                text = f"{form_of(self.outer, memory)}.read({state}({register}), {pair(self.scope, node.query)})[0]"
            else:
                self.scope.runtime.add("read")
                text = f"read({form_of(self.outer, memory)}, {state}({register}), {pair(self.scope, node.query)})"
            self.assign(id, text)
            return
        for i in node.inputs:
            self.need(i)
        if node.op in ("prev", "conv"):
            self.register(node)
        elif node.name and not node.field:
            self.assign(id, self.scope.text(id))

    def read_together(self, read: Read) -> None:
        """All reads that ask twins the same, at once."""
        group = self.together[read.memory]
        asked = self.asked(read.query)
        first = {r.memory: r for r in reversed(asked)}
        reads = [first[m.id] for m in group.members if m.id in first]
        outs = [self.outer.claim(self.base(r.id), r.id, self.again) for r in reads]
        text = group.read([self.graph[r.memory] for r in reads], pair(self.scope, read.query))
        self.say(f"{', '.join(outs) if len(outs) > 1 else f'({outs[0]},)'} = {text}")
        of = dict(zip([r.memory for r in reads], outs, strict=True))
        self.scope.names |= {r.id: of[r.memory] for r in asked if r.memory in of}

    def asked(self, query: str) -> list[Read]:
        """The walk's reads with a query."""
        nodes = (self.graph[id] for id in self.recurrence.inside)
        return [node for node in nodes if isinstance(node, Read) and node.query == query]

    def other(self, read: Read, memory: Memory) -> None:
        """A read of a memory that the walk does not write: attention, weights, or one that learns from the loss."""
        place, out = place_of(self.graph, memory), self.variable(read.id)
        if memory.form.kind == "attention":
            for id in sources(self.graph, memory):
                self.need(id)
            reads = [
                i
                for i in self.recurrence.inside
                if isinstance(self.graph[i], Read) and self.graph[i].memory == memory.id
            ]
            last = read.id == reads[-1]
            self.say(f'{out}, cache = {attention_call(self.outer, memory, read, self.scope, f"""s["{place}"]""")}')
            if last:
                self.say(f's["{place}"] = cache')
        elif self.outer.recurrences[memory.id].lowering == "weights":
            parts = start_parts(self.graph, memory, self.scope.like)
            self.say(f"{out} = {constant_of(self.outer, memory)}({parts}, {pair(self.scope, read.query)})")
        else:
            parts, name = start_parts(self.graph, memory, self.scope.like), taps_name(self.outer, memory, read)
            before = ", before=True" if holds(memory) and read.when is When.BEFORE else ""
            query = pair(self.scope, read.query)
            constant = constant_of(self.outer, memory)
            self.say(f'{out}, taps = {constant}.read(s.get("{place}"), {parts}, {query}{before})')
            self.say(f"{name}.append(taps)")
        self.scope.names[read.id] = out
        self.outer.owner[out] = read.id

    def register(self, node: Op) -> None:
        place = place_of(self.graph, node)
        text = pair(self.scope, node.inputs[0])
        function = "previous" if node.op == "prev" else "causal_conv"
        self.scope.runtime.add(function)
        weight = "" if node.op == "prev" else f"{self.scope.weight(self.graph[node.weights[0]].path)}, "
        variable = self.variable(node.id)
        self.say(f'{variable}, history = {function}({text}, {weight}s["{place}"]["past"])')
        self.say(f's["{place}"] = {{"past": history}}')
        self.scope.names[node.id] = variable

    def variable(self, id: str) -> str:
        return self.outer.variable(self.base(id), id, self.again)

    def assign(self, id: str, text: str) -> None:
        variable = self.variable(id)
        self.say(f"{variable} = {text}")
        self.scope.names[id] = variable
        self.outer.owner[variable] = id

    def write(self, memory: Memory) -> None:
        if memory.id in self.written:
            return
        self.written.add(memory.id)
        if memory.id in self.together:
            group = self.together[memory.id]
            self.written |= {m.id for m in group.members}
            for id in sources(self.graph, memory):
                self.need(id)
            self.say(group.write(self.outer, self.scope))
            return
        reads = [
            r
            for r in reads_of(self.graph, memory.block, [memory.id])
            if r.when is When.AFTER or (r.when is When.BEFORE and not self.one)
        ]
        reads = [r for r in reads if not any(one in reads and one is not r for one in asked_with(self.graph, r))]
        for id in (*sources(self.graph, memory), *(r.query for r in reads)):
            self.need(id)
        outs = [self.outer.claim(self.base(r.id), r.id, self.again) for r in reads]
        targets = f"({', '.join(outs)}{',' if len(outs) == 1 else ''})" if outs else "_"
        if any(id not in self.scope.names and self.looks_back(id, memory, reads) for id in self.recurrence.inside):
            self.earlier[memory.id] = local(f"{function_name(memory.name)}_before")
            self.outer.keep(self.earlier[memory.id])
            self.say(f'{self.earlier[memory.id]} = s["{place_of(self.graph, memory)}"]')
        call = memory_call(self.outer, memory, reads, "t + a", self.scope)
        self.say(f'{targets}, s["{place_of(self.graph, memory)}"] = {call}')
        for r, out in zip(reads, outs, strict=True):
            self.scope.names[r.id] = out

    def looks_back(self, id: str, memory: Memory, answered: list[Read]) -> bool:
        """Whether a value is a read of the memory's state before its write, and not one that the write answers."""
        node = self.graph[id]
        if not isinstance(node, Read) or node.memory != memory.id or node in answered:
            return False
        return node.when is not When.AFTER

    def kept(self) -> list[str]:
        """Values of the walk that something after it needs."""
        group = {self.recurrence.id, *self.recurrence.members, *self.inside}
        for m in self.graph.of(Memory, self.outer.block):  # attention that only the walk reads
            if m.form.kind == "attention" and {r.id for r in reads_of(self.graph, m.block, [m.id])} <= self.inside:
                group.add(self.outer.recurrences[m.id].id)
        found = []
        for id in self.recurrence.inside:
            if id in self.scope.names and self.outer.uses.get(id, set()) - group:
                name = f"{local(self.base(id))}_parts"
                taken = [t for t in self.lists.values() if t.startswith(name)]
                self.lists[id] = name + (str(len(taken) + 1) if taken else "")
                found.append(id)
        return found
