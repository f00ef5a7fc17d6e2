"""Memories and the values of their fields: which block has which memory, and the value of each field.

    blocks = Blocks(spec, sizes, levels, report)
    blocks.lowered[kind] = ...; blocks.fields(kind)     for each kind of block: lower the fields of the memories it
    reads memory_nodes(blocks) -> [Memory, ...]               with pairs, rate, retention, rule and weights filled in
    outer_level(blocks, level) -> (rule, rate, objective) of a level

A memory belongs to each kind of block that reads it, in an equation or in a field of another of its memories.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from nlc.constants import constant
from nlc.diagnostics import Reporter
from nlc.equations import Call, Expr, Number, names, parse_call, parse_expression, to_text, walk
from nlc.graph import choices
from nlc.graph.asked import gradient_alone, of_one_pair
from nlc.graph.choices import guarded
from nlc.graph.declare import DeclaredLevel, DeclaredMemory, Said
from nlc.graph.lower import Lowering, weight_id
from nlc.graph.nodes import Carry, Form, Init, Memory, Meta, Objective, Rule, Tail, Unit, Weight
from nlc.graph.scope import Place
from nlc.graph.static import Refused, above_0, size
from nlc.graph.windows import window_of
from nlc.graph.written_forms import WrittenForms, vectors
from nlc.source import Place as Where
from nlc.spec import Spec

NOT_ATTENTION = (
    "every", "chunk", "objective", "rule", "rate", "retain", "retain_to", "grad_at", "window", "weigh", "read", "start",
    "meta", "tail", "out", "normalise_hidden",
)  # fmt: skip
L2, GD = Objective(kind="l2"), Rule(name="gd")


@dataclass
class FieldValues:
    """The ids of a memory's field values in one kind of block."""

    pairs: tuple[tuple[str, str], ...] = ()
    rate: str = ""
    retain: str = ""
    weigh: str = ""
    objective: Objective = L2
    rule: Rule = GD


