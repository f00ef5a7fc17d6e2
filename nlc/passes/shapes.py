"""Shapes: of every value, weight and state, from `sizes`.

Needs: names resolved, and no cycle but through registers (causality).
Establishes: the shape of every Op, Read and Weight; initial scales; heads, widths and parts of every memory; forms
complete. Refuses: shapes that do not meet, sizes that do not divide, widths that nothing gives.

A shape may depend on itself through a register (`prev`, a memory in its own values): what is known is carried forward
until nothing more follows; then a memory in its own values is taken to be square, and everything is checked at the
end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nlc.diagnostics import CompilerBug, Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Init, Input, Memory, Number, Op, Output, Read, Shape, Value, Weight
from nlc.graph.written_forms import matrices
from nlc.operators import OPERATORS, Made, ShapeError, meet, pieces, show
from nlc.passes.widths import Widths, finish, widths_of

ELEMENTWISE = ("add", "sub", "mul", "div", "pow", "where", "min", "max")


def shapes(graph: Graph) -> Graph:
    report = Reporter()
    nodes: dict[str, AnyNode] = {}
    for block in graph.blocks:
        nodes |= _Inference(graph, block, report).run()
    report.check()
    _outputs(graph, nodes, report)
    report.check()
    return graph.with_nodes(nodes.values())


@dataclass
class _Inference:
    """One kind of block."""

    graph: Graph
    block: str
    report: Reporter
    known: dict[str, Shape] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)  # reported, or fed by what was
    widths: dict[str, Widths] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = (Input, Number, Op, Read)
        self.values: list[Value] = [
            n for n in self.graph.nodes.values() if isinstance(n, kinds) and n.block == self.block
        ]
        self.memories = {m.id: m for m in self.graph.of(Memory, self.block)}
        self.reads: dict[str, list[Read]] = {}
        for value in self.values:
            if isinstance(value, Read):
                self.reads.setdefault(value.memory, []).append(value)

    def run(self) -> dict[str, AnyNode]:
        while self.forward() or self.square(asked=True) or self.settle() or self.square() or self.guess():
            pass
        nodes: dict[str, AnyNode] = {}
        for value in self.values:
            if value.id in self.bad or not isinstance(value, Op | Read):
                continue
            if value.id not in self.known:
                self.unknown(value)
            elif isinstance(value, Read):
                nodes[value.id] = replace(value, shape=self.known[value.id])
            elif any(i not in self.known for i in value.inputs):  # a guess whose operand was refused
                self.bad.add(value.id)
            else:
                self.verify(value)
                nodes |= self.complete(value)
        if self.bad:
            if not self.report.found:
                value = next(v for v in self.values if v.id in self.bad)
                self.report.error("NLC0603", value.at, "nothing says what shape this has: it follows only from itself")
            return {}
        for memory in self.memories.values():
            if memory.id not in self.widths:
                self.report.error(
                    "NLC0603",
                    memory.at,
                    f"nothing says how wide the memory '{memory.id}' is",
                    "it is as wide as what it is read with",
                )
                continue
            nodes |= finish(self.graph, memory, self.widths[memory.id], self.known, self.report)
        for memory in [n for n in nodes.values() if isinstance(n, Memory) and n.form.kind == "equations"]:
            nodes |= self.form(memory, nodes)
        return nodes

    def form(self, memory: Memory, nodes: Mapping[str, AnyNode]) -> dict[str, AnyNode]:
        """A memory whose form is written as equations, with the shapes of these; and of the weights they use."""
        form, before = memory.form, len(self.report.found)
        entering = {"x": (*memory.heads, memory.inner), **dict(memory.parts)}
        given = [Input(id=n, at=memory.at, block="form", name=n, shape=shape) for n, shape in entering.items()]
        body = [replace(node, block="form") for node in form.body]
        weights: list[Weight] = [nodes.get(id, self.graph[id]) for id in memory.form_weights]  # type: ignore[misc]
        small = replace(self.graph, nodes={n.id: n for n in (*given, *body, *weights)})
        inside = _Inference(small, "form", self.report)
        inside.known |= {f"weight {w.id}": w.shape for w in weights if w.shape is not None}
        found = inside.run()
        if len(self.report.found) > before:
            return {}
        shape, expected = inside.known[form.result], (*memory.heads, memory.outer)
        if shape != expected:
            at = found[form.result].at
            message = f"y of the form '{form.name}' is {show(shape)}, and '{memory.id}' gives {show(expected)}"
            self.report.error("NLC0601", at, message, "out: says another width; or see keys and values")
        wide = matrices(form)
        for node in found.values():
            if isinstance(node, Op) and node.op == "matmul" and node.inputs[0] in wide:
                width = inside.known[node.inputs[1]]
                if len(width) != len(memory.heads) + 1:
                    message = f"'{node.inputs[0]}' of the form '{form.name}' is applied to {show(width)}"
                    self.report.error("NLC0601", node.at, message, "one vector per head expected")
        settled = [found.get(node.id, node) for node in body]
        done = tuple(node for node in settled if isinstance(node, Op | Number))
        return {
            **{id: found[id] for id in memory.form_weights},
            memory.id: replace(memory, form=replace(form, body=done)),
        }

    # ---- what follows from what is known ----------------------------------------------------------------------

    def forward(self) -> bool:
        """Everything that follows; whether anything did."""
        before = len(self.known) + len(self.bad) + len(self.widths)
        for value in self.values:
            if value.id not in self.known and value.id not in self.bad:
                self.value(value)
        for memory in self.memories.values():
            if memory.id not in self.widths and self.asked(memory):
                self.memory(memory, square=False)
        return len(self.known) + len(self.bad) + len(self.widths) > before

    def value(self, value: Value) -> None:
        match value:
            case Input() | Number():
                self.known[value.id] = value.shape
            case Op():
                if any(i in self.bad for i in value.inputs):
                    self.bad.add(value.id)
                elif all(i in self.known for i in value.inputs):
                    shape = self.shape(value)
                    if shape is not None:
                        self.known[value.id] = shape
            case Read():
                if value.query in self.bad or self.refused(self.memories[value.memory]):
                    self.bad.add(value.id)
                elif value.memory in self.widths and value.query in self.known:
                    self.read(value, self.widths[value.memory])

    def shape(self, op: Op) -> Shape | None:
        """The shape an operator gives; None when reported."""
        inputs = tuple(self.known[i] for i in op.inputs)
        options = dict(op.options)
        try:
            if op.op == "item":
                split = self.graph[op.inputs[0]]
                options["size"] = pieces(inputs[0], dict(split.options)["n"])[options["index"]]
            shape = OPERATORS[op.op].shape(inputs, options)
            OPERATORS[op.op].weights(inputs, options)
            return shape
        except ShapeError as error:
            code = "NLC0602" if "divide" in error.message else "NLC0601"
            self.report.error(code, op.at, error.message, error.hint)
            self.bad.add(op.id)
            return None

    def read(self, read: Read, widths: Widths) -> None:
        query = self.known[read.query]
        if not query or query[-1] != widths.inner:
            self.report.error(
                "NLC0601", read.at, f"'{read.memory}' is read with {show(query)}, and its keys are {widths.inner} wide"
            )
            self.bad.add(read.id)
            return
        heads = widths.heads
        if query[:-1] != heads and not _divides(query[:-1], heads):
            if widths.attention and _divides(heads, query[:-1]):
                heads = query[:-1]
            else:
                self.report.error(
                    "NLC0601", read.at, f"'{read.memory}' is read with {show(query)}, and its heads are {show(heads)}"
                )
                self.bad.add(read.id)
                return
        self.known[read.id] = (*heads, widths.outer)

    def memory(self, memory: Memory, square: bool) -> bool:
        """Heads and widths of a memory once its reads and values tell; whether they did."""
        queries = [self.known[r.query] for r in self.reads.get(memory.id, []) if r.query in self.known]
        keys = [self.known[k] for k, _ in memory.pairs if k in self.known]
        values = [self.known[v] for _, v in memory.pairs if v in self.known]
        if self.refused(memory):
            return False
        if memory.of:  # a start is as wide as what begins from it
            found = self.widths.get(memory.of)
            self.widths |= {memory.id: found} if found else {}
            return found is not None
        found = widths_of(memory, queries, keys, values, square)
        if found is not None:
            self.widths[memory.id] = found
        return found is not None

    def asked(self, memory: Memory) -> bool:
        """Whether all that the memory is read with is known: keys alone do not tell how many heads it has."""
        return all(read.query in self.known for read in self.reads.get(memory.id, []))

    def refused(self, memory: Memory) -> bool:
        """Whether the memory has no widths because a key or value of it was reported."""
        return memory.id not in self.widths and any(p in self.bad for pair in memory.pairs for p in pair)

    def settle(self) -> bool:
        """A memory whose queries wait for its own reads is as wide as its keys and values tell."""
        return any(
            m.id not in self.widths and self.circular(m) and self.memory(m, square=False)
            for m in self.memories.values()
        )

    def circular(self, memory: Memory) -> bool:
        """Whether nothing but what waits for it holds the memory up: any other memory has to be known first."""
        return all(memory.id in self.awaited(self.memories[id]) for id in self.awaited(memory) - {memory.id})

    def awaited(self, memory: Memory) -> set[str]:
        """The memories of unknown widths that its queries and pairs wait for; itself where they wait for its reads."""
        waiting, found, seen = self.reached(memory), set[str](), set[str]()
        while waiting:
            id = waiting.pop()
            if id in seen or id in self.known:
                continue
            seen.add(id)
            node = self.graph[id]
            if isinstance(node, Op):
                waiting += node.inputs
            elif isinstance(node, Read):
                waiting.append(node.query)
                if node.memory not in self.widths:
                    found.add(node.memory)
                    waiting += self.reached(self.memories[node.memory])
        return found

    def reached(self, memory: Memory) -> list[str]:
        """The values that tell a memory's widths: its queries, keys and values."""
        return [*(read.query for read in self.reads.get(memory.id, [])), *(id for pair in memory.pairs for id in pair)]

    def square(self, asked: bool = False) -> bool:
        """A memory in its own values has the width it is read with.  `asked`: only where all queries are known."""
        for memory in self.memories.values():
            if not (self.asked(memory) if asked else self.circular(memory)):
                continue
            if memory.id not in self.widths and self.own_values(memory) and self.memory(memory, square=True):
                return True
        return False

    def own_values(self, memory: Memory) -> bool:
        """Whether the memory's values wait for a read of it."""
        waiting, seen = [v for _, v in memory.pairs], set[str]()
        while waiting:
            id = waiting.pop()
            if id in seen or id in self.known:
                continue
            seen.add(id)
            node = self.graph[id]
            if isinstance(node, Read):
                if node.memory == memory.id:
                    return True
                waiting.append(node.query)
                waiting += [v for _, v in self.memories[node.memory].pairs]
            elif isinstance(node, Op):
                waiting += node.inputs
        return False

    def guess(self) -> bool:
        """In a recursion through prev, an element-by-element operator has the shape of the operand that is known."""
        if not any(
            isinstance(v, Op) and v.op == "prev" and v.id not in self.known and v.id not in self.bad
            for v in self.values
        ):
            return False
        for value in self.values:
            if (
                isinstance(value, Op)
                and value.op in ELEMENTWISE
                and value.id not in self.known
                and value.id not in self.bad
            ):
                operands = [self.known[i] for i in value.inputs if self.known.get(i)]
                if operands:
                    try:
                        self.known[value.id] = meet(*operands)
                        return True
                    except ShapeError:
                        continue
        return False

    def verify(self, op: Op) -> None:
        """A guess holds."""
        shape = self.shape(op)
        if shape is not None and shape != self.known[op.id]:
            self.report.error(
                "NLC0601", op.at, f"through prev, this is {show(self.known[op.id])} and {show(shape)} at once"
            )
            self.bad.add(op.id)

    def unknown(self, value: Value) -> None:
        inputs = value.inputs if isinstance(value, Op) else (value.query,) if isinstance(value, Read) else ()
        if all(i in self.known for i in inputs):
            subject = f"'{value.memory}' gives" if isinstance(value, Read) else "this is"
            self.report.error(
                "NLC0603", value.at, f"nothing says how wide what {subject}", "give the memory an out: width"
            )
        self.bad.add(value.id)

    # ---- weights ----------------------------------------------------------------------------------------------

    def complete(self, op: Op) -> dict[str, AnyNode]:
        """The operator with every option settled, and its weights with shapes and first values."""
        inputs = tuple(self.known[i] for i in op.inputs)
        options = dict(op.options)
        if op.op == "linear":
            options["out"] = options.get("out") or inputs[0][-1]
        elif op.op == "split":
            options["n"] = pieces(inputs[0], options["n"])
        elif op.op == "item":
            options["size"] = self.known[op.id][-1]
        elif op.op == "slice":
            covered = range(inputs[0][-1])[options["start"] : options["stop"]]
            options |= {"start": covered.start, "stop": covered.stop}
        nodes: dict[str, AnyNode] = {
            op.id: replace(op, shape=self.known[op.id], options=tuple(sorted(options.items())))
        }
        made = OPERATORS[op.op].weights(inputs, options)
        if len(made) != len(op.weights):
            raise CompilerBug(f"pass shapes: {op.id} has {len(op.weights)} weights, {op.op} makes {len(made)}")
        for id, one in zip(op.weights, made, strict=True):
            nodes[id] = self.weight(self.graph[id], one, op)
        return nodes

    def weight(self, weight: Weight, made: Made, op: Op) -> Weight:
        if weight.id in self.bad:
            return weight
        earlier = self.known.setdefault(f"weight {weight.id}", made.shape)
        if earlier != made.shape:
            self.report.error(
                "NLC0601",
                op.at,
                f"the weight '{weight.path}' is {show(earlier)} in one place and {show(made.shape)} here",
                "a shared name is one weight",
            )
            self.bad.add(weight.id)
        init, scale = (weight.init, weight.scale) if weight.scale is not None else (Init(made.init), made.scale)
        return replace(weight, shape=made.shape, init=init, scale=scale, decay=made.decay)


def _divides(few: Shape, many: Shape) -> bool:
    """Key heads may divide value heads: [2] serves [4]."""
    return len(few) == len(many) == 1 and many[0] % few[0] == 0


def _outputs(graph: Graph, nodes: dict[str, AnyNode], report: Reporter) -> None:
    """A block gives back what it takes: x as [width], a stream in its own shape."""
    if graph.bare:
        return
    for out in graph.of(Output):
        value = nodes.get(out.value, graph[out.value])
        expected = next(i.shape for i in graph.of(Input, out.block) if i.name == out.name)
        if value.shape != expected:
            entering = f"{out.name} enters the block as {show(expected)}"
            report.error("NLC0601", value.at, f"{entering} and leaves it as {show(value.shape)}")
