"""Cost: parameters, state bytes per sequence, FLOPs per token forward, activation bytes per token.

Needs: shapes, clocks; reads the recurrences where there are any.
Establishes: Graph.cost, with a line for every node.  Everything is counted once for each layer.

Numbers are float32; a multiply and an add are two operations; W is the number of weights of one state, heads included.

    parameters   numbers in the weights
    state        of a memory that tokens write: W, as often as it is kept: the running state, the chunk's first state
                 (chunk > 1), each state of its rule, and over a period of several tokens the gradient's sum (and the
                 sums of x x^T where the rule asks for them), and the pairs of a window; attention: the keys and values
                 a later token can see; a convolution: window - 1 vectors
    flops        of a read: 2 W (matrix, mlp, swiglu), W (vector); of attention: 2 (key + value width) for each visible
                 pair, on average over the context.  Of a token's write: 2 W for the gradient's outer product, 2 W to
                 map the key (objectives that look at M(k)), 2 W' for errors below the last layer (W' its weights), 2
                 W to erase, W for retention; under objective: loss 4 W, of which 2 W carry the error back. Head: 2
                 width vocab, and a few per number for the last norm and the softmax.
    activations  what each operator's backward pass needs (nlc.operators); of a read, each layer's input and hidden
                 numbers; of a chunked memory, its first states and those of its rule, W each for each chunk
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from nlc.graph.graph import Graph
from nlc.graph.memories import is_vector
from nlc.graph.nodes import Cost, Memory, Op, Read, Recurrence, Shape, Unit, Weight
from nlc.graph.remembered import memory_of
from nlc.graph.written_forms import matrices
from nlc.operators import OPERATORS
from nlc.passes.gradients import uses, written

BYTES = 4


@dataclass(frozen=True, slots=True)
class Count:
    """Of one node in one layer: numbers, not bytes."""

    parameters: int = 0
    state: int = 0
    flops: int = 0
    saved: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.parameters + other.parameters,
            self.state + other.state,
            self.flops + other.flops,
            self.saved + other.saved,
        )

    def times(self, n: int) -> Count:
        return Count(self.parameters * n, self.state * n, self.flops * n, self.saved * n)


def cost(graph: Graph) -> Graph:
    lines = {}
    for id, node in graph.nodes.items():
        match node:
            case Weight():
                lines[id] = Count(parameters=prod(node.shape or ()))
            case Op():
                lines[id] = _op(graph, node)
            case Read():
                lines[id] = _read(graph, node)
            case Memory():
                lines[id] = _memory(graph, node)
            case _:
                continue
        lines[id] = lines[id].times(graph.stack.count(node.block) if node.block else 1)
    if not graph.bare:
        width, vocab = graph.sizes["width"], graph.sizes["vocab"]
        lines["out:loss"] = Count(flops=2 * width * vocab + 4 * width + 5 * vocab, saved=2 * width + vocab)
    total = sum(lines.values(), Count())
    by_node = tuple(
        (id, c.parameters, BYTES * c.state, c.flops, BYTES * c.saved) for id, c in lines.items() if c != Count()
    )
    return replace(graph, cost=Cost(parameters=total.parameters, state_bytes=BYTES * total.state, flops=total.flops,
                                    activation_bytes=BYTES * total.saved, by_node=by_node))  # fmt: skip


def _op(graph: Graph, op: Op) -> Count:
    inputs, options, out = tuple(shape_of(graph, i) for i in op.inputs), dict(op.options), op.shape or ()
    operator = OPERATORS[op.op]
    state = (options["window"] - 1) * prod(out) if op.op == "conv" else prod(out) if op.op == "prev" else 0
    return Count(state=state, flops=operator.flops(inputs, options, out), saved=operator.saved(inputs, options, out))


def shape_of(graph: Graph, id: str) -> Shape:
    shape: Shape | None = graph[id].shape
    assert shape is not None, f"pass shapes gave {id} no shape"
    return shape


def _read(graph: Graph, read: Read) -> Count:
    memory: Memory = graph[read.memory]
    query = prod(shape_of(graph, read.query))
    if memory.form.kind == "attention":
        heads = prod(shape_of(graph, read.query)[:-1])
        flops = int(2 * heads * (memory.inner + memory.outer) * _visible(graph, memory))
        return Count(flops=flops, saved=query + prod(read.shape or ()) + heads)
    size = memory_size(memory)
    if memory.form.kind == "equations":
        work = _equations(memory)
        matrices = sum(prod(shape) for name, shape in memory.parts if not is_vector(memory.form, name))
        return Count(flops=2 * matrices + work.flops, saved=query + work.saved)
    hidden = sum(prod(shape) for name, shape in memory.parts if name.startswith("b_") and name != "b_out")
    if not hidden and memory.form.kind in ("mlp", "swiglu"):
        hidden = prod(memory.heads) * memory.form.hidden * (memory.form.depth - 1)
    saved = query + (3 if memory.form.kind == "swiglu" else 2) * hidden
    return Count(flops=size if memory.form.kind == "vector" else 2 * size, saved=saved)


def _equations(memory: Memory) -> Count:
    """What the equations of a form compute beside the products with its state."""
    shapes = {
        "x": (*memory.heads, memory.inner),
        **dict(memory.parts),
        **{n.id: n.shape or () for n in memory.form.body},
    }
    layers, found = matrices(memory.form), Count()
    for node in memory.form.body:
        if isinstance(node, Op) and not (node.op == "matmul" and node.inputs[0] in layers):
            inputs, options, operator = tuple(shapes[i] for i in node.inputs), dict(node.options), OPERATORS[node.op]
            out = node.shape or ()
            found += Count(flops=operator.flops(inputs, options, out), saved=operator.saved(inputs, options, out))
    return found


def memory_size(memory: Memory) -> int:
    """Numbers in one state."""
    return sum(prod(shape) for _, shape in memory.parts)


def _visible(graph: Graph, memory: Memory) -> float:
    """Pairs a token sees on average over the context, itself included."""
    context, form = graph.sizes.get("context", 1), memory.form
    limit, each = min(form.window or context, form.segment or context, context), len(memory.pairs)
    if form.segment and not form.window:
        return each * (limit + 1) / 2 + form.persistent
    return each * limit * (2 * context - limit + 1) / (2 * context) + form.persistent


def _memory(graph: Graph, memory: Memory) -> Count:
    if memory.form.kind == "attention":
        pair = sum(prod(shape_of(graph, id)) for pair in memory.pairs for id in pair)  # of one token
        context, form = graph.sizes.get("context", 0), memory.form
        held = min((n for n in ((form.window or context + 1) - 1, form.segment or context, context)), default=0)
        return Count(state=pair * held, saved=pair)
    if not written(memory) or _shared_weights(graph, memory):
        return Count()
    size, token = memory_size(memory), memory.period.unit is Unit.TOKEN
    wide = [shape for name, shape in memory.parts if not is_vector(memory.form, name)]
    grams = sum(prod(s[:-2]) * s[-1] ** 2 for s in wide) if uses(memory.rule, "gram") else 0
    walked = any(r.lowering == "loop" and memory.id in r.members for r in graph.of(Recurrence))
    kept = 1 + (memory.chunk > 1) + sum(len(level.state) + level.sums for level in memory.rule.levels)
    state = size * kept + (size + grams if token and memory.period.count > 1 else 0) + _remembered(memory)
    state += (memory.window - 1) * prod(memory.heads) * (memory.inner + memory.outer + 1) if memory.window > 1 else 0
    return Count(state=state, flops=_write(memory, size, bool(grams), walked), saved=_boundaries(graph, memory, size))


def _remembered(memory: Memory) -> int:
    """Numbers in the memories of its rule, of all its parts."""
    sizes = 0
    for own in (m for level in memory.rule.levels for m in level.memories):
        for name, shape in memory.parts:
            heads, matrix = shape[: len(memory.heads)], shape[len(memory.heads) :]
            rows, cols = (*matrix, 1) if is_vector(memory.form, name) else matrix[-2:]
            sizes += prod(heads) * sum(prod(part) for _, part in memory_of(own, rows, cols).parts)
    return sizes


def _boundaries(graph: Graph, memory: Memory, size: int) -> int:
    """Numbers kept at every chunk's first token, for one token: a state and those of its rule, or one product for all
    that share it."""
    shared = next(
        (r.members for r in graph.of(Recurrence) if r.lowering == "shared_product" and memory.id in r.members), ()
    )
    if shared:
        size = prod(memory.heads) * memory.inner**2 if memory.id == shared[0] else 0
    else:
        size *= 1 + sum(len(level.state) for level in memory.rule.levels)
    return size // memory.chunk if memory.chunk > 1 or shared else 0


def _write(memory: Memory, size: int, erases: bool, walked: bool) -> int:
    """Operations of one token's share of a write; `walked` token by token, a window's pairs are each seen again."""
    pairs = max(1, len(memory.pairs)) * (memory.window if walked else 1)
    if memory.objective.kind == "loss":
        return 4 * size + size // max(1, memory.period.count)
    wide = [prod(shape) for name, shape in memory.parts if not is_vector(memory.form, name)]
    looks = memory.objective.kind != "dot" or len(wide) > 1 or memory.form.kind == "equations"
    below = 2 * sum(prod(shape) for name, shape in memory.parts if name == "W_out") if len(wide) > 1 else 0
    if memory.form.kind == "equations":
        below = 2 * sum(wide) + 2 * _equations(memory).flops  # errors go back through all of them
    each = 2 * size * (1 + looks + erases) + below
    return pairs * each + (size if memory.retain else 0)


def _shared_weights(graph: Graph, memory: Memory) -> bool:
    """Never written inside a sequence of this context: no state of its own."""
    return any(r.lowering == "weights" and memory.id in r.members for r in graph.of(Recurrence))