@dataclass
class Blocks:
    """Every kind of block as it is lowered, and the memories each of them has."""

    spec: Spec
    sizes: dict[str, int]
    levels: list[DeclaredLevel]
    report: Reporter
    lowered: dict[str, Lowering] = field(default_factory=dict)
    values: dict[tuple[str, str], FieldValues] = field(default_factory=dict)  # (kind, memory id) -> its fields
    cache: dict[tuple[str, str], Any] = field(default_factory=dict)  # (kind, path of a field) -> what it became
    forms: WrittenForms = field(init=False)

    def __post_init__(self) -> None:
        self.forms = WrittenForms(self.spec, self.sizes, self.report)

    @property
    def memories(self) -> list[DeclaredMemory]:
        return [m for level in self.levels for m in level.memories]

    def ids(self, kind: str) -> dict[str, str]:
        """Declared id -> the id of the memory in this kind of block, which says the kind where several have the memory.

        Which kinds do is known once all are lowered: a field of a memory that one reads may read further memories."""
        prefix = self.lowered[kind].scope.prefix
        several = {m.id for m in self.memories if sum((k, m.id) in self.values for k in self.lowered) > 1}
        return {m.id: f"{prefix}{m.id}" if m.id in several else m.id for m in self.memories}

    def fields(self, kind: str) -> None:
        """Lower the fields of every memory this kind reads; a field may read further memories."""
        lower = self.lowered[kind]
        done: set[str] = set()
        while True:
            waiting = [m for m in self.memories if m.name in lower.reads and m.id not in done]
            if not waiting:
                return
            done.add(waiting[0].id)
            self.memory(kind, waiting[0])

    def place_unread(self) -> None:
        """A memory that nothing reads stands in the first block, for the passes to refuse."""
        kind = next(iter(self.lowered))
        for memory in self.memories:
            if not any((k, memory.id) in self.values for k in self.lowered):
                self.memory(kind, memory)

    def memory(self, kind: str, memory: DeclaredMemory) -> None:
        values = self.values[kind, memory.id] = FieldValues()
        if memory.period.unit is Unit.NEVER:
            values.objective = guarded(self.report, lambda: self.objective(kind, memory)) or values.objective
            return
        if memory.attention:
            values.pairs = self.pairs(kind, memory)
            return
        values.objective = guarded(self.report, lambda: self.objective(kind, memory)) or values.objective
        if values.objective.kind == "loss":
            for name in ("keys", "values"):
                if name in memory.fields:
                    message = f"memory '{memory.id}': '{name}' says nothing under objective: loss"
                    self.report.error("NLC0411", memory.where(name), message, "it learns from what it is read with")
        else:
            values.pairs = self.pairs(kind, memory)
        if memory.steps:
            return
        rule = guarded(self.report, lambda: self.rule(kind, memory))
        if rule is not None:
            values.rule, values.rate = rule
            of_one_pair(memory, values.rule, values.objective.kind, self.report)
        if "retain" in memory.fields and str(memory.fields["retain"].value) not in ("1", "1.0"):  # which keep all
            values.retain = self.value(kind, memory, "retain") or ""
        if "weigh" in memory.fields:
            values.weigh = self.value(kind, memory, "weigh") or ""

    # ---- single fields ----------------------------------------------------------------------------------------

    def value(self, kind: str, memory: DeclaredMemory, name: str) -> str | None:
        """A field that is one expression.  A level's is lowered once for all its memories."""
        said, path = memory.fields[name], memory.base(name)
        found: str | None = self.once(kind, path, lambda: self.expression(kind, str(said.value), said.place, path))
        return found

    def once(self, kind: str, path: str, make: Any) -> Any:
        key = (kind, path)
        if key not in self.cache:
            self.cache[key] = guarded(self.report, make)
        return self.cache[key]

    def place(self, kind: str, path: str) -> Place:
        return Place(self.lowered[kind].scope.prefix + path, path, field=path)

    def expression(self, kind: str, text: str, where: Where, path: str) -> str | None:
        return self.lower(kind, parse_expression(text, where), path)

    def lower(self, kind: str, expr: Expr, path: str) -> str | None:
        lower = self.lowered[kind]
        value = lower.value(expr, self.place(kind, path))
        return None if value is None else lower.scope.resolve(value)

    def pairs(self, kind: str, memory: DeclaredMemory) -> tuple[tuple[str, str], ...]:
        """keys and values, several pairs in order."""
        found: dict[str, list[str | None]] = {}
        for name in ("keys", "values"):
            said = memory.fields.get(name)
            texts = [] if said is None else said.value if isinstance(said.value, list) else [said.value]
            found[name] = []
            for i, text in enumerate(texts):
                several = said is not None and isinstance(said.value, list)
                path = memory.base(name) + (f"_{i + 1}" if i else "")
                where = self.spec.place(self.path(memory, name) + (f".{i}" if several else ""))
                found[name].append(
                    self.once(kind, path, lambda t=str(text), w=where, p=path: self.expression(kind, t, w, p))
                )
        keys, values = found["keys"], found["values"]
        if len(keys) != len(values):
            at = memory.where("values" if values else "keys")
            message = f"memory '{memory.id}' has {_count(len(keys), 'key')} and {_count(len(values), 'value')}"
            self.report.error("NLC0411", at, message, "each pair has one of each")
            return ()
        return tuple((k, v) for k, v in zip(keys, values, strict=True) if k and v)

    def path(self, memory: DeclaredMemory, name: str) -> str:
        """Where a field stands in the spec."""
        level, own = memory.id.split(".", 1)
        return f"levels.{level}.memories.{own}.{name}" if memory.fields[name].own else f"levels.{level}.{name}"

    def objective(self, kind: str, memory: DeclaredMemory) -> Objective:
        said = memory.fields.get("objective")
        base = memory.base("objective") if said else ""

        def make() -> Objective:
            return choices.objective(said, self.lowered[kind], lambda p: self.place(kind, f"{base}.{p}"), self.report)

        return self.once(kind, base or "objective", make) or L2

    def rule(self, kind: str, memory: DeclaredMemory) -> tuple[Rule, str]:
        """The rule, and the value of its rate: the rule's lr, or `rate`, or the rule's own default."""
        said = memory.fields.get("rule")
        base = memory.base("rule") if said else ""

        def make() -> tuple[Rule, str]:
            rule, lr, default = choices.rule(
                said,
                self.lowered[kind],
                self.sizes,
                lambda p: self.place(kind, f"{base}.{p}"),
                self.report,
                self.spec.rules,
            )
            if lr is not None:
                rate = self.lower(kind, lr, f"{base}.lr")
            elif "rate" in memory.fields:
                rate = None
            else:
                at = said.at if said else memory.at
                rate = self.lower(kind, Number(default, at), f"{base or memory.id}.lr")
            return rule, rate or ""

        found = self.once(kind, base or f"{memory.id}.rule", make)
        if found is None:
            raise Refused
        rule, rate = found
        if not rate and "rate" in memory.fields:
            rate = self.value(kind, memory, "rate") or ""
        return rule, rate


