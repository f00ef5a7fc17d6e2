"""Questions about the flow around a memory that passes and code generation both ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nlc.graph.graph import Graph
from nlc.graph.linearity import linear
from nlc.graph.nodes import Carry, Memory, Number, Op, Read, Unit, When
from nlc.graph.ranges import range_of


def self_query(graph: Graph, memory: Memory) -> str:
    """The w of `values: memory(w)`: a memory that generates its own target.  "" when it does not."""
    if len(memory.pairs) != 1:
        return ""
    value = graph[memory.pairs[0][1]]
    return value.query if isinstance(value, Read) and value.memory == memory.id and value.field else ""


def sources(graph: Graph, memory: Memory) -> list[str]:
    """The values a write needs, a self-generated target replaced by what it is generated from."""
    own = self_query(graph, memory)
    values = [own] if own else [value for _, value in memory.pairs]
    params = [p.value for p in (*memory.rule.params, *memory.objective.params) if p.value]
    every = [*(key for key, _ in memory.pairs), *values, memory.rate, memory.retain, memory.weigh, *params]
    return list(dict.fromkeys(v for v in every if v))


def reads_of(graph: Graph, block: str, members: Iterable[str]) -> list[Read]:
    """The reads of these memories whose value is used: not those that only generate a memory's own target."""
    own = {value for m in graph.of(Memory, block) if self_query(graph, m) for _, value in m.pairs}
    return [r for r in graph.of(Read, block) if r.memory in set(members) and r.id not in own]


def written_inside(memory: Memory) -> bool:
    """Written between two ticks of the loss-driven levels, so that its state differs between tokens of one segment."""
    return (
        memory.form.kind != "attention"
        and memory.carry is not Carry.MODEL
        and memory.period.unit is not Unit.NEVER
        and memory.objective.kind != "loss"
    )


def signed_momentum(graph: Graph, memory: Memory) -> str:
    """The momentum of a memory's rule in words, where it may be below 0; "" where it cannot, or there is none.

    The closed forms multiply momentum along the tokens as sums of logarithms.
    """
    shape = linear(memory.rule)
    if shape is None or not shape.state:
        return ""
    param = next((p for p in memory.rule.params if p.name == shape.momentum), None)
    factor = shape.factor if param is None else param.number
    if param is not None and param.value:
        if range_of(graph, param.value).never_negative:
            return ""
        what = label(graph, param.value)
        return what if what == shape.momentum else f"{shape.momentum}={what}"
    return "" if float(factor) >= 0 else f"{shape.momentum or 'a factor'}={float(factor):g}"


def pieces(graph: Graph, members: tuple[str, ...], inside: tuple[str, ...]) -> tuple[int, ...]:
    """The chunk lengths whose borders cut the walk; (1,) when a value inside needs the token before it."""
    reads = [n for n in (graph[i] for i in inside) if isinstance(n, Read) and written_inside(graph[n.memory])]
    running = [read for read in reads if read.when is not When.CHUNK]
    written = upstream(graph, (s for m in members for s in sources(graph, graph[m])), inside)
    asked = {m: [r.query for r in running if r.memory == m] for m in members}  # of one call, with the write
    feeds = any(one.id in written or one.id in upstream(graph, asked[one.memory], inside, asked) for one in running)
    previous = any(isinstance(n, Op) and n.op in ("prev", "conv") for n in (graph[i] for i in inside))
    lengths = tuple(sorted({graph[m].chunk for m in members}))
    return (1,) if feeds or previous or lengths[:1] in ((), (1,)) else lengths


def upstream(
    graph: Graph, ids: Iterable[str], inside: Iterable[str], asked: Mapping[str, list[str]] | None = None
) -> set[str]:
    """These values and whatever they need within one token, among the values `inside`.

    `asked`: what is asked of a memory in the call that answers a read before or after its write.
    """
    within, found, ahead = set(inside), set[str](), list(ids)
    while ahead:
        id = ahead.pop()
        if id not in within or id in found:
            continue
        found.add(id)
        node = graph[id]
        if isinstance(node, Read):
            memory = graph[node.memory]
            ahead += [node.query, *(sources(graph, memory) if memory.form.kind == "attention" else ())]
            ahead += asked.get(memory.id, ()) if asked and node.when is not When.CHUNK else ()
        elif isinstance(node, Op):
            ahead += node.inputs
    return found


def asked_with(graph: Graph, read: Read) -> Iterator[Read]:
    """The reads after a write that this read's query needs within its token.

    A write gives all its answers at once: whatever is asked after it comes before any of them.
    """
    ahead, seen = [read.query], set[str]()
    while ahead:
        node = graph[ahead.pop()]
        if node.id in seen:
            continue
        seen.add(node.id)
        if isinstance(node, Read):
            ahead.append(node.query)
            if node.when is When.AFTER:
                yield node
                memory = graph[node.memory]
                ahead += sources(graph, memory)
                ahead += [r.query for r in reads_of(graph, memory.block, [memory.id]) if r.when is When.AFTER]
        elif isinstance(node, Op) and node.op != "prev":
            ahead += node.inputs


def label(graph: Graph, value: str) -> str:
    node = graph[value]
    if isinstance(node, Op) and node.op == "fold":
        return label(graph, node.inputs[0])
    return getattr(node, "name", "") or ("1" if isinstance(node, Number) else node.id.rsplit(".", 1)[-1])
