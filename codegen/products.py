"""Memories that feed their own writes, one product for all: the call of runtime.ops.shared_product and its flow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from codegen.equations import number
from codegen.expressions import Scope, attribute
from codegen.layout import fit
from codegen.memories import (
    clock_of,
    headline,
    phase,
    spread,
    start_parts,
    straight,
    tuple_,
)
from codegen.names import function_name, local
from codegen.places import place_of
from nlc.graph.flow import self_query, sources
from nlc.graph.gates import Gates, gates_of
from nlc.graph.graph import Graph
from nlc.graph.linearity import linear
from nlc.graph.nodes import Memory, Op, Output, Read, Recurrence

if TYPE_CHECKING:
    from codegen.block import Emitter


def shared_product(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    level = emitter.graph[emitter.graph[recurrence.members[0]].level].name
    name = local(function_name(_called(emitter.graph, recurrence, level)))
    if recurrence.id not in emitter.done:
        _shared_call(emitter, recurrence, name)
    if read is None or read.id in emitter.scope.names:
        return
    memory: Memory = emitter.graph[read.memory]
    emitter.need(read.query)
    out = emitter.variable(read.name or memory.name, read.id)
    emitter.say(f'{out} = {name}.read("{memory.name}", {spread(emitter, read.query)})')
    emitter.define(read.id, out)


def _called(graph: Graph, recurrence: Recurrence, level: str) -> str:
    """A group of boxes has its level's name; one of several groups of the level, that of its first box as well."""
    first: Memory = graph[recurrence.members[0]]
    groups = [
        r for r in graph.of(Recurrence) if r.lowering == "shared_product" and graph[r.members[0]].level == first.level
    ]
    several = sum(graph[r.members[0]].block == first.block for r in groups) > 1
    return f"{level}_{first.name}" if several else level


def _shared_call(emitter: Emitter, recurrence: Recurrence, name: str) -> None:
    graph = emitter.graph
    members: list[Memory] = [graph[m] for m in recurrence.members]
    first = members[0]
    inside = set(recurrence.inside)
    reads = [graph[i] for i in recurrence.inside if isinstance(graph[i], Read)]
    queries: dict[str, list[Read]] = {}
    for r in reads:
        queries.setdefault(r.query, []).append(r)
    target = self_query(graph, first)
    results = [first.pairs[0][0], target, first.rate, *([first.retain] if first.retain else [])]
    extras = sorted(straight(graph, [*recurrence.inside, *results], inside), key=list(graph.nodes).index)
    for id in (*queries, *extras):
        emitter.need(id)
    if recurrence.id in emitter.done:
        return
    emitter.done |= {recurrence.id, *recurrence.members}
    extras = [e for e in extras if not emitter.scope.tokenless(e)]
    maps = _readouts(emitter, reads)
    weights = _weights(emitter, results, inside, maps)
    own = first.id.removesuffix(f".{first.name}")  # with the kind of block where several have the boxes
    flow = f"{function_name(_called(graph, recurrence, own))}_flow"
    _flow(emitter, recurrence, flow, [r for group in queries.values() for r in group], extras, weights, results, maps)

    headline(emitter, recurrence)
    shape = linear(first.rule)
    level = _level_place(graph, first)
    boxes = ", ".join(f'"{m.name}"' for m in members)
    emitter.say(f"{name}_boxes = ({boxes}{',' if len(members) == 1 else ''})")
    asked = [
        f"({spread(emitter, q)}, ({', '.join(repr_(graph[r.memory].name) for r in group)},))"
        for q, group in queries.items()
    ]
    asked = [a.replace(",))", "))") if a.count('"') > 2 else a for a in asked]
    arguments = [flow, f'{{name: s[f"{level}.{{name}}"] for name in {name}_boxes}}', tuple_(asked)]
    if extras:
        arguments.append(f"extras={tuple_([spread(emitter, e) for e in extras])}")
    if weights:
        arguments.append(f"weights={tuple_([attribute(graph[w].path) for w in weights])}")
    if maps:
        items = [f'"{graph[r.memory].name}": {attribute(graph[graph[op].weights[0]].path)}' for op, r in maps.items()]
        arguments.append(f"readouts={{{', '.join(items)}}}")
    at = phase(clock_of(first, "t"), first.chunk)
    arguments += [f"chunk={first.chunk}", f"phase={at}"] if first.chunk > 1 else ["chunk=1"]
    if first.retain_to_start:
        arguments.append(f"start={starts(graph, members, name, emitter.scope.like)}")
    if not (shape and shape.erase):
        arguments.append("erase=False")
    arguments.append(f'name="{level}"')
    if first.objective.kind != "l2":
        arguments.append(f'objective="{first.objective.kind}"')
    outside = set().union(*(emitter.uses.get(id, set()) for id in results)) - {recurrence.id, *recurrence.inside}
    arguments += [f'learn="{graph[first.level].name}" in learn'] + ["outputs=False"] * (not outside)
    if first.retain_to_start:
        arguments.append("final=final")
        emitter.final = True
    if recurrence.kernel:
        arguments.append(f"gates={name.upper()}_GATES")
        emitter.functions += [*fit(f"{name.upper()}_GATES = {gates(gates_of(graph, recurrence))}"), "", ""]
    emitter.scope.runtime.add("shared_product")
    emitter.say(f"{name} = shared_product({', '.join(arguments)})")
    emitter.say(f's |= {{f"{level}.{{name}}": register for name, register in {name}.state.items()}}')
    for id, field in zip(results[:3], ("k", "v", "rate"), strict=True):
        if id in inside:
            emitter.scope.names.setdefault(id, f"{name}.{field}")
    if first.retain and first.retain in inside:
        emitter.scope.logs[first.retain] = f"{name}.keep"
        emitter.scope.names.setdefault(first.retain, f"{name}.keep.exp()")