def memory_nodes(blocks: Blocks) -> list[Memory]:
    """Every memory, once for each kind of block that has it; its weights are added to the block."""
    found = []
    for level in blocks.levels:
        for memory in level.memories:
            for kind, lower in blocks.lowered.items():
                if (kind, memory.id) in blocks.values:
                    node = guarded(blocks.report, partial(_memory, blocks, kind, lower, memory))
                    if node is not None:
                        found.append(node)
    return found


def _memory(blocks: Blocks, kind: str, lower: Lowering, memory: DeclaredMemory) -> Memory:
    report = blocks.report
    values, said = blocks.values[kind, memory.id], memory.fields
    _supported(memory, report, alone=all(m.attention for m in blocks.memories if m.level == memory.level))
    if "form" not in said:
        report.error("NLC0203", memory.at, f"memory '{memory.id}' has no form", "form: matrix")
        raise Refused
    form = choices.form(said["form"], blocks.sizes, blocks.forms, report)
    form_weights: tuple[str, ...] = ()
    if form.kind == "equations":
        form, form_weights = blocks.forms.placed(form, lower, memory.base("form"))
    start, (init, scale) = choices.start(None if memory.attention else said.get("start"), report)
    source = None if memory.attention else choices.source(said.get("start"))
    if start == "learned" and memory.steps:
        start = "random"
    if start == "random" and not memory.steps:
        report.error(
            "NLC0406", memory.where("start"), f"memory '{memory.id}': a random start is for carry: model", "learned"
        )
    if init is Init.IDENTITY and form.kind != "matrix":
        report.error(
            "NLC0406",
            memory.where("start"),
            f"memory '{memory.id}': only a matrix starts as the identity",
            f"the form is {form.kind}",
        )
    outer = _out(blocks, memory) if "out" in said else 0
    node = Memory(
        id=blocks.ids(kind)[memory.id], at=memory.at, block=kind, name=memory.name, level=f"level:{memory.level}",
        form=form, objective=values.objective, rule=values.rule, period=memory.period, chunk=memory.get("chunk", 1),
        pairs=values.pairs, rate=values.rate, retain=values.retain,
        retain_to_start=memory.get("retain_to", "zero") == "start" and bool(values.retain),
        grad_at_kept=memory.get("grad_at", "old") == "kept" and bool(values.retain),
        read=lower.memories[memory.name].when, carry=memory.carry, start=start, source=source,
        meta=Meta(memory.get("meta", "full")), tail=Tail(memory.get("tail", "carry")), outer=outer,
        normalise_hidden=bool(memory.get("normalise_hidden", False)), form_weights=form_weights,
        window=window_of(memory, values.objective, len(values.pairs), blocks.sizes, report), weigh=values.weigh,
        said=tuple((name, s.at) for name, s in said.items()),
    )  # fmt: skip
    return replace(node, weights=tuple(w.id for w in _weights(node, memory.id, lower, init, scale)))


def _out(blocks: Blocks, memory: DeclaredMemory) -> int:
    said: Said = memory.fields["out"]
    expr = parse_expression(str(said.value), said.place)
    return above_0(size(expr, blocks.sizes, blocks.report), expr, blocks.report, f"'out' of '{memory.id}'")


def part_names(form: Form) -> tuple[str, ...]:
    """The names of a form's state, in order."""
    match form.kind:
        case "matrix":
            return ("M",)
        case "vector":
            return ("m",)
        case "swiglu":
            layers = ["gate", "in", "out"]
        case "mlp":
            layers = ["in", *map(str, range(2, form.depth)), "out"] if form.depth > 1 else ["out"]
        case "equations":
            return tuple(name for name, _ in form.state)
        case _:
            return ("k", "v") if form.persistent else ()
    return tuple(name for layer in layers for name in ((f"W_{layer}", f"b_{layer}") if form.bias else (f"W_{layer}",)))


def is_vector(form: Form, part: str) -> bool:
    """Whether a part of the state is a vector of each head, which multiplies no layer's input."""
    return part in vectors(form) if form.kind == "equations" else part == "m" or part.startswith("b_")


def _weights(node: Memory, path: str, lower: Lowering, init: Init, scale: float | None) -> list[Weight]:
    """The start's weights; for carry: model the weights themselves; for attention its persistent pairs."""
    names, steps = part_names(node.form), node.carry is Carry.MODEL
    if node.start in ("zeros", "identity") and not steps:
        return []
    base = path if steps else f"{path}.persistent" if node.form.kind == "attention" else f"{path}.start"
    single = node.form.kind in ("matrix", "vector")
    made = []
    for name in names:
        bias, last = is_vector(node.form, name) and node.form.kind != "vector", name == "W_out"
        full = base if single else f"{base}.{name}"
        zero = bias or (last and node.form.residual)
        weight = Weight(
            id=weight_id(lower.scope.prefix, full),
            at=node.at,
            block=node.block,
            path=full,
            init=Init.CONSTANT if zero else init,
            scale=0.0 if zero else scale,
            decay=steps and not bias and node.form.kind != "vector",
        )
        lower.weights[weight.id] = weight
        made.append(weight)
    return made


