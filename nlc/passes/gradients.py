"""Gradients: which objective reaches which memory and weight, and through which writes.

Needs: causality; of weights it says something once they have owners.
Establishes: nothing new; every memory is read, written and reached by an objective, and every weight gets a gradient.
Refuses: memories never read, never written (unless `every: never`) or reached by no objective; `meta: none` with a
learned start; weights that no gradient reaches.

    reach(graph) -> Reach       what each objective reaches; `nlc explain` prints it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nlc.diagnostics import Reporter
from nlc.equations import names as names_in
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Input, Memory, Meta, Op, Output, Read, Rule, Unit, Weight, When
from nlc.operators import OPERATORS
from nlc.passes.causality import write_needs
from nlc.passes.owners import frozen, weight_names


@dataclass(frozen=True, slots=True)
class Reach:
    """Ids, by what gets there.

    used: something that leaves depends on it.  outer: the derivative of what leaves, through the writes that `meta`
    allows. own: the derivative of a token's loss along the token's own computation (objective: loss at a level that
    counts tokens)."""

    used: frozenset[str]
    outer: frozenset[str]
    own: frozenset[str]


def gradients(graph: Graph) -> Graph:
    report = Reporter()
    found = reach(graph)
    for memory in graph.of(Memory):
        _memory(graph, memory, found, report)
    if not report.found and (graph.bare or any(any(w.by) for w in graph.of(Weight))):
        _weights(graph, found, report)
    report.check()
    return graph


def reach(graph: Graph) -> Reach:
    """Walk back from what leaves the blocks."""
    return Reach(_walk(graph, _used), _walk(graph, _outer), _walk(graph, _own))


def _walk(graph: Graph, back: Callable[[Graph, Op | Read | Memory], Iterable[str]]) -> frozenset[str]:
    leaving = {out.name: [o.value for o in graph.of(Output) if o.name == out.name] for out in graph.of(Output)}
    waiting = [value for name, values in leaving.items() if graph.bare or name == "x" for value in values]
    seen: set[str] = set()
    while waiting:
        id = waiting.pop()
        if id in seen:
            continue
        seen.add(id)
        node = graph[id]
        if isinstance(node, Op | Read | Memory):
            waiting += back(graph, node)
        elif isinstance(node, Input) and not graph.bare:  # what a block before it gave
            waiting += leaving[node.name]
    return frozenset(seen)


def _used(graph: Graph, node: Op | Read | Memory) -> Iterable[str]:
    match node:
        case Op():
            return (*node.inputs, *node.weights)
        case Read():
            return (node.query, node.memory, *graph[node.memory].form_weights)
        case Memory():
            return (*write_needs(node), *node.weights, *_nest(node))


def _nest(memory: Memory) -> tuple[str, ...]:
    """The memory that its state begins from."""
    return (memory.nest,) if memory.nest else ()


def _outer(graph: Graph, node: Op | Read | Memory) -> Iterable[str]:
    match node:
        case Op():
            return (*node.inputs, *node.weights) if OPERATORS[node.op].gradient else ()
        case Read():
            return (node.query, node.memory, *graph[node.memory].form_weights)
        case Memory() if node.form.kind == "attention" or not written(node):
            return (*write_needs(node), *node.weights)
        case Memory() if node.meta is Meta.NONE:
            return ()
        case Memory() if node.meta is Meta.FULL:
            return (*write_needs(node), *node.weights, *_nest(node))
        case Memory():
            given = open_roles(node)
            needed = [v for v in (node.rate, node.retain, node.weigh) if v] + [
                p.value for p in node.rule.params if p.value
            ]
            needed += [k for k, _ in node.pairs if "key" in given] + [v for _, v in node.pairs if "value" in given]
            return (*needed, *node.weights, *_nest(node))


def open_roles(memory: Memory) -> frozenset[str]:
    """The kinds of flow into a memory that its write passes the slower levels' gradient on to.

    Under `meta: first_order` the gradient that the rule receives is a constant, whatever else the rule reads is not.
    """
    if memory.meta is Meta.NONE:
        return frozenset()
    found = {"rate", "retain", "rule", "initialises"}
    if memory.meta is Meta.FULL:
        return frozenset({*found, "key", "value", "objective", "write", "error"})
    found |= {"key"} if uses(memory.rule, "gram", "k", "x") else set()
    return frozenset(found | ({"value"} if uses(memory.rule, "v") else set()))


def _own(graph: Graph, node: Op | Read | Memory) -> Iterable[str]:
    """Along one token's own path: what it reads of earlier tokens is constant."""
    match node:
        case Op():
            return () if node.op == "prev" or not OPERATORS[node.op].gradient else node.inputs
        case Read():
            memory = graph[node.memory]
            return (node.query, memory.id, *(write_needs(memory) if node.when is When.AFTER else ()))
        case Memory():
            return ()


