"""Pass chunks: how each recurrence is computed in parallel, and why.

Needs        names, shapes, clocks, causality, gradients, heads: references resolved, cycles broken by registers.
Establishes  one Recurrence per memory, or per group of memories that feed one another's writes within a
             chunk, or whose reads wait for one another's.
Refuses      windows of targets that a memory generates itself.  What has no closed form goes token by token.

The choice is proved from the graph.  Two facts carry most of it:

* a memory whose keys, values, rate and retention do not depend on its own state is an ordinary recurrence: a closed
  form over all tokens when rule and objective are linear, gradient factors at each chunk's first state otherwise;
* memories that do (a strongly connected component of the graph below) must be walked chunk by chunk.  When every write
  of the component is `M_t' g(k, w)` with one g, and one erase and decay, for all members, the walk is one product
  per chunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nlc.diagnostics import Reporter
from nlc.graph.flow import asked_with, label, pieces, reads_of, self_query, signed_momentum, sources, written_inside
from nlc.graph.graph import Graph
from nlc.graph.layers import layers
from nlc.graph.linearity import linear
from nlc.graph.nodes import Carry, Level, Memory, Meta, Op, Read, Recurrence, Tail, Unit, When
from nlc.graph.specialise import reads

BLOCK_LENGTH = 64  # tokens per triangular system where the spec leaves it free


def chunks(graph: Graph) -> Graph:
    """One Recurrence node per group of memories, each with its lowering and the reason."""
    report = Reporter()
    for memory in graph.of(Memory):
        if memory.window > 1 and self_query(graph, memory):
            at = dict(memory.said).get("window", memory.at)
            message = f"memory '{memory.id}': a window of targets that it generates itself is not supported yet"
            report.error("NLC1001", at, message, "values from elsewhere, or window: 1")
    _chained(graph, report)
    report.check()
    made = []
    for block in graph.blocks:
        made += list(_of_block(graph, block))
    graph = graph.with_nodes(made)
    _unseen_layers(graph, report)
    report.check()
    return graph


def _unseen_layers(graph: Graph, report: Reporter) -> None:
    """A level that counts steps, whose rule looks at its layers' inputs, owns no layer inside a walk over chunks."""
    for level in graph.of(Level):
        if level.rule is None or "gram" not in reads(level.rule):
            continue
        hidden = {graph[id].path: walk for id, walk in layers(graph).items() if walk and graph[id].owner == level.id}
        if hidden:
            first, more = next(iter(hidden)), f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
            looks = f"rule '{level.rule.name}' looks at the inputs of '{first}'{more}"
            hint = f"give it another level: memories: select({', '.join(f'blocks.*.{path}' for path in hidden)})"
            at = dict(level.said).get("rule", level.at)
            report.error("NLC1001", at, f"{looks}, hidden in the walk of {hidden[first]}", hint)


def _chained(graph: Graph, report: Reporter) -> None:
    """Refuse a token's own error through two reads of one write, the second asked with what the first gives."""
    if not any(m.objective.kind == "loss" and m.carry is not Carry.MODEL and m.period.unit is not Unit.NEVER
               for m in graph.of(Memory)):  # fmt: skip
        return
    for read in graph.of(Read):
        memory: Memory = graph[read.memory]
        first = next((r for r in asked_with(graph, read) if r.memory == memory.id and r is not read), None)
        if read.when is When.AFTER and written_inside(memory) and first is not None:
            message = f"'{memory.id}' is read after its write with what waits for another such read of it"
            hint = (
                "beside a memory that learns from each token's loss this is not supported yet; read one of them before"
            )
            report.error("NLC1001", read.at, message, hint)


def _of_block(graph: Graph, block: str) -> Iterable[Recurrence]:
    flow = Dependencies(graph, block)
    together = components(graph, block, flow)
    taken: set[str] = set()
    for memory in graph.of(Memory, block):
        if memory.id in taken:
            continue
        members, inside = together[memory.id]
        taken.update(members, inside)
        yield _choose(graph, memory, members, inside)
    for op in graph.of(Op, block):
        loop = flow.after(op.id) & flow.before(op.id) if op.op == "prev" and op.id not in taken else set()
        if loop:
            inside = tuple(i for i in graph.nodes if i in loop | {op.id})
            taken.update(inside)
            reason = f"{op.name or 'a value'} needs the token before it through prev: token by token"
            yield Recurrence(
                id=f"{op.id}.recurrence",
                at=op.at,
                block=block,
                lowering="loop",
                members=(),
                inside=inside,
                reason=reason,
            )


