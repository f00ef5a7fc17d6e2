"""Graph -> train.py: the levels that count steps as a loop one can read, and the update rule of each as a function.

In: the graph after all passes.  Out: the text of a program that needs torch, `runtime` and the model.py beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen.layout import WIDTH, wrapped
from codegen.names import class_name, function_name
from codegen.owned import Owned
from codegen.rules import RuleView, rule_view, safe
from codegen.write import render
from codegen.writing import call, distinct, literal, margin, quoted, strings
from nlc.diagnostics import CompilerBug, Diagnostic, SpecError
from nlc.graph.graph import Graph
from nlc.graph.layers import layers
from nlc.graph.nodes import Carry, Level, Memory, Period, Rule, Unit
from nlc.graph.specialise import reads
from nlc.source import Position

USED = """
    Level Run Settings Weights arguments batches build constant cosine detached factor inherited levels loss main math
    model run settings starts_BT state step sys text torch weights x_BT y_BT
"""
TAKEN = frozenset(USED.split())  # names that the template uses


@dataclass(frozen=True, slots=True)
class StepLevel:
    """A level that counts steps: its variable, the lines that make it, and those that fire it in the loop."""

    variable: str
    making: tuple[str, ...]
    firing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainView:
    """Exactly what train.py.j2 asks for."""

    header: tuple[str, ...]
    doc: tuple[str, ...]
    settings: tuple[str, ...]
    model: str
    dtype: str  # " .to(...)" after the model, "" for float32
    begun: str  # the model and its weights at step 0
    inherits: bool  # some of them are a checkpoint's
    schedule: str
    stream: bool
    math: bool
    functional: bool
    ops: tuple[str, ...]  # names of runtime.ops
    rules: tuple[RuleView, ...]
    weights: tuple[str, ...]  # lines that collect the weights and freeze those no level owns
    making: tuple[StepLevel, ...]  # in the order they take their weights
    firing: tuple[StepLevel, ...]  # fastest first
    variables: str  # of the levels, fastest first
    unpacked: str  # the same, as a target
    loop: str
    loss: tuple[str, ...]


def train(graph: Graph, *, header: Sequence[str], digest: str) -> str:
    """The text of train.py.  `header`: the comment that opens the file; `digest`: the graph's hash.

    Raises SpecError for a rule that training does not support yet.
    """
    return render("train.py.j2", view(graph, header=header, digest=digest))


def view(graph: Graph, *, header: Sequence[str], digest: str) -> TrainView:
    outer = counting_steps(graph)
    stream = any(memory.carry is Carry.STREAM for memory in graph.of(Memory))
    inherits = any(m.source for m in graph.of(Memory)) or any(level.source for level in outer)
    updates = functions(graph, outer)
    written = tuple(updates.values())
    text = "\n".join(line for rule in written for line in rule.lines)
    owned = Owned(graph)
    variables = distinct([level.name for level in outer], TAKEN | {u.name for u in written})
    order = ", ".join(variables[level.name] for level in outer)
    rest_last = sorted(outer, key=lambda level: (takes_rest(level), len(owned.by(level.id)), level.name))
    made = {
        level.id: StepLevel(
            variable=variables[level.name],
            making=making(graph, level, owned, updates[key(level)], variables[level.name]),
            firing=firing(graph, level, updates[key(level)], variables[level.name]),
        )
        for level in outer
    }
    arguments = f"x_BT, y_BT, {'run.state, ' if stream else ''}starts=starts_BT{'' if stream else ', final=run.unread'}"
    return TrainView(
        header=tuple(line for text in header for line in wrapped(text, WIDTH - 2)),
        doc=doc(graph),
        settings=settings(graph, digest),
        model=class_name(graph.name),
        dtype=dtype(graph),
        begun=begun(inherits),
        inherits=inherits,
        schedule=graph.run.schedule,
        stream=stream,
        math="math." in text,
        functional="F." in text,
        ops=tuple(sorted({name for u in written for name in u.ops})),
        rules=written,
        weights=weights(outer, owned),
        making=tuple(made[level.id] for level in rest_last),
        firing=tuple(made[level.id] for level in outer),
        variables=order,
        unpacked=order if len(outer) > 1 else f"[{order}]",
        loop=loop(graph, outer, order),
        loss=loss(graph, arguments, [variables[level.name] for level in outer if looks(level)]),
    )


def counting_steps(graph: Graph) -> list[Level]:
    """The levels this program updates, fastest first.  Raises SpecError for weights that count something else."""
    found = []
    for level in graph.levels:
        if not level.weights or level.period.unit is Unit.NEVER:
            continue
        if level.period.unit is not Unit.STEP:
            message = f"level '{level.name}': weights updated every {level.period} are not supported yet"
            raise SpecError([Diagnostic("NLC1001", said(graph, level, "every"), message, hint="count steps")])
        found.append(level)
    return found


# ---- the parts of the file -------------------------------------------------------------------------------------------


def doc(graph: Graph) -> tuple[str, ...]:
    """What the program does, and its levels as they nest in time, slowest outside."""
    firing = [level for level in reversed(graph.levels) if level.period.unit is not Unit.NEVER and level.period.count]
    times = [f"{'    ' * depth}{each(level.period)}" for depth, level in enumerate(firing, 1)]
    room = max((len(time) for time in times), default=0) + 4
    name = max((len(level.name) for level in firing), default=0) + 4
    where = {Unit.STEP: "below, in `main`"}
    nest = [
        f"{time:{room}}{level.name:{name}}{where.get(level.period.unit, 'inside a sequence, in model.py')}"
        for time, level in zip(times, firing, strict=True)
    ]
    return (
        f"Train {graph.name}.",
        "",
        *nest,
        "",
        "python train.py                the source of Python's standard library",
        "python train.py --data PATH    text of one's own; --help lists the rest",
    )


def each(period: Period) -> str:
    """every step, every 64 tokens"""
    return f"every {period.unit.value if period.count == 1 else period}"


def inner(graph: Graph) -> list[str]:
    """The levels that write inside a sequence, fastest first."""
    units = (Unit.TOKEN, Unit.SEQUENCE)
    written = [level for level in graph.levels if level.period.unit in units and level.period.count and level.memories]
    return [level.name for level in written]


def ticks(graph: Graph) -> str:
    """level titans ticks in here | levels titans, cms.fast and cms.mid tick in here"""
    *names, last = inner(graph) or [""]
    if names:
        return f"levels {', '.join(names)} and {last} tick in here"
    return f"level {last} ticks in here" if last else ""


def settings(graph: Graph, digest: str) -> tuple[str, ...]:
    run = graph.run
    rows = [
        ("name", graph.name, ""),
        ("spec", graph.file, ""),
        ("graph", digest[:16], ""),
        ("vocab", graph.sizes["vocab"], ""),
        ("context", graph.sizes["context"], "tokens of a sequence"),
        ("batch", run.batch, "sequences of a step"),
        ("steps", run.steps, ""),
        ("warmup", run.warmup, "steps"),
        ("clip", run.clip, "largest norm of a level's gradient"),
        *([("precision", run.precision, "")] if run.precision != "float32" else []),
        ("seed", run.seed, ""),
        ("log_every", 10, "steps"),
        ("validate_every", even(run.steps / 8), "steps"),
        ("checkpoint_every", even(run.steps / 4), "steps"),
    ]
    return tuple(margin(f"    {name}={literal(value)},", comment) for name, value, comment in rows)


ROUND = tuple(int(f"{digit}{'0' * zeros}") for zeros in range(1, 10) for digit in (1, 2, 5))  # 10, 20, 50, 100 ...


def even(steps: float) -> int:
    """The largest round number that is not above, so that what happens every so often happens at steps one can name."""
    return max((number for number in ROUND if number <= steps), default=ROUND[0])


def dtype(graph: Graph) -> str:
    """Of the weights: bfloat16 is a precision of products only."""
    return ".to(torch.float64)" if graph.run.precision == "float64" else ""


def begun(inherits: bool) -> str:
    """The model at its first step; what begins as a checkpoint's is in a file of the package."""
    fresh = "build(run.settings.seed)"
    model = f"inherited({fresh}, __file__)" if inherits else fresh
    return margin(f"        model = {model}.to(run.device)", "start.safetensors" if inherits else "")