def written(memory: Memory) -> bool:
    """Whether tokens write the memory."""
    return memory.period.unit is not Unit.NEVER and memory.carry is not Carry.MODEL


def uses(rule: Rule, *given: str) -> bool:
    """Whether a rule's program reads one of these names."""
    return any(name in given for level in rule.levels for assign in level.do for name in names_in(assign.value))


def _memory(graph: Graph, memory: Memory, found: Reach, report: Reporter) -> None:
    said = dict(memory.said)
    subject = f"memory '{memory.id}'"
    if memory.id not in found.used:
        called = any(r.memory == memory.id for r in graph.of(Read))
        hint = (
            f"nothing that leaves the block depends on {memory.name}(...)"
            if called
            else f"the block does not call {memory.name}(...)"
        )
        report.error("NLC0901", memory.at, f"{subject} is never read", hint)
        return
    loss = memory.objective.kind == "loss"
    learns = memory.form.kind == "attention" or (written(memory) and not loss)
    if learns and not memory.pairs:
        message = f"{subject} is never written: it has no keys and values"
        report.error("NLC0902", memory.at, message, "they are what it learns from; or say every: never")
        return
    if loss and graph.bare and memory.period.unit is not Unit.NEVER:
        hint = "a program with inputs has no loss; its host trains the weights"
        report.error("NLC0903", said.get("objective", memory.at), f"{subject} is reached by no objective", hint)
    elif loss and written(memory) and (memory.of or memory.id) not in found.own:
        hint = "within a token, its output does not lead to the token's own loss"
        report.error("NLC0903", said.get("objective", memory.at), f"{subject} is reached by no objective", hint)
    if memory.meta is Meta.NONE and written(memory) and memory.start == "learned" and memory.form.kind != "attention":
        at = said.get("meta", memory.at)
        report.error(
            "NLC0411",
            at,
            f"{subject}: meta: none with a learned start, which nothing would train",
            "start: zeros, or meta: first_order",
        )


def _weights(graph: Graph, found: Reach, report: Reporter) -> None:
    """Every weight that is to be trained gets a gradient."""
    users = {w: node for node in graph.of(Op) for w in node.weights}
    used = {w for n in graph.nodes.values() if isinstance(n, Op | Memory) for w in n.weights}
    used |= {w for m in graph.of(Memory) for w in m.form_weights}
    for id in sorted(used - found.outer):
        weight = graph[id]
        if frozen(graph, weight):
            continue
        name, user = weight_names(graph, weight)[0], users.get(id)
        hint = "nothing that leaves the block depends on it"
        if id in found.used:
            closed = _closed(graph, user.field) if user is not None else ""
            hint = closed or "no gradient passes on its way to the loss"
        report.error("NLC0903", weight.at, f"the weight {name} is reached by no objective", hint)


def _closed(graph: Graph, field: str) -> str:
    """Why no gradient passes a write to a field of it, where `meta` is why."""
    owner = field.rpartition(".")[0]
    metas = {memory.meta for memory in graph.of(Memory) if owner and f"{memory.id}.".startswith(f"{owner}.")}
    if Meta.NONE in metas:
        return "a constant state passes no gradient (meta: none)"
    return "a write's gradient is a constant (meta: first_order)" if Meta.FIRST_ORDER in metas else ""