class Dependencies:
    """Who needs whom within a run of tokens: values, and the states of memories written inside a segment.

    `prev` counts as any operator: it is a register, through which a token needs the one before it.
    `answering`: memories whose reads are all answered in one call or walk, which so needs what each of them asks.
    (Plain dictionaries: importing networkx takes longer than compiling.)
    """

    def __init__(self, graph: Graph, block: str, answering: Iterable[str] = ()) -> None:
        self.users: dict[str, list[str]] = defaultdict(list)
        self.needs: dict[str, list[str]] = defaultdict(list)
        for node in graph.of(Op, block):
            self._add(node.inputs, node.id)
        for read in graph.of(Read, block):
            self._add((read.query,), read.id)
            if graph[read.memory].form.kind == "attention":
                self._add(sources(graph, graph[read.memory]), read.id)
            if written_inside(graph[read.memory]):
                self._add((read.memory,), read.id)
        for memory in graph.of(Memory, block):
            if written_inside(memory):
                self._add(sources(graph, memory), memory.id)
        for read in reads_of(graph, block, answering):
            if written_inside(graph[read.memory]):
                self._add((read.id,), read.memory)

    def _add(self, needed: Iterable[str], user: str) -> None:
        for id in needed:
            self.users[id].append(user)
            self.needs[user].append(id)

    def after(self, id: str) -> set[str]:
        """Whatever needs it, directly or not."""
        return _reached(self.users, id)

    def before(self, id: str) -> set[str]:
        """Whatever it needs, directly or not."""
        return _reached(self.needs, id)


