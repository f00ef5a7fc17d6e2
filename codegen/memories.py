"""Memories in a block's forward that are one call: weights, attention, those whose pairs do not need their state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codegen.equations import number
from codegen.expressions import Scope, attribute
from codegen.forms import form_text
from codegen.layout import cited, comment
from codegen.names import function_name, local
from codegen.places import place_of
from codegen.rules import safe
from codegen.written_forms import constant_of
from nlc.equations import Name, walk
from nlc.graph.flow import reads_of, self_query, signed_momentum, sources
from nlc.graph.graph import Graph
from nlc.graph.linearity import linear
from nlc.graph.nodes import Level, Memory, Number, Op, Param, Read, Recurrence, Rule, When

if TYPE_CHECKING:
    from codegen.block import Emitter


def headline(emitter: Emitter, recurrence: Recurrence) -> None:
    """`# level titans: every 1 token, chunk 64` and why it is computed as it is."""
    graph = emitter.graph
    if not recurrence.members:
        emitter.lines += comment(recurrence.reason, "", 2)
        return
    memory: Memory = graph[recurrence.members[0]]
    level: Level = graph[memory.level]
    chunk = f", chunk {memory.chunk}" if memory.chunk > 1 else ""
    emitter.lines += comment(f"level {level.name}: every {memory.period}{chunk}", cited(level.at), 2)
    emitter.lines += comment(recurrence.reason, "", 2)


# ---- reads of weights that no segment changes ------------------------------------------------------------------------


def frozen(emitter: Emitter, recurrence: Recurrence, read: Read) -> None:
    memory: Memory = emitter.graph[read.memory]
    emitter.need(read.query)
    query = spread(emitter, read.query)
    out = emitter.variable(read.name or memory.name, read.id)
    constant, parts = constant_of(emitter, memory), start_parts(emitter.graph, memory, emitter.scope.like)
    if recurrence.lowering == "weights":
        emitter.say(f"{out} = {constant}({parts}, {query})")
    else:
        name = taps_name(emitter, memory, read)
        register = f's.get("{place_of(emitter.graph, memory)}")'
        before = ", before=True" if holds(memory) and read.when is When.BEFORE else ""
        emitter.say(f"{out}, {name} = {constant}.read({register}, {parts}, {query}{before})")
    emitter.define(read.id, out)


def taps_name(emitter: Emitter, memory: Memory, read: Read) -> str:
    """The variable of what a read leaves for the write; remembered for the block's calls."""
    taps = emitter.calls.setdefault(memory.id, {})
    if read.id not in taps:
        taps[read.id] = local(f"{function_name(memory.name)}_taps") + (str(len(taps) + 1) if taps else "")
    return taps[read.id]


def holds(memory: Memory) -> bool:
    """Reads see an older state than the last write: the chunk is longer than the period."""
    return memory.chunk > memory.period.count


def start_parts(graph: Graph, memory: Memory, like: str) -> str:
    """The memory's weights by part: `self.parts("cms.fast.start", ("W_in", ...))`."""
    names = [name for name, _ in memory.parts]
    if not memory.weights:  # a constant start; with carry: model the weights begin as it
        kind = {"zeros": f"{like}.new_zeros(", "identity": f"identity({like}, "}[memory.start]
        return "{" + ", ".join(f'"{name}": {kind}{", ".join(map(str, shape))})' for name, shape in memory.parts) + "}"
    paths = [graph[w].path for w in memory.weights]
    if len(paths) == 1 and not paths[0].endswith("." + names[0]):
        return f'{{"{names[0]}": {attribute(paths[0])}}}'
    parent = paths[0].rsplit(".", 1)[0]
    words = ", ".join(f'"{n}"' for n in names)
    return f'self.parts("{parent}", ({words}{"," if len(names) == 1 else ""}))'


def spread(emitter: Emitter, id: str) -> str:
    return emitter.scope.spread(id) if emitter.scope.tokenless(id) else emitter.scope.text(id)


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    memory: Memory = emitter.graph[recurrence.members[0]]
    for one in [read] if read else []:
        for id in (one.query, *(i for pair in memory.pairs for i in pair)):
            emitter.need(id)
        keep_pairs(emitter, memory)
        out = emitter.variable(one.name or memory.name, one.id)
        emitter.say(f"{out}, cache = {attention_call(emitter, memory, one, emitter.scope)}")
        emitter.say(f's["{place_of(emitter.graph, memory)}"] = cache')
        emitter.define(one.id, out)


def keep_pairs(emitter: Emitter, memory: Memory) -> None:
    """Where a memory is read more than once, every read begins from the same earlier pairs."""
    reads = reads_of(emitter.graph, emitter.block, [memory.id])
    if len(reads) > 1 and memory.id not in emitter.done:
        emitter.done.add(memory.id)
        emitter.say(f'{_pairs(memory)} = s["{place_of(emitter.graph, memory)}"]')