def loss(graph: Graph, arguments: str, looking: Sequence[str]) -> tuple[str, ...]:
    """The forward pass, under autocast where the spec asks for bfloat16; `looking`: levels whose rule sees inputs."""
    half = graph.run.precision == "bfloat16"
    around = ["run.autocast()"] * half + [f"{level}.inputs(y_BT)" for level in looking]
    code = margin(f"{'    ' * (3 + bool(around))}loss, state = model.loss({arguments})", ticks(graph))
    said = ["matrix products in bfloat16"] * half + ["the rule sees the layers' inputs"] * bool(looking)
    return (f"            with {', '.join(around)}:  # {'; '.join(said)}", code) if around else (code,)


def rule_of(level: Level) -> Rule:
    if level.rule is None or level.rate is None:
        raise CompilerBug(f"codegen: level '{level.name}' counts steps and has no rule or no rate")
    return level.rule


def said(graph: Graph, level: Level, field: str) -> Position:
    """Where a field of a level is written: on its only memory, where that says it for itself, or on the level."""
    own = graph[level.memories[0]].said if len(level.memories) == 1 else ()
    return dict(own).get(field) or dict(level.said).get(field, level.at)


def key(level: Level) -> Any:
    """Levels with equal keys are updated by one function."""
    return rule_of(level).name, rule_of(level).levels