def _reached(edges: Mapping[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = [id for id in edges.get(ahead.pop(), ()) if id not in found]
        found.update(new)
        ahead += new
    return found


Component = tuple[tuple[str, ...], tuple[str, ...]]  # memories that are walked together, and values between them


def components(graph: Graph, block: str, flow: Dependencies) -> dict[str, Component]:
    """For each memory its component.

    One call or walk answers every read of its memories: those that wait for one another's answers are one component.
    A shared product alone answers one read after another, until something else has to be walked with it.
    """
    memories = [m.id for m in graph.of(Memory, block)]
    whole, products = flow, set(memories)
    while True:
        found = {m: component(graph, flow, whole, m) for m in memories}
        left = {m for m in products if found[m][1] and not shared_product_refusals(graph, *found[m])}
        if left == products:
            return found
        products = left
        whole = Dependencies(graph, block, set(memories) - products)


def component(graph: Graph, flow: Dependencies, whole: Dependencies, memory: str) -> Component:
    """(memories, values) that must be walked together with this memory, in the graph's order.

    The memories of its strongly connected component of the `whole`, and what lies between one of their states and a
    write or a further read of one of them: such a read needs a state that the walk passes by.
    """
    group = (whole.after(memory) & whole.before(memory)) | {memory}
    members = tuple(i for i in graph.nodes if i in group and isinstance(graph[i], Memory))
    reached = set().union(*(flow.after(m) for m in members))
    again = {r.id for r in reads_of(graph, graph[memory].block, members) if r.query in reached}
    between = (reached & set().union(*(flow.before(i) for i in (*members, *again)))) | again
    return members, tuple(i for i in graph.nodes if i in between and i not in members)


# ---- the choice -----------------------------------------------------------------------------------------------------


def _choose(graph: Graph, memory: Memory, members: tuple[str, ...], inside: tuple[str, ...]) -> Recurrence:
    base = Recurrence(
        id=f"{memory.id}.recurrence",
        at=memory.at,
        block=memory.block,
        members=members,
        chunk=memory.chunk,
        lowering="loop",
    )
    if memory.form.kind == "attention":
        return replace(base, lowering="attention", reason="non-parametric: keeps its pairs")
    if memory.carry is Carry.MODEL or memory.period.unit is Unit.NEVER:
        reason = memory.still or "not written inside a sequence"
        return replace(base, lowering="weights", reason=f"{reason}: weights all tokens share")
    if memory.objective.kind == "loss":
        reason = f"written from the network's own error: every sequence is cut every {memory.period}"
        reason = f"holds the start of '{graph[memory.of].name}', {reason}" if memory.of else reason
        return replace(base, lowering="segment", reason=reason, facts=_rule_facts(memory))
    if inside:
        refusals = shared_product_refusals(graph, members, inside)
        names = ", ".join(graph[m].name for m in members)
        if not refusals:
            shared = f"{names} are multiplied by the same matrices, whatever they hold"
            reason = f"{shared}: {proof(graph, memory)}"
            return replace(base, inside=inside, lowering="shared_product", reason=reason, facts=_rule_facts(memory))
        pace = walk(graph, members, inside)
        signed = [f"; {graph[m].name!r}: {refusal}" for m in members if (refusal := _signed(graph, graph[m]))]
        reason = (
            f"{names} feed their own writes; no single product, since {refusals[0]}; walked {pace}{''.join(signed)}"
        )
        return replace(base, inside=_with_reads(graph, members, inside), lowering="loop", reason=reason)
    return _single(graph, memory, base)


def _single(graph: Graph, memory: Memory, base: Recurrence) -> Recurrence:
    shape = linear(memory.rule)
    facts = _rule_facts(memory)
    channels = memory.retain and len(graph[memory.retain].shape or ()) > len(memory.heads)
    if memory.period.count > 1:
        reason = f"written once in {memory.period} from the sum of their gradients"
        return replace(base, lowering="periodic", reason=reason, facts=facts)
    if shape is None:
        reason = f"rule {memory.rule.name!r} is not linear in the gradient: token by token"
    elif refusal := _signed(graph, memory):
        reason = refusal
    elif channels:
        reason = "retention differs by key channel: token by token"
    elif len(memory.pairs) > 1:
        reason = f"{len(memory.pairs)} pairs a token, one after another: token by token"
    elif memory.window > 1:
        return _over_window(memory, shape.erase, replace(base, facts=facts))
    elif memory.form.kind != "matrix":
        if memory.chunk == 1:
            reason = (
                f"{memory.form.called} with chunk 1: each gradient needs the state before its token: token by token"
            )
        else:
            tokens = f"all {memory.chunk} tokens at once by their factors"
            reason = f"gradients of {memory.form.called} at each chunk's first state: {tokens}"
            return replace(base, lowering="deep", block_length=memory.chunk, reason=reason, facts=facts)
    elif memory.chunk == 1 and memory.objective.kind not in ("dot", "l2"):
        reason = f"objective {memory.objective.kind!r} bends the gradient at every token: token by token"
    else:
        length = memory.chunk if memory.chunk > 1 else BLOCK_LENGTH
        bound = "the chunk" if memory.chunk > 1 else "free to choose: the gradient is affine in the state"
        reason = f"a write is linear in the state: one triangular system for {length} tokens ({bound})"
        return replace(base, lowering="linear", block_length=length, reason=reason, facts=facts)
    return replace(base, lowering="loop", reason=reason, facts=facts)


def _over_window(memory: Memory, erase: bool, base: Recurrence) -> Recurrence:
    """Gradients over the last pairs: at one state for a chunk, each pair's is taken once for all tokens that see it."""
    over = f"each write is over {memory.window} pairs"
    if erase:
        return replace(base, reason=f"{over}, and erases along all of them at the running state: token by token")
    if memory.grad_at_kept:
        return replace(base, reason=f"{over}, at a state that each token's retention makes: token by token")
    if memory.form.kind == "vector":
        return replace(base, reason=f"{over}, entry by entry: token by token")
    if memory.form.kind == "matrix" and memory.objective.kind == "dot":
        reason = f"{over}, whose gradients are the same at every state: one for each pair, for the tokens that see it"
        length = max(memory.chunk, BLOCK_LENGTH)
        return replace(base, lowering="linear", block_length=length, reason=reason)
    if memory.chunk == 1:
        return replace(base, reason=f"{over}, at the state before its token: token by token")
    reason = f"{over}, at each chunk's first state: one gradient for each pair, for all {memory.chunk} tokens at once"
    return replace(base, lowering="deep", block_length=memory.chunk, reason=reason)


def _signed(graph: Graph, memory: Memory) -> str:
    """Why a rule of momentum has no closed form here: products of what may be negative are no sums of logarithms."""
    what = signed_momentum(graph, memory) if memory.period.count == 1 else ""
    return f"momentum {what} may be below 0: token by token" if what else ""


def _rule_facts(memory: Memory) -> tuple[tuple[str, Any], ...]:
    shape = linear(memory.rule)
    if shape is None:
        return (("linear", False),)
    momentum = shape.momentum or (shape.factor if shape.state else "")
    return (("linear", True), ("erase", shape.erase), ("momentum", momentum))


def _with_reads(graph: Graph, members: tuple[str, ...], inside: tuple[str, ...]) -> tuple[str, ...]:
    wanted = set(inside) | {r.id for r in reads_of(graph, graph[members[0]].block, members)}
    return tuple(i for i in graph.nodes if i in wanted)


def walk(graph: Graph, members: tuple[str, ...], inside: tuple[str, ...]) -> str:
    """Chunk by chunk where every state that feeds a write is frozen for the chunk, else token by token."""
    steps = pieces(graph, members, inside)
    if steps == (1,):
        return "token by token"
    return "from one chunk border to the next: " + ", ".join(f"{s} tokens" for s in steps)


# ---- the proof ------------------------------------------------------------------------------------------------------


def shared_product_refusals(graph: Graph, members: tuple[str, ...], inside: tuple[str, ...]) -> list[str]:
    """Why the members' writes are not one product S <- S Phi; empty when they are.

    A write of member b is  M (a I - e k k^T) - e G k^T  with erase, or without it, and G = M_t' g:
        l2:  G = M_t' k - v_b     dot:  G = -v_b     with  v_b = M_t' w   (self-generated),  so  g = k - w  or  g = -w.
    Then  M_t = M_t' Phi_t  with Phi_t a function of k, w, e, a alone.  It is the same matrix for all members when those
    four, the rule, the objective and where retention leads are the same.
    """
    found = [refusal for m in members for refusal in _not_a_product(graph, graph[m])]
    first: Memory = graph[members[0]]
    for m in members[1:]:
        other: Memory = graph[m]
        for what, mine, its in (
            ("keys", first.pairs[:1] and first.pairs[0][0], other.pairs[:1] and other.pairs[0][0]),
            ("targets", self_query(graph, first), self_query(graph, other)),
            ("rates", first.rate, other.rate),
            ("retentions", first.retain, other.retain),
            ("retention targets", first.retain_to_start, other.retain_to_start),
            ("objectives", first.objective, other.objective),
            ("rules", first.rule, other.rule),
            ("chunks", first.chunk, other.chunk),
            ("shapes", (first.heads, first.inner), (other.heads, other.inner)),
            ("lifetimes", (first.carry, first.tail), (other.carry, other.tail)),
            ("levels", first.level, other.level),
        ):
            if mine != its:
                found.append(f"{first.name!r} and {other.name!r} have different {what}")
    for value in inside:
        node = graph[value]
        if isinstance(node, Read) and node.query in inside:
            found.append(f"the read of {graph[node.memory].name!r} is fed by another read of the same chunk")
        if isinstance(node, Read) and node.when is not When.CHUNK:
            found.append(f"{graph[node.memory].name!r} is read {node.when.value} a write that feeds its own")
        if isinstance(node, Op) and node.op in ("prev", "conv"):
            found.append(f"{node.op} inside the loop needs the token before")
        if isinstance(node, Op) and node.op == "rope":
            found.append("rope inside the loop turns by where the token stands")
        if isinstance(node, Op) and node.op == "dropout":
            found.append("dropout inside the loop is drawn once, and a product is made again in the backward pass")
    for read in reads_of(graph, first.block, members):
        if read.id not in inside and read.when is not When.CHUNK:
            found.append(f"{graph[read.memory].name!r} is read {read.when.value} its write")
    return found


def _not_a_product(graph: Graph, memory: Memory) -> list[str]:
    shape, name = linear(memory.rule), memory.name
    width = len(graph[memory.retain].shape or ()) if memory.retain else 0
    tests = (
        (memory.form.kind != "matrix", f"{name!r} is a {memory.form.called}, not a matrix"),
        (memory.inner != memory.outer, f"{name!r} is not square"),
        (not self_query(graph, memory), f"the target of {name!r} is not generated by itself"),
        (memory.objective.kind not in ("l2", "dot"), f"objective {memory.objective.kind!r} is not linear in the state"),
        (shape is None or bool(shape.state), f"rule {memory.rule.name!r} keeps a state or is not linear"),
        (memory.period.count != 1, f"{name!r} is written every {memory.period}"),
        (memory.window > 1, f"each write of {name!r} is over {memory.window} pairs"),
        (memory.grad_at_kept, f"the gradient of {name!r} is taken after retention"),
        (memory.meta is not Meta.FULL, f"meta is {memory.meta.value}"),
        (width > len(memory.heads), f"the retention of {name!r} differs by channel"),
        (memory.tail is not Tail.CARRY, f"the tail of {name!r} is {memory.tail.value}"),
    )
    return [why for failed, why in tests if failed]


def proof(graph: Graph, memory: Memory) -> str:
    """The product in the memory's own names, for explain and for the generated file."""
    shape = linear(memory.rule)
    key, target = label(graph, memory.pairs[0][0]), label(graph, self_query(graph, memory))
    keep = "retain I" if memory.retain else "I"
    keep = f"({keep} - rate {key} {key}^T)" if shape is not None and shape.erase else f"({keep})"
    gradient = f"({key} - {target})" if memory.objective.kind == "l2" else f"(-{target})"
    back = " + (1 - retain) M_0" if memory.retain and memory.retain_to_start else ""
    return f"M_t = M_t-1 {keep} - rate M_t' {gradient} {key}^T{back}"
