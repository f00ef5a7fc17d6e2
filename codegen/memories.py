"""Memories in a block's forward: each lowering the passes chose, as the call or loop that computes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.equations import number
from codegen.expressions import Scope, attribute
from codegen.layout import comment, fit
from codegen.names import class_constant, function_name, local
from codegen.places import place_of
from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Level, Memory, Number, Op, Output, Param, Read, Recurrence, Rule, When
from nlc.equations import Name, walk
from nlc.graph.flow import label, pieces, reads_of, self_query, sources
from nlc.graph.linearity import linear

if TYPE_CHECKING:
    from codegen.block import Emitter


def compute(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    """Emit what gives `read` its value; without one, whatever still has to be computed for the state's sake."""
    match recurrence.lowering:
        case "weights" | "segment":
            for one in [read] if read else []:
                _frozen(emitter, recurrence, one)
        case "attention":
            _attention(emitter, recurrence, read)
        case "shared_product":
            _shared(emitter, recurrence, read)
        case "loop" if recurrence.inside:
            _walk(emitter, recurrence)
        case _:
            _memory(emitter, recurrence)


def headline(emitter: Emitter, recurrence: Recurrence) -> None:
    """`# level titans: every 1 token, chunk 64` and why it is computed as it is."""
    graph = emitter.graph
    if not recurrence.members:
        emitter.lines += comment(recurrence.reason, "", 2)
        return
    memory: Memory = graph[recurrence.members[0]]
    level: Level = graph[memory.level]
    chunk = f", chunk {memory.chunk}" if memory.chunk > 1 else ""
    emitter.lines += comment(f"level {level.name}: every {memory.period}{chunk}", f"{emitter.file}:{level.at.line}", 2)
    emitter.lines += comment(recurrence.reason, "", 2)


# ---- reads of weights that no segment changes ---------------------------------------------------------------------------


def _frozen(emitter: Emitter, recurrence: Recurrence, read: Read) -> None:
    memory: Memory = emitter.graph[read.memory]
    emitter.need(read.query)
    query = spread(emitter, read.query)
    out = emitter.variable(read.name or memory.name, read.id)
    constant, parts = class_constant(memory.id), start_parts(emitter.graph, memory, emitter.scope.like)
    if recurrence.lowering == "weights":
        emitter.say(f"{out}, _ = {constant}.read({parts}, {query})")
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
    if memory.start in ("zeros", "identity"):
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


# ---- attention ----------------------------------------------------------------------------------------------------------