def _weights(emitter: Emitter, results: list[str], inside: set[str], maps: Collection[str]) -> list[str]:
    """What the flow uses beside its reads, in its order; a read-out is the product's own."""
    flow = _closure(emitter.graph, results, inside | _unnamed(emitter, results))
    used = (w for i in flow if i not in maps for w in getattr(emitter.graph[i], "weights", ()))
    return list(dict.fromkeys(used))


def gates(found: Gates) -> str:
    """The flow as a kernel knows it, beside the function that says the same."""
    said = [f'key="{found.key}"', f'value="{found.value}"']
    said += [] if found.unit_value else ["unit_value=False"]
    for role, gate in (("rate", found.rate), ("keep", found.keep)):
        said += [f'{role}="{gate.box}"'] if gate.box else []
        said.append(f'{role}_form="{gate.form}"')
        said += [f"{role}_scale={number(gate.scale)}"] if gate.scale != 1 else []
        said += [f"{role}_shift={number(gate.shift)}"] if gate.shift else []
    return f"Gates({', '.join(said)})"


def _readouts(emitter: Emitter, reads: list[Read]) -> dict[str, Read]:
    """Linear maps that are all a box is read for in the loop: {map: read}.

    The map's rows of the box obey the box's own product.
    """
    graph = emitter.graph
    ends = {s for m in graph.of(Memory, emitter.block) for s in sources(graph, m)}
    ends |= {o.value for o in graph.of(Output, emitter.block)} | {r.query for r in graph.of(Read, emitter.block)}
    found: dict[str, Read] = {}
    for read in reads:
        users = [o for o in graph.of(Op, emitter.block) if read.id in o.inputs]
        memory: Memory = graph[read.memory]
        if len(users) != 1 or read.id in ends or not memory.heads or [r.memory for r in reads].count(memory.id) > 1:
            continue
        (user,) = users
        if user.op != "linear" or user.name or len(user.weights) != 1:
            continue
        shape = graph[user.weights[0]].shape
        if shape is not None and shape[-2] < memory.outer:
            found[user.id] = read
    return found


def _level_place(graph: Graph, box: Memory) -> str:
    """Where the boxes of a level have their registers and starts, each under its name."""
    return place_of(graph, box).removesuffix(f".{box.name}")