def _supported(memory: DeclaredMemory, report: Reporter, alone: bool) -> None:
    """Refuse what the language has and this version does not lower, and what contradicts itself.

    `alone`: all memories of its level are attention, so that what the level says is said for nothing else."""
    if memory.attention:
        for name in NOT_ATTENTION:
            if name in memory.fields and (alone or memory.fields[name].own):
                report.error(
                    "NLC0411",
                    memory.where(name),
                    f"memory '{memory.id}': attention keeps every pair, so '{name}' says nothing",
                )
        if memory.carry is Carry.MODEL:
            message = f"memory '{memory.id}': attention keeps the pairs of a lane, not of the model"
            report.error("NLC0411", memory.where("carry"), message, "sequence or stream")
        elif memory.carry is Carry.STREAM and not {"window", "segment"} & set(_parameters(memory)):
            message = (
                f"memory '{memory.id}': attention across sequences would keep every pair of a lane that never ends"
            )
            report.error("NLC0411", memory.where("carry"), message, "say how many: attention(window=64), or segment=64")
        return
    if memory.steps:
        for name in ("chunk", "retain", "retain_to", "grad_at", "window", "weigh", "read", "tail"):
            if (
                name in memory.fields
                and memory.fields[name].own
                and memory.fields[name].value not in (1, "chunk", "carry")
            ):
                message = f"memory '{memory.id}' is carried by the model, so '{name}' says nothing"
                report.error("NLC0411", memory.where(name), message, "no token writes it")


def _parameters(memory: DeclaredMemory) -> list[str]:
    """The names of what its form's call gives."""
    said = memory.fields["form"]
    return [name for name, _ in parse_call(str(said.value), said.place).kwargs]


def outer_level(blocks: Blocks, level: DeclaredLevel) -> tuple[Rule | None, float | None, str]:
    """Rule, rate and objective of a level.  A level whose memories tokens write has them on its memories."""
    report = blocks.report
    fields = level.memories[0].fields if level.memories else level.fields
    objective = _objective_word(level, fields)
    tokens = bool(level.memories) and (level.memories[0].attention or not level.memories[0].steps)
    if tokens or level.period.unit is Unit.NEVER:
        return None, None, objective
    if objective != "loss":
        at = fields["objective"].at if "objective" in fields else level.at
        what = f"memory '{level.memories[0].id}'" if level.memories else f"level '{level.name}'"
        report.error(
            "NLC1001",
            at,
            f"{what} counts steps with objective {objective}: only the loss is supported there",
            "objective: loss",
        )
    said = fields.get("rule")

    def no_value(parameter: str) -> Place:
        raise AssertionError(f"a rule without a block took the value {parameter}")

    made = guarded(report, lambda: choices.rule(said, None, blocks.sizes, no_value, report, blocks.spec.rules))
    if made is None:
        return None, None, objective
    rule, lr, default = made
    gradient_alone(rule, said.at if said else level.at, report)
    written, at = lr, said.at if said else level.at
    if "rate" in fields:
        written, at = parse_expression(str(fields["rate"].value), fields["rate"].place), fields["rate"].at
    rate = default if written is None else constant(written, blocks.sizes)
    if rate is None:
        learned = written is not None and any(isinstance(e, Call) and e.func == "learned" for e in walk(written))
        hint = "no slower level gets a gradient to it; " if learned else ""
        read = [] if written is None else names(written)
        values = [name for lowered in blocks.lowered.values() for name in read if lowered.is_value(name)]
        message = f"level '{level.name}': the rate of a level that counts steps cannot be "
        message += "learned" if learned else "a value of the block" if values else f"'{_plain(written)}'"
        report.error("NLC0411", at, message, f"{hint}give a number")
    return rule, None if rate is None else float(rate), objective


def _plain(written: Expr | None) -> str:
    """An expression in a message; a text without its own quotes."""
    return "" if written is None else to_text(written).strip("'")


def _objective_word(level: DeclaredLevel, fields: dict[str, Said]) -> str:
    """dot, l2, lp, huber, loss or expression; "" for frozen weights."""
    if level.period.unit is Unit.NEVER and "objective" not in fields:
        return ""
    text = str(fields["objective"].value) if "objective" in fields else "l2"
    word = text.split("(")[0].strip()
    return word if word in ("dot", "l2", "lp", "huber", "loss") else "expression"


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"