def _pairs(memory: Memory) -> str:
    return local(f"{function_name(memory.name)}_pairs")


def attention_call(emitter: Emitter, memory: Memory, read: Read, scope: Scope, pairs: str = "") -> str:
    """`attention(q, k, v, pairs, ...)`."""
    form, options = memory.form, []
    options += [f"window={form.window}"] * bool(form.window) + [f"segment={form.segment}"] * bool(form.segment)
    if form.persistent:
        options.append(f"persistent=({', '.join(attribute(emitter.graph[w].path) for w in memory.weights)})")
    options += [f"position={clock_of(memory, scope.position)}"] + ([] if emitter.own else ["own=False"])
    several = len(reads_of(emitter.graph, emitter.block, [memory.id])) > 1
    pairs = pairs or (_pairs(memory) if several else f's["{place_of(emitter.graph, memory)}"]')
    scope.runtime.add("attention")
    return f"attention({', '.join([pair(scope, read.query), *keys_and_values(scope, memory), pairs, *options])})"


def keys_and_values(scope: Scope, memory: Memory, own: str | None = None) -> list[str]:
    """Text of the keys and of the values; several pairs a token are stacked."""
    columns = [[pair(scope, key) for key, _ in memory.pairs], [pair(scope, own or value) for _, value in memory.pairs]]
    stack = "{}" if len(memory.pairs) == 1 else "torch.stack(({}), 2)"
    return [stack.format(", ".join(column)) for column in columns]


# ---- one memory whose pairs do not depend on its state ---------------------------------------------------------------


def one_memory(emitter: Emitter, recurrence: Recurrence) -> None:
    graph = emitter.graph
    memory: Memory = graph[recurrence.members[0]]
    reads = reads_of(graph, emitter.block, [memory.id])
    for id in (*sources(graph, memory), *(r.query for r in reads)):
        emitter.need(id)
    if memory.id in emitter.done:
        return
    emitter.done |= {memory.id, recurrence.id}
    headline(emitter, recurrence)
    outs = [emitter.claim(r.name or f"{memory.name}_{r.when.value}", r.id) for r in reads]
    targets = f"({', '.join(outs)}{',' if len(outs) == 1 else ''})" if outs else "_"
    emitter.say(
        f'{targets}, s["{place_of(graph, memory)}"] = {memory_call(emitter, memory, reads, "t", emitter.scope)}'
    )
    for r, out in zip(reads, outs, strict=True):
        emitter.define(r.id, out)


def memory_call(emitter: Emitter, memory: Memory, reads: Iterable[Read], clock: str, scope: Scope) -> str:
    """`memory(WRITE, state, k, v, rate, keep, ...)`."""
    graph = emitter.graph
    k, v = keys_and_values(scope, memory, self_query(graph, memory))
    keep = log_retention(scope, memory)
    once = memory.period.count > 1
    speed = "None" if once and not memory.rate_varies else rate(scope, memory)
    arguments = [constant_of(emitter, memory), f's["{place_of(graph, memory)}"]', k, v, speed, keep]
    if memory.retain_to_start or begins(memory):
        arguments.append(f"start={start_parts(graph, memory, scope.like)}")
    queries = [f'({pair(scope, r.query)}, "{r.when.value}")' for r in reads]
    if queries:
        arguments.append(f"queries=({', '.join(queries)}{',' if len(queries) == 1 else ''})")
    time = clock_of(memory, clock)
    shape = linear(memory.rule)
    if once:
        arguments += [f"period={memory.period.count}", f"chunk={memory.chunk}", f"clock={time}"]
        arguments += [f"lr={scope.of_one_token(memory.rate)}"] * (not memory.rate_varies) + ["gram=True"] * erases(
            memory
        )
    else:
        arguments += [f"phase={phase(time, memory.chunk)}"] * (memory.chunk > 1)
        if shape is not None and shape.state:
            arguments.append(f"beta={beta(scope, memory, shape.momentum, shape.factor)}")
            arguments += ["block=0"] * bool(signed_momentum(graph, memory))  # token by token
    given = [parameter(scope, memory, p) for p in memory.objective.params if p.value or memory.objective.tree is None]
    if given:
        arguments.append(f"params={tuple_(given)}")
    if shape is None or once:
        arguments += moving_params(scope, memory)
    if memory.weigh:
        arguments.append(f"weigh={scope.spread(memory.weigh, memory.heads)}")
    if not emitter.own and not once:
        arguments.append("own=False")
    arguments.append(f'learn="{graph[memory.level].name}" in learn')
    return f"{'periodic' if once else 'memory'}({', '.join(arguments)})"