def _attention(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    memory: Memory = emitter.graph[recurrence.members[0]]
    for one in [read] if read else []:
        ((key, value),) = memory.pairs
        for id in (one.query, key, value):
            emitter.need(id)
        _keep_pairs(emitter, memory)
        out = emitter.variable(one.name or memory.name, one.id)
        emitter.say(f"{out}, cache = {attention_call(emitter, memory, one, emitter.scope)}")
        emitter.say(f's["{place_of(emitter.graph, memory)}"] = cache')
        emitter.define(one.id, out)


def _keep_pairs(emitter: Emitter, memory: Memory) -> None:
    """Where a memory is read more than once, every read begins from the same earlier pairs."""
    reads = reads_of(emitter.graph, emitter.block, [memory.id])
    if len(reads) > 1 and memory.id not in emitter.done:
        emitter.done.add(memory.id)
        emitter.say(f'{_pairs(memory)} = s["{place_of(emitter.graph, memory)}"]')


def _pairs(memory: Memory) -> str:
    return local(f"{function_name(memory.name)}_pairs")


def attention_call(emitter: Emitter, memory: Memory, read: Read, scope: Scope, pairs: str = "") -> str:
    """`attention(q, k, v, pairs, ...)`."""
    ((key, value),) = memory.pairs
    form, options = memory.form, []
    options += [f"window={form.window}"] * bool(form.window) + [f"segment={form.segment}"] * bool(form.segment)
    if form.persistent:
        options.append(f"persistent=({', '.join(attribute(emitter.graph[w].path) for w in memory.weights)})")
    options += [f"position={scope.position}"] + ([] if emitter.own else ["own=False"])
    several = len(reads_of(emitter.graph, emitter.block, [memory.id])) > 1
    pairs = pairs or (_pairs(memory) if several else f's["{place_of(emitter.graph, memory)}"]')
    scope.runtime.add("attention")
    return f"attention({', '.join([*(pair(scope, i) for i in (read.query, key, value)), pairs, *options])})"


# ---- one memory whose pairs do not depend on its state ---------------------------------------------------------------------


def _memory(emitter: Emitter, recurrence: Recurrence) -> None:
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
    emitter.say(f'{targets}, s["{place_of(graph, memory)}"] = {memory_call(emitter, memory, reads, "t", emitter.scope)}')
    for r, out in zip(reads, outs, strict=True):
        emitter.define(r.id, out)


def memory_call(emitter: Emitter, memory: Memory, reads: Iterable[Read], clock: str, scope: Scope) -> str:
    """`memory(WRITE, state, k, v, rate, keep, ...)`."""
    graph = emitter.graph
    own = self_query(graph, memory)
    keys = [pair(scope, key) for key, _ in memory.pairs]
    values = [pair(scope, own or value) for _, value in memory.pairs]
    stack = "{}" if len(keys) == 1 else "torch.stack(({}), 2)"
    k, v = stack.format(", ".join(keys)), stack.format(", ".join(values))
    keep = log_retention(scope, memory)
    once = memory.period.count > 1
    speed = "None" if once and not memory.rate_varies else rate(scope, memory)
    arguments = [class_constant(memory.id), f's["{place_of(graph, memory)}"]', k, v, speed, keep]
    if memory.retain_to_start:
        arguments.append(f"start={start_parts(graph, memory, scope.like)}")
    queries = [f'({pair(scope, r.query)}, "{r.when.value}")' for r in reads]
    if queries:
        arguments.append(f"queries=({', '.join(queries)}{',' if len(queries) == 1 else ''})")
    time = clock_of(memory, clock)
    shape = linear(memory.rule)
    if once:
        arguments += [f"period={memory.period.count}", f"chunk={memory.chunk}", f"clock={time}"]
        arguments += [f"lr={scope.text(memory.rate)}"] * (not memory.rate_varies) + ["gram=True"] * erases(memory)
    else:
        arguments += [f"phase={phase(time, memory.chunk)}"] * (memory.chunk > 1)
        if shape is not None and shape.state:
            arguments.append(f"beta={beta(scope, memory, shape.momentum, shape.factor)}")
    given = [parameter(scope, memory, p) for p in memory.objective.params if p.value or memory.objective.tree is None]
    if given:
        arguments.append(f"params={tuple_(given)}")
    if shape is None or once:
        arguments += moving_params(scope, memory)
    if not emitter.own and not once:
        arguments.append("own=False")
    arguments.append(f'learn="{graph[memory.level].name}" in learn')
    return f"{'periodic' if once else 'memory'}({', '.join(arguments)})"


def parameter(scope: Scope, memory: Memory, param: Param) -> str:
    """A number, or a value of each token with at least the memory's heads."""
    if param.value is None:
        return number(float(param.number))
    own = scope.graph[param.value].shape or ()
    return scope.spread(param.value, own if len(own) > len(memory.heads) else memory.heads)


def moving_params(scope: Scope, memory: Memory, name: str = "rule_params") -> list[str]:
    """`rule_params={"beta": s_BTH}`: the rule's parameters that are values of the block."""
    given = ", ".join(f'"{p.name}": {scope.spread(p.value, memory.heads)}' for p in memory.rule.params if p.value)
    return [f"{name}={{{given}}}"] if given else []


def erases(memory: Memory) -> bool:
    """Its rule looks at the layer inputs' second moment."""
    return mentions(memory.rule, "gram")


def counts(memory: Memory) -> bool:
    """Its rule asks how many updates there have been."""
    return mentions(memory.rule, "count")


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


# ---- memories that feed their own writes, one product for all ---------------------------------------------------------------


def _shared(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    name = local(function_name(emitter.graph[emitter.graph[recurrence.members[0]].level].name))
    if recurrence.id not in emitter.done:
        _shared_call(emitter, recurrence, name)
    if read is None or read.id in emitter.scope.names:
        return
    memory: Memory = emitter.graph[read.memory]
    emitter.need(read.query)
    emitter.scope.runtime.add("read_chunks")
    out = emitter.variable(read.name or memory.name, read.id)
    at = phase(clock_of(memory, "t"), memory.chunk)
    emitter.say(f'{out} = read_chunks({name}.bounds["{memory.name}"], {spread(emitter, read.query)}, {memory.chunk}, {at})')
    emitter.define(read.id, out)


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
    extras = sorted(straight(graph, [*recurrence.inside, *results], inside) - set(queries), key=list(graph.nodes).index)
    for id in (*queries, *extras):
        emitter.need(id)
    if recurrence.id in emitter.done:
        return
    emitter.done |= {recurrence.id, *recurrence.members}
    extras = [e for e in extras if not emitter.scope.tokenless(e)]
    maps = _readouts(emitter, reads)
    weights = list(dict.fromkeys(w for i in _closure(graph, results, inside | _unnamed(emitter, results)) if i not in maps for w in getattr(graph[i], "weights", ())))
    _flow(emitter, recurrence, name, [r for group in queries.values() for r in group], extras, weights, results, maps)

    headline(emitter, recurrence)
    shape = linear(first.rule)
    level = first.id.removesuffix("." + first.name)
    boxes = ", ".join(f'"{m.name}"' for m in members)
    emitter.say(f"{name}_boxes = ({boxes}{',' if len(members) == 1 else ''})")
    asked = [f"({spread(emitter, q)}, ({', '.join(repr_(graph[r.memory].name) for r in group)},))" for q, group in queries.items()]
    asked = [a.replace(",))", "))") if a.count('"') > 2 else a for a in asked]
    arguments = [f"{name}_flow", f'{{name: s[f"{level}.{{name}}"] for name in {name}_boxes}}', tuple_(asked)]
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
    if first.objective.kind != "l2":
        arguments.append(f'objective="{first.objective.kind}"')
    outside = set().union(*(emitter.uses.get(id, set()) for id in results)) - {recurrence.id, *recurrence.inside}
    arguments += [f'learn="{graph[first.level].name}" in learn'] + ["outputs=False"] * (not outside)
    emitter.scope.runtime.add("shared_product")
    emitter.say(f"{name} = shared_product({', '.join(arguments)})")
    emitter.say(f's |= {{f"{level}.{{name}}": register for name, register in {name}.state.items()}}')
    for id, field in zip(results[:3], ("k", "v", "rate"), strict=True):
        if id in inside:
            emitter.scope.names.setdefault(id, f"{name}.{field}")
    if first.retain and first.retain in inside:
        emitter.scope.logs[first.retain] = f"{name}.keep"


def _readouts(emitter: Emitter, reads: list[Read]) -> dict[str, Read]:
    """Linear maps that are all a box is read for in the loop: {map: read}.  The map's rows of the box obey the box's own product."""
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


def tuple_(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def starts(graph: Graph, members: list[Memory], name: str, like: str) -> str:
    """Where retention leads, for every box."""
    level = members[0].id.removesuffix("." + members[0].name)
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
        scope.names[e] = emitter.scope.names.get(e, local(getattr(graph[e], "name", "") or "value"))
    words = weight_names([graph[w].path for w in weights])
    paths = {graph[w].path: word for w, word in zip(weights, words, strict=True)}
    scope.weight = lambda path: paths[path]
    lines.append(f"def {name}_flow(reads, extras, weights):")
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


def weight_names(paths: list[str]) -> list[str]:
    """titans.rate.linear -> rate_linear; the whole path where that is not unique."""
    short = ["_".join(p.split(".")[-2:]) for p in paths]
    return [s if short.count(s) == 1 else p.replace(".", "_") for s, p in zip(short, paths, strict=True)]


# ---- memories that feed their own writes, walked ---------------------------------------------------------------------------


def _walk(emitter: Emitter, recurrence: Recurrence) -> None:
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
    emitter.done |= {recurrence.id, *recurrence.members}
    headline(emitter, recurrence)
    for attention in attended.values():
        _keep_pairs(emitter, attention)
    for memory in {r.memory: graph[r.memory] for r in reads if emitter.recurrences[r.memory].lowering == "segment"}.values():
        for read in [r for r in reads if r.memory == memory.id]:
            emitter.say(f"{taps_name(emitter, memory, read)} = []")
    inner = _Walker(emitter, recurrence)
    inner.emit()
    kept = inner.kept()
    for id in kept:
        emitter.say(f"{inner.lists[id]} = []")
    emitter.scope.runtime.add("segments")
    times = ["(0, 1)"] if inner.one else [f"({clock_of(m, 't')}, {s})" for m, s in _ticks(members)]
    emitter.say(f"for a, b in segments(T, {', '.join(times)}):")
    emitter.lines += inner.lines
    for id in kept:
        emitter.say(f"{inner.lists[id]}.append({inner.scope.names[id]})", 1)
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
        names = {
            id: text if outer.scope.tokenless(id) else f"{text}[:, a:b]" for id, text in outer.scope.names.items()
        }
        self.scope = replace(outer.scope, names=names, position="t + a", tokens="b - a", logs={})
        self.inside = set(recurrence.inside)
        self.lines: list[str] = []
        self.lists: dict[str, str] = {}
        self.written: set[str] = set()
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
            return f"{self.graph[node.memory].name}_{self.graph[node.query].name or 'read'}" if not node.name else node.name
        return node.name or function_name(id.rsplit(":", 1)[-1])

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
            if node.when is When.AFTER or (node.when is When.BEFORE and not self.one):
                self.write(memory)
                return
            self.scope.runtime.add("read")
            state = "held" if node.when is When.CHUNK else "now"
            self.scope.runtime.add(state)
            text = f'read({form_text(memory)}, {state}(s["{place_of(self.graph, memory)}"]), {pair(self.scope, node.query)})'
            self.assign(id, text)
            return
        for i in node.inputs:
            self.need(i)
        if node.op in ("prev", "conv"):
            self.register(node)
        elif node.name and not node.field:
            self.assign(id, self.scope.text(id))

    def other(self, read: Read, memory: Memory) -> None:
        """A read of a memory that the walk does not write: attention, weights, or one that learns from the loss."""
        place, out = place_of(self.graph, memory), self.variable(read.id)
        if memory.form.kind == "attention":
            for id in sources(self.graph, memory):
                self.need(id)
            reads = [i for i in self.recurrence.inside if isinstance(self.graph[i], Read) and self.graph[i].memory == memory.id]
            last = read.id == reads[-1]
            self.say(f'{out}, cache = {attention_call(self.outer, memory, read, self.scope, f"""s["{place}"]""")}')
            if last:
                self.say(f's["{place}"] = cache')
        elif self.outer.recurrences[memory.id].lowering == "weights":
            parts = start_parts(self.graph, memory, self.scope.like)
            self.say(f"{out}, _ = {class_constant(memory.id)}.read({parts}, {pair(self.scope, read.query)})")
        else:
            parts, name = start_parts(self.graph, memory, self.scope.like), taps_name(self.outer, memory, read)
            before = ", before=True" if holds(memory) and read.when is When.BEFORE else ""
            query = pair(self.scope, read.query)
            self.say(f'{out}, taps = {class_constant(memory.id)}.read(s.get("{place}"), {parts}, {query}{before})')
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
        return self.outer.variable(self.base(id), id)

    def assign(self, id: str, text: str) -> None:
        variable = self.variable(id)
        self.say(f"{variable} = {text}")
        self.scope.names[id] = variable
        self.outer.owner[variable] = id

    def write(self, memory: Memory) -> None:
        if memory.id in self.written:
            return
        self.written.add(memory.id)
        reads = [
            r
            for r in reads_of(self.graph, memory.block, [memory.id])
            if r.when is When.AFTER or (r.when is When.BEFORE and not self.one)
        ]
        for id in (*sources(self.graph, memory), *(r.query for r in reads)):
            self.need(id)
        outs = [self.outer.claim(self.base(r.id), r.id) for r in reads]
        targets = f"({', '.join(outs)}{',' if len(outs) == 1 else ''})" if outs else "_"
        call = memory_call(self.outer, memory, reads, "t + a", self.scope)
        self.say(f'{targets}, s["{place_of(self.graph, memory)}"] = {call}')
        for r, out in zip(reads, outs, strict=True):
            self.scope.names[r.id] = out

    def kept(self) -> list[str]:
        """Values of the walk that something after it needs."""
        group = {self.recurrence.id, *self.recurrence.members, *self.inside}
        for m in self.graph.of(Memory, self.outer.block):  # attention that only the walk reads
            if m.form.kind == "attention" and {r.id for r in reads_of(self.graph, m.block, [m.id])} <= self.inside:
                group.add(self.outer.recurrences[m.id].id)
        found = []
        for id in self.recurrence.inside:
            if id in self.scope.names and self.outer.uses.get(id, set()) - group:
                self.lists[id] = f"{local(self.base(id))}_parts"
                found.append(id)
        return found


def form_text(memory: Memory) -> str:
    """The runtime's form: `Mlp(hidden ...)`."""
    form = memory.form
    match form.kind:
        case "matrix":
            return "Matrix()"
        case "vector":
            return "Vector()"
        case "mlp":
            options = {"act": form.act, "residual": form.residual, "norm": form.norm, "bias": form.bias, "depth": form.depth}
            given = {"act": "gelu", "residual": True, "norm": "none", "bias": False, "depth": 2}
        case "swiglu":
            options = {"residual": form.residual, "norm": form.norm, "bias": form.bias}
            given = {"residual": True, "norm": "none", "bias": False}
        case _:
            raise KeyError(form.kind)
    options["normalise_hidden"], given["normalise_hidden"] = memory.normalise_hidden, False
    said = [f'{n}="{v}"' if isinstance(v, str) else f"{n}={v}" for n, v in options.items() if v != given[n]]
    return f"{form.kind.capitalize()}({', '.join(said)})"


__all__ = ["compute", "form_text", "label", "start_parts"]
