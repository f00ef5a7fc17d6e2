"""What a spec will do, in words and numbers: a graph after all passes -> Explanation -> the text of `nlc explain SPEC`.

The facts are gathered here (`explain`); `nlc.report` lays them out as text, `--json` prints them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nlc.equations import names
from nlc.graph.graph import Graph
from nlc.graph.momenta import momenta
from nlc.graph.nodes import (
    Carry,
    Form,
    Fused,
    Level,
    Memory,
    Objective,
    Param,
    Period,
    Read,
    Recurrence,
    Rule,
    Tail,
    Unit,
    When,
    per_step,
)
from nlc.graph.unheeded import unheeded
from nlc.passes.keep import written_every


@dataclass(frozen=True, slots=True)
class LevelFacts:
    index: int
    name: str
    period: str
    per_step: str  # updates per optimiser step
    fires: int | None  # updates in a sequence, as a run counts them; None where not counted
    per_sequence: str  # the same as a table shows it
    when: str  # and in words
    rule: str
    learns_from: str
    memories: tuple[str, ...]
    weights: int  # ordinary weights it owns, counted as tensors of one layer of each block and of the frame


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    name: str
    form: str
    start: str
    carry: str
    reads: str
    meta: str


@dataclass(frozen=True, slots=True)
class MomentumFacts:
    of: str  # the memory, or the level of weights, whose gradients it remembers
    rule: str
    names: tuple[str, ...]
    every: str


@dataclass(frozen=True, slots=True)
class RecurrenceFacts:
    block: str
    lowering: str
    members: tuple[str, ...]
    chunk: int
    block_length: int
    reason: str
    kept: str  # of one whose states the backward pass needs: whether they are kept or made again
    placed: str  # on a target with kernels: which one, or why none


@dataclass(frozen=True, slots=True)
class FusedFacts:
    block: str
    members: tuple[str, ...]  # the operators
    value: str  # the name of what they give, or of what it is a part of
    placed: str


@dataclass(frozen=True, slots=True)
class CostFacts:
    parameters: int
    state_bytes: int  # per sequence, float32
    flops: int  # per token, forward
    activation_bytes: int  # saved for backward, per token
    activation_bytes_per_step: int  # in memory at a time
    span: int  # tokens of a sequence whose activations are in memory at a time; 0: all


@dataclass(frozen=True, slots=True)
class Explanation:
    name: str
    doc: str
    file: str
    sizes: tuple[tuple[str, int], ...]
    context: int  # tokens in a training sequence; 0 in a bare program that does not say
    tokens_per_step: int
    levels: tuple[LevelFacts, ...]
    memories: tuple[MemoryFacts, ...]
    momenta: tuple[MomentumFacts, ...]
    recurrences: tuple[RecurrenceFacts, ...]
    fused: tuple[FusedFacts, ...]  # on a target with kernels: what one computes of the operators, or why none
    notes: tuple[str, ...]
    cost: CostFacts | None


def explain(graph: Graph) -> Explanation:
    """Gather the facts of a graph after all passes."""
    context = graph.sizes.get("context", 0)
    return Explanation(
        name=graph.name,
        doc=graph.doc,
        file=graph.file,
        sizes=tuple(graph.sizes.items()),
        context=context,
        tokens_per_step=context * graph.run.batch,
        levels=tuple(_level(graph, level) for level in graph.levels),
        memories=tuple(_memory(graph, memory) for memory in graph.of(Memory)),
        momenta=tuple(MomentumFacts(m.of, m.rule, m.names, str(m.period)) for m in momenta(graph)),
        recurrences=tuple(_recurrence(graph, r) for r in graph.of(Recurrence)),
        fused=tuple(_fused(graph, f) for f in graph.of(Fused)),
        notes=tuple(dict.fromkeys(_notes(graph))),
        cost=_cost(graph),
    )


def _recurrence(graph: Graph, r: Recurrence) -> RecurrenceFacts:
    members = _names(graph, r.members)
    return RecurrenceFacts(r.block, r.lowering, members, r.chunk, r.block_length, r.reason, _kept(graph, r), r.placed)


def _fused(graph: Graph, f: Fused) -> FusedFacts:
    last = f.members[-1]
    named = graph[last].name or last.removeprefix(f"{f.block}/").split("/")[0].split(":")[0]
    return FusedFacts(f.block, tuple(graph[m].op for m in f.members), named, f.placed)


def _kept(graph: Graph, recurrence: Recurrence) -> str:
    if not written_every(graph, recurrence) or not graph.sizes.get("context"):
        return ""
    if recurrence.kept:
        return "its states are kept for the backward pass"
    return "its states are made again in the backward pass: with them a step would not fit into run.memory"


# ---- levels -------------------------------------------------------------------------------------------------------


def _level(graph: Graph, level: Level) -> LevelFacts:
    memories = [graph[id] for id in level.memories]
    written = [m for m in memories if not is_attention(m) and m.carry is not Carry.MODEL]
    rules = [rule_text(m.rule, graph) for m in written]
    if level.rule is not None:
        rules = [rule_text(level.rule, graph, level.rate)]
    objectives = [_objective(m.objective, graph) for m in written]
    if level.objective and not (memories and all(map(is_attention, memories))):
        objectives = [_outer(level.objective, level.period)]
    if level.period.unit is Unit.NEVER:
        rules, objectives = [], []
    fires, when = firing(graph, level.period, memories)
    return LevelFacts(
        index=level.index,
        name=level.name,
        period="-" if not level.period.count and level.period.unit is Unit.TOKEN else str(level.period),
        per_step=_per_step(graph, level.period, fires),
        fires=fires,
        per_sequence=_per_sequence(graph, level.period, memories, fires),
        when=when,
        rule=_listed(rules),
        learns_from=_listed(objectives),
        memories=_names(graph, level.memories),
        weights=len(level.weights),
    )


def firing(graph: Graph, period: Period, memories: Sequence[Memory]) -> tuple[int | None, str]:
    """How often a level is updated: within one training sequence where it counts tokens, within the run where it counts
    steps.  An update after the sequence's last token counts, as in a run, though none of its tokens can read it."""
    context, steps = graph.sizes.get("context", 0), graph.run.steps
    if memories and all(is_attention(m) for m in memories):
        return None, "not written: looks at the tokens themselves"
    match period.unit:
        case Unit.NEVER:
            return None, "never written"
        case Unit.TOKEN if period.count and context:
            if all(m.carry is Carry.STREAM for m in memories):
                return None, f"{plural(context // period.count, 'update')} in {context:,} tokens of a lane"
            if period.count > context:
                return 0, f"never fires: the period is longer than the context of {context:,}"
            unread = ", after its last token" if period.count == context else ""
            return context // period.count, f"{plural(context // period.count, 'update')} in a sequence{unread}"
        case Unit.STEP if period.count and not graph.bare:
            return None, f"{plural(steps // period.count, 'update')} in a run of {plural(steps, 'step')}"
        case _:
            return None, f"every {period}"