def earlier_pairs(graph: Graph, memory: Memory) -> str:
    """Shapes of the earlier pairs that a gradient is over, for the register of one sequence."""
    heads, count = memory.heads, memory.window - 1
    moving = [graph[p.value].shape or () for p in memory.objective.params if p.value]
    shapes = {"k": (*heads, memory.inner), "v": (*heads, memory.outer), "weigh": heads}
    shapes |= {f"param{i}": max(own, heads, key=len) for i, own in enumerate(moving)}
    said = [f'"{name}": {tuple_([str(n) for n in (count, *shape)])}' for name, shape in shapes.items()]
    return f"{{{', '.join(said)}}}"


def parameter(scope: Scope, memory: Memory, param: Param) -> str:
    """A number, or a value of each token with at least the memory's heads."""
    if param.value is None:
        return number(float(param.number))
    own = scope.graph[param.value].shape or ()
    return scope.spread(param.value, own if len(own) > len(memory.heads) else memory.heads)


def moving_params(scope: Scope, memory: Memory, name: str = "rule_params", lr: str = "") -> list[str]:
    """`rule_params={"beta": s_BTH}`: the rule's parameters that are values of the block, and its `lr` if that is."""
    channels = (*memory.heads, memory.inner)
    values = [("lr", lr, memory.heads)]
    values += [(p.name, p.value or "", channels if p.number == "k" else memory.heads) for p in memory.rule.params]
    given = ", ".join(f'"{safe(param)}": {scope.spread(value, axes)}' for param, value, axes in values if value)
    return [f"{name}={{{given}}}"] if given else []


def erases(memory: Memory) -> bool:
    """Its rule looks at the layer inputs' second moment."""
    return mentions(memory.rule, "gram")


def begins(memory: Memory) -> bool:
    """Its rule looks at the start."""
    return mentions(memory.rule, "start")


def counts(memory: Memory) -> bool:
    """Its rule asks how many updates there have been, or has a level that waits for some."""
    return mentions(memory.rule, "count") or any(level.period > 1 for level in memory.rule.levels)


def mentions(rule: Rule, name: str) -> bool:
    return any(isinstance(n, Name) and n.id == name for level in rule.levels for s in level.do for n in walk(s.value))


def clock_of(memory: Memory, clock: str) -> str:
    """The tokens a memory's clock has counted: the sequence's, the lane's, or its own where a call's end moves it."""
    if memory.tail.value != "carry":
        return f'clock["{memory.id.removeprefix(f"{memory.block}/")}"]' + clock.removeprefix("t")
    if memory.carry.value == "stream":
        return 'clock["stream"]' + clock.removeprefix("t")
    return clock


def phase(time: str, chunk: int) -> str:
    return f"({time}) % {chunk}" if " " in time else f"{time} % {chunk}"


def pair(scope: Scope, id: str) -> str:
    return scope.spread(id) if scope.tokenless(id) else scope.text(id)


def rate(scope: Scope, memory: Memory) -> str:
    return scope.spread(memory.rate, memory.heads)


def log_retention(scope: Scope, memory: Memory) -> str:
    """Text of log(retain), with one number per head, or per key channel; `None` keeps all."""
    if not memory.retain:
        return "None"
    if memory.retain in scope.logs:
        return scope.logs[memory.retain]
    own = scope.graph[memory.retain].shape or ()
    shape = memory.heads if len(own) <= len(memory.heads) else own
    return scope.spread_log(memory.retain, shape)


def beta(scope: Scope, memory: Memory, name: str, factor: float) -> str:
    if not name:
        return number(factor)
    param = next(p for p in memory.rule.params if p.name == name)
    return number(float(param.number)) if param.value is None else scope.spread(param.value, memory.heads)


def form_of(emitter: Emitter, memory: Memory) -> str:
    """The form where the memory is read piece by piece."""
    whole = memory.form.kind == "equations"
    return f"{constant_of(emitter, memory)}.form" if whole else form_text(memory, emitter.graph)


def tuple_(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def straight(graph: Graph, ids: Iterable[str], inside: set[str]) -> set[str]:
    """Values outside the loop that those inside use: the nearest ones that have a variable of their own."""
    found: set[str] = set()

    seen: set[str] = set()

    def visit(id: str) -> None:
        node = graph[id]
        if id in seen or isinstance(node, Number) or (isinstance(node, Op) and node.op in ("param", "index", "eye")):
            return
        seen.add(id)
        if id in inside:
            for i in node.inputs if isinstance(node, Op) else ():
                visit(i)
        elif isinstance(node, Op) and not node.name and node.op not in ("conv", "prev"):
            for i in node.inputs:
                visit(i)
        else:
            found.add(id)

    for id in ids:
        visit(id)
    return found