def functions(graph: Graph, outer: Sequence[Level]) -> Mapping[Any, RuleView]:
    """One function for every different program."""
    found: dict[Any, RuleView] = {}
    for level in outer:
        if key(level) not in found:
            rule = rule_of(level)
            taken = TAKEN | {u.name for u in found.values()}
            wanted = f"{rule.name}_{function_name(level.name.split('.')[-1])}" if rule.name in taken else rule.name
            name = distinct([wanted], taken)[wanted]
            found[key(level)] = rule_view(rule, name, inside=False, half=graph.run.precision == "bfloat16")
    return found


def weights(outer: Sequence[Level], owned: Owned) -> tuple[str, ...]:
    decaying = owned.patterns(owned.decaying())
    lines = call("weights = Weights", ["model", *([f"decay={strings(decaying, 80)}"] if decaying else [])], 1)
    orphans = owned.patterns(set(owned.nodes).difference(*(owned.by(level.id) for level in outer)))
    return (*lines, *call("weights.freeze", [quoted(name) for name in orphans], 1)) if orphans else lines


def looks(level: Level) -> bool:
    """Its rule sees the inputs of the layers that it updates."""
    return "gram" in reads(rule_of(level))


def takes_rest(level: Level) -> bool:
    """It owns every weight that no other level does."""
    return any(s.patterns == ("*",) and s.rank is None and not s.excluded for s in level.selects)


def making(graph: Graph, level: Level, owned: Owned, rule: RuleView, variable: str) -> tuple[str, ...]:
    """slow = Level("cms.slow", weights.take("blocks.*.cms.slow.*"), state=("m", "v2"))"""
    rest = takes_rest(level)
    names = ("*",) if rest else owned.patterns(owned.by(level.id))
    taken = "\n".join(call("weights.take", [quoted(name) for name in names], 0))
    kept = (*(name for name in rule.state if name not in rule.own), *["start"] * rule.starts)
    state = [f"state={strings(kept, 60)}"] if kept else []
    state += ["entrywise=True"] * rule.entrywise
    state += [f"remembered=({', '.join(rule.remembered)},)"] if rule.remembered else []
    if looks(level):
        known = owned.patterns(
            owned.by(level.id) & owned.named({id for id, hidden in layers(graph).items() if not hidden})
        )
        state.append(f"layers={strings(known, 60)}")
    lines = call(f"{variable} = Level", [quoted(level.name), taken, *state], 1)
    return (margin(lines[0], "all that is left"), *lines[1:]) if rest else lines


def firing(graph: Graph, level: Level, rule: RuleView, variable: str) -> tuple[str, ...]:
    """train.update(adamw, clip=settings.clip, lr=1e-3 * factor, ...), under an `if` when not at every step."""
    given = [f"{safe(p.name)}={literal(p.number)}" for p in rule_of(level).params if p.name in rule.parameters]
    count = level.period.count
    arguments = [rule.name, "clip=settings.clip", f"lr={literal(level.rate)} * factor", *given]
    lines = call(f"{variable}.update", arguments, 3 + (count > 1))
    if len(lines) == 1:
        lines = (margin(lines[0], "", said(graph, level, "rule")),)
    if count == 1:
        return lines
    comment = f"level {level.name}: every {count} steps, the sum of their gradients"
    return (margin(f"            if (step + 1) % {count} == 0:", comment, said(graph, level, "every")), *lines)


def loop(graph: Graph, outer: Sequence[Level], variables: str) -> str:
    """The loop over steps; where a level fires at every step, the loop is that level's."""
    code = f"        for step in run.steps(model, [{variables}]):"
    every = next((level for level in outer if level.period.count == 1), None)
    return margin(code, f"level {every.name}: every 1 step", said(graph, every, "every")) if every else code