def _per_sequence(graph: Graph, period: Period, memories: Sequence[Memory], fires: int | None) -> str:
    if fires is not None:
        return f"{fires:,}" if fires else "never fires"
    context = graph.sizes.get("context", 0)
    if context and period.unit is Unit.TOKEN and period.count:  # a stream: its clock goes on from sequence to sequence
        return _ratio(Fraction(context, period.count)) + " of a lane"
    return "-"


def _per_step(graph: Graph, period: Period, fires: int | None) -> str:
    tokens = graph.sizes.get("context", 0) * graph.run.batch
    if tokens and fires is not None:  # a clock that begins anew with each sequence
        return f"{graph.run.batch * fires:,}"
    if period.unit is Unit.NEVER:
        return "0"
    if not tokens or not period.count or period.unit not in (Unit.TOKEN, Unit.STEP):
        return "-"
    frequency = per_step(period, tokens)
    return _ratio(frequency)


def _ratio(value: Fraction) -> str:
    if value.denominator == 1:
        return f"{value.numerator:,}"
    return f"1/{value.denominator:,}" if value.numerator == 1 else f"{float(value):,.1f}"


def _outer(objective: str, period: Period) -> str:
    if objective != "loss":
        return objective
    return "each token's loss" if period.unit is Unit.TOKEN else "training loss"