def starts(graph: Graph, members: list[Memory], name: str, like: str) -> str:
    """Where retention leads, for every box."""
    level = _level_place(graph, members[0])
    if all([graph[w].path for w in m.weights] == [f"{level}.{m.name}.start"] for m in members):
        return f"{{name: {attribute(level)}[name].start for name in {name}_boxes}}"
    return "{" + ", ".join(f'"{m.name}": {one_part(graph, m, like)}' for m in members) + "}"


def repr_(text: str) -> str:
    return f'"{text}"'


def one_part(graph: Graph, memory: Memory, like: str) -> str:
    text = start_parts(graph, memory, like)
    return text[len('{"M": ') : -1] if text.startswith('{"M": ') else f'{text}["M"]'


def _unnamed(emitter: Emitter, results: list[str]) -> set[str]:
    """Values written in place inside the results' expressions: their weights are used there."""
    found: set[str] = set()

    def visit(id: str) -> None:
        if id in emitter.scope.names or id in found:
            return
        found.add(id)
        for i in getattr(emitter.graph[id], "inputs", ()):
            visit(i)

    for id in results:
        visit(id)
    return found


def _closure(graph: Graph, results: Iterable[str], inside: set[str]) -> list[str]:
    return [i for i in graph.nodes if i in inside]


def _flow(
    emitter: Emitter,
    recurrence: Recurrence,
    name: str,
    reads: list[Read],
    extras: list[str],
    weights: list[str],
    results: list[str],
    maps: dict[str, Read],
) -> None:
    """The token-wise function from what is read to key, target, rate and log retention."""
    graph, lines = emitter.graph, emitter.functions
    scope = Scope(graph, runtime=emitter.scope.runtime)
    names = [f"z_{graph[r.memory].name}" for r in reads]
    names = [n if names.count(n) == 1 else f"{n}{i}" for i, n in enumerate(names)]
    for r, n in zip(reads, names, strict=True):
        scope.names[r.id] = n
    for op, r in maps.items():
        scope.names[op] = scope.names[r.id] + (".squeeze(-1)" if dict(graph[op].options).get("out") == 1 else "")
    for e in extras:
        scope.names[e] = _parameter(emitter, e)
    words = weight_names([graph[w].path for w in weights])
    paths = {graph[w].path: word for w, word in zip(weights, words, strict=True)}
    scope.weight = lambda path: paths[path]
    lines.append(f"def {name}(reads, extras, weights):")
    readers = ", ".join(graph[r.memory].name for r in reads)
    lines.append(f'    """What {readers} say of a token: its key, its target\'s argument, rate and log retention."""')
    for group, given in ((names, "reads"), ([scope.names[e] for e in extras], "extras"), (words, "weights")):
        if group:
            lines.append(f"    {tuple_(group) if len(group) == 1 else ', '.join(group)} = {given}")
    for id in recurrence.inside:
        node = graph[id]
        if isinstance(node, Op) and node.name and not node.field:
            variable = local(node.name)
            lines += fit(f"{variable} = {scope.text(id)}", 1)
            scope.names[id] = variable
    key, target, rate_id, *retain = results
    memory: Memory = graph[recurrence.members[0]]
    scope.like = names[0]
    said = [*fit(f"rate = {scope.spread(rate_id, memory.heads)}", 1)]
    said += fit(f"keep = {scope.spread_log(retain[0], memory.heads)}" if retain else "keep = None", 1)
    if any("(B, T" in line for line in said):
        lines.append(f"    B, T = {scope.like}.shape[:2]")
    lines += said
    lines.append(f"    return {scope.text(key)}, {scope.text(target)}, rate, keep")
    lines += ["", ""]


def _parameter(emitter: Emitter, id: str) -> str:
    """A value's own variable; a new one where it is part of another group's result, as `a.k` is."""
    text = emitter.scope.names.get(id, "")
    return text if text.isidentifier() else emitter.claim(getattr(emitter.graph[id], "name", "") or "value", id)


def weight_names(paths: list[str]) -> list[str]:
    """titans.rate.linear -> rate_linear; the whole path where that is not unique."""
    short = ["_".join(p.split(".")[-2:]) for p in paths]
    return [s if short.count(s) == 1 else p.replace(".", "_") for s, p in zip(short, paths, strict=True)]