def _objective(objective: Objective, graph: Graph) -> str:
    if objective.kind == "loss":
        return "each token's own loss"
    return objective.kind + _arguments(objective.params, graph)


def rule_text(rule: Rule, graph: Graph, rate: float | None = None) -> str:
    """The rule as a spec would write it, defaults left out: adamw(lr=0.001, betas=(0.9, 0.95))."""
    lr = () if rate is None else (Param(name="lr", number=rate),)
    said = [p for p in rule.params if p.name in rule.said]
    return rule.name + _arguments((*lr, *said), graph)


def _arguments(params: Iterable[Param], graph: Graph) -> str:
    shown = [f"{p.name}={_number(p.number) if p.value is None else _name(graph, p.value)}" for p in params]
    return f"({', '.join(shown)})" if shown else ""


def _number(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_number, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- memories -----------------------------------------------------------------------------------------------------


def is_attention(memory: Memory) -> bool:
    return memory.form.kind == "attention"


def _memory(graph: Graph, memory: Memory) -> MemoryFacts:
    whens = {read.when.value for read in graph.of(Read) if read.memory == memory.id}
    reads = ", ".join(w.value for w in When if w.value in whens)
    if memory.period.unit is Unit.NEVER:
        reads = "never written"
    elif memory.chunk > 1:
        reads = reads.replace("chunk", f"chunk of {memory.chunk}")
    elif memory.carry is Carry.MODEL or memory.period.count > 1:
        reads = "as last written"
    if is_attention(memory):
        return MemoryFacts(memory_name(memory), form_text(memory), "-", memory.carry.value, "all tokens so far", "-")
    if memory.of:
        reads = f"where {' and '.join(m.name for m in graph.of(Memory) if m.nest == memory.id)} begins again"
    meta = "-" if memory.carry is Carry.MODEL else memory.meta.value
    start = f"held with {_holder(graph, memory)}" if memory.nest else memory.start
    return MemoryFacts(memory_name(memory), form_text(memory), start, memory.carry.value, reads, meta)


def _holder(graph: Graph, memory: Memory) -> str:
    """The slower memory whose level holds the start of a nested one."""
    level: Level = graph[graph[memory.nest].level]
    return next(str(graph[m].name) for m in level.memories if not graph[m].of)


def form_text(memory: Memory) -> str:
    """The map with its sizes: matrix 4 x [64, 64]; mlp 256 -> 1024 -> 256, layernorm, bias."""
    form, heads = memory.form, "".join(f"{h} x " for h in memory.heads)
    match form.kind:
        case "matrix":
            return f"matrix {heads}[{memory.outer}, {memory.inner}]"
        case "vector":
            return f"vector {heads}[{memory.inner}]"
        case "mlp" | "swiglu":
            widths = [memory.inner, *[form.hidden] * (form.depth - 1), memory.outer]
            return f"{form.kind} {heads}{' -> '.join(map(str, widths))}{_extras(form)}"
        case "attention":
            return f"attention {heads}{memory.inner}{_extras(form)}"
        case _:
            shapes = [f"{name} [{', '.join(map(str, shape[len(memory.heads) :]))}]" for name, shape in memory.parts]
            return f"{form.called} {heads}{memory.inner} -> {memory.outer}, {', '.join(shapes)}"


def _extras(form: Form) -> str:
    said = [form.norm] if form.norm != "none" else []
    said += ["bias"] if form.bias else []
    said += ["no residual"] if form.kind in ("mlp", "swiglu") and not form.residual else []
    said += [f"window {form.window}"] if form.window else []
    said += [f"segment {form.segment}"] if form.segment else []
    said += [f"persistent {form.persistent}"] if form.persistent else []
    return "".join(f", {word}" for word in said)


def memory_name(memory: Memory) -> str:
    """level.memory, as a spec would address it."""
    return memory.id.split(":")[-1]


def _name(graph: Graph, id: str) -> str:
    node = graph[id]
    return getattr(node, "name", "") or id


def _names(graph: Graph, ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(memory_name(graph[id]) for id in ids)


# ---- notes --------------------------------------------------------------------------------------------------------


def _notes(graph: Graph) -> Iterator[str]:
    """What a reader of the spec might not expect, each in one sentence."""
    memories = [m for m in graph.of(Memory) if not is_attention(m)]
    if not graph.bare and graph.run.warmup >= graph.run.steps:
        short = "the rate never reaches its full value"
        yield f"run.warmup is {graph.run.warmup:,} and run.steps {graph.run.steps:,}: {short}"
    yield from _invisible(graph, memories)
    yield from _never(graph, memories)
    yield from _tails(graph, memories)
    for memory in memories:
        if memory.form.kind in ("mlp", "swiglu") and not memory.normalise_hidden and uses_gram(memory.rule):
            yield (
                f"{memory_name(memory)}: rule {memory.rule.name} erases each layer with its own input, and hidden "
                "activations are not normalised; it diverges where rate x |h|^2 is large: bound the rate, or say "
                "normalise_hidden: true"
            )
    yield from (warning.message for warning in unheeded(graph))


def _invisible(graph: Graph, memories: Sequence[Memory]) -> Iterator[str]:
    at_chunks = {read.memory for read in graph.of(Read) if read.when is When.CHUNK}
    hidden: dict[int, list[str]] = {}
    for memory in memories:
        if memory.chunk > 1 and memory.period.unit is not Unit.NEVER and memory.id in at_chunks:
            hidden.setdefault(memory.chunk, []).append(memory_name(memory))
    for chunk, unseen in sorted(hidden.items()):
        these = "this memory" if len(unseen) == 1 else "these memories"
        yield (
            f"{', '.join(unseen)}: read: chunk, so the running chunk (up to {chunk - 1} tokens back) is invisible to "
            f"{these}; nearer context must come from elsewhere, such as a convolution"
        )


def _never(graph: Graph, memories: Sequence[Memory]) -> Iterator[str]:
    context = graph.sizes.get("context", 0)
    for m in memories:
        if context and m.carry is Carry.SEQUENCE and m.period.unit is Unit.TOKEN and m.period.count >= context:
            reaches = f"{memory_name(m)}: every {m.period} reaches the context of {context:,}, so it"
            never = m.period.count > context
            yield f"{reaches} never fires" if never else f"{reaches} fires after the last token and nothing reads it"


def _tails(graph: Graph, memories: Sequence[Memory]) -> Iterator[str]:
    """What becomes of a chunk or period that a sequence of `context` tokens leaves unfinished."""
    context = graph.sizes.get("context", 0)
    fate = {
        Tail.CARRY: "stay pending in the state",
        Tail.FLUSH: "are written at the end of a call",
        Tail.DROP: "are dropped at the end of a call",
    }
    left: dict[tuple[int, int, str, str], list[str]] = {}
    for m in memories:
        length = max(m.chunk, m.period.count)
        reached = m.carry is Carry.SEQUENCE and m.period.count >= context
        if m.carry is Carry.MODEL or m.period.unit is not Unit.TOKEN or not context or reached:
            continue
        if context % length:
            what = "chunk" if m.chunk > 1 else "period"
            left.setdefault((context % length, length, what, m.tail.value), []).append(memory_name(m))
    for (rest, length, what, tail), unfinished in left.items():
        yield (
            f"{', '.join(unfinished)}: {context:,} tokens are not a whole number of {what}s of {length}; "
            f"the last {rest} {fate[Tail(tail)]} (tail: {tail})"
        )


def uses_gram(rule: Rule) -> bool:
    """Whether the rule's program erases with its inputs."""
    return any("gram" in names(statement.value) for level in rule.levels for statement in level.do)


# ---- cost ---------------------------------------------------------------------------------------------------------


def _cost(graph: Graph) -> CostFacts | None:
    cost = graph.cost
    if cost is None:
        return None
    tokens = (cost.span or graph.sizes.get("context", 0)) * graph.run.batch
    saved = cost.activation_bytes
    return CostFacts(cost.parameters, cost.state_bytes, cost.flops, saved, saved * tokens, cost.span)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words)) or "-"
