"""Spec -> Graph: names resolved, levels split by frequency, fields inherited, equations in single assignment.

Shapes, clocks as steps, owners of weights and the order of levels are not known yet: the passes find them.

    build(spec) -> Graph          raises SpecError with everything that is wrong with names, calls and fields
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Assign, parse_block, parse_expression
from nlc.graph.choices import guarded, source
from nlc.graph.declare import DeclaredLevel, DeclaredMemory, declare
from nlc.graph.graph import Graph
from nlc.graph.holders import nested, with_starts
from nlc.graph.idle import idle
from nlc.graph.lower import Lowering, Readable
from nlc.graph.memories import Blocks, memory_nodes, outer_level
from nlc.graph.nodes import AnyNode, Init, Input, Level, Loss, Op, Output, Read, Run, Value, Weight, When
from nlc.graph.scope import Scope
from nlc.graph.static import above_0, size
from nlc.source import Place
from nlc.spec import Spec
from nlc.spec.fields import parse_bytes, parse_stack

ONE = "block"  # the kind of a program with one block


def build(spec: Spec) -> Graph:
    """The graph of a spec, before any pass."""
    report = Reporter()
    model = spec.model
    sizes = _sizes(spec, report)
    bare = bool(model.inputs)
    statements = _statements(spec, report)
    stack = _stack(spec, tuple(statements), sizes, bare, report)
    levels = nested(declare(spec, report), report)
    idle(levels, report)
    report.check()

    blocks = Blocks(spec, sizes, levels, report)
    for kind in dict.fromkeys(stack):
        _lower_block(blocks, kind, statements[kind], prefix=f"{kind}/" if len(set(stack)) > 1 else "", bare=bare)
    blocks.place_unread()
    report.check()
    nodes: list[AnyNode] = []
    for kind, lower in blocks.lowered.items():
        nodes += _values(lower, blocks.ids(kind))
        nodes += _outputs(spec, kind, lower, bare, report)
    memories = with_starts(levels, memory_nodes(blocks), report)
    nodes += [w for lower in blocks.lowered.values() for w in lower.weights.values()]
    if not bare:
        nodes += [
            *_frame(spec, sizes),
            Loss(id="out:loss", at=spec.at("block", key=True) if model.block else spec.at("blocks", key=True)),
        ]
    found = {
        level.id: level
        for level in (_level(blocks, d, [m.id for m in memories if m.level == f"level:{d.name}"]) for d in levels)
    }
    report.check()
    memories = [replace(m, rule=found[m.level].rule or m.rule) for m in memories]
    nodes += [*memories, *found.values()]
    return Graph(
        name=model.name, file=spec.source, doc=model.doc, sizes=sizes, run=_run(spec), stack=stack, tied=model.tied,
        bare=bare, nodes={n.id: n for n in nodes},
    )  # fmt: skip


def _run(spec: Spec) -> Run:
    run = spec.model.run
    return Run(
        batch=run.batch,
        steps=run.steps,
        warmup=run.warmup,
        schedule=run.schedule,
        clip=run.clip,
        precision=run.precision,
        seed=run.seed,
        memory=parse_bytes(run.memory, spec.place("run.memory")),
    )


def _sizes(spec: Spec, report: Reporter) -> dict[str, int]:
    """The sizes declared, and head = width / heads."""
    sizes = spec.model.known_sizes()
    if not spec.model.inputs:
        for name in ("width", "layers", "vocab", "context"):
            if name not in sizes and not (name == "layers" and spec.model.stack):
                report.error(
                    "NLC0203",
                    spec.at("sizes", key=True),
                    f"sizes.{name} is missing",
                    "a program over tokens has width, layers, vocab and context",
                )
    if "head" not in sizes and "width" in sizes and "heads" in sizes:
        report.error(
            "NLC0602", spec.at("sizes.heads"), f"width {sizes['width']} does not divide into {sizes['heads']} heads"
        )
    return sizes


def _statements(spec: Spec, report: Reporter) -> dict[str, tuple[Assign, ...]]:
    """The equations of each kind of block."""
    model = spec.model
    if model.block is not None and model.blocks:
        report.error("NLC0411", spec.at("blocks", key=True), "both block: and blocks:", "one of them")
    texts = {kind: (text, f"blocks.{kind}") for kind, text in model.blocks.items()} or (
        {ONE: (model.block, "block")} if model.block is not None else {}
    )
    if not texts:
        report.error("NLC0203", spec.at("name", key=True), "the spec has no block", "block: equations from x to x")
    found = {}
    for kind, (text, path) in texts.items():
        try:
            found[kind] = parse_block(text, spec.place(path))
        except SpecError as error:
            report.take(error)
            found[kind] = ()
    return found


def _stack(spec: Spec, kinds: tuple[str, ...], sizes: dict[str, int], bare: bool, report: Reporter) -> tuple[str, ...]:
    """The kind of each layer."""
    model = spec.model
    if bare:
        if len(kinds) > 1:
            report.error("NLC0411", spec.at("blocks", key=True), "a bare program has one block")
        return kinds[:1]
    if not model.stack:
        if len(kinds) > 1:
            report.error(
                "NLC0203", spec.at("blocks", key=True), "several blocks, and no stack", f"stack: [{', '.join(kinds)}]"
            )
        return kinds[:1] * sizes.get("layers", 1)
    try:
        stack = parse_stack(
            model.stack, [spec.at(f"stack.{i}") for i in range(len(model.stack))], kinds, sizes.get("layers")
        )
    except SpecError as error:
        report.take(error)
        return ()
    sizes.setdefault("layers", len(stack))
    return stack


def _lower_block(blocks: Blocks, kind: str, statements: tuple[Assign, ...], prefix: str, bare: bool) -> None:
    spec, report = blocks.spec, blocks.report
    entering = tuple(spec.model.inputs) if bare else ("x", *spec.model.streams)
    scope = Scope(prefix, entering, statements)
    readable = {m.name: Readable(m.id, *_reading(m)) for m in blocks.memories}
    lower = Lowering(kind, scope, blocks.sizes, readable, report)
    for name in entering:
        section = "inputs" if bare else "streams"
        shape = (blocks.sizes["width"],) if name == "x" and not bare else _axes(blocks, section, name)
        at = statements[0].at if statements and name == "x" and not bare else spec.at(f"{section}.{name}", key=True)
        lower.add(Input(id=prefix + name, at=at, block=kind, name=name, shape=shape))
    lower.block(statements)
    blocks.lowered[kind] = lower
    blocks.fields(kind)


def _reading(memory: DeclaredMemory) -> tuple[When, bool]:
    if memory.attention:
        return When.AFTER, True
    if memory.steps or memory.period.count == 0:
        return When.CHUNK, True
    return When(memory.get("read", "chunk")), False


def _axes(blocks: Blocks, section: str, name: str) -> tuple[int, ...]:
    """The shape that `inputs:` or `streams:` gives a value."""
    found = []
    for i, text in enumerate(getattr(blocks.spec.model, section)[name]):
        place = blocks.spec.place(f"{section}.{name}.{i}")
        make = partial(_axis, str(text), place, blocks)
        found.append(guarded(blocks.report, make) or 1)
    return tuple(found)


def _axis(text: str, place: Place, blocks: Blocks) -> int:
    expr = parse_expression(text, place)
    return above_0(size(expr, blocks.sizes, blocks.report), expr, blocks.report, "an axis")


def _values(lower: Lowering, memories: Mapping[str, str]) -> Iterable[Value]:
    """The values of a block with every promised id replaced by the value behind it, every memory's by its own."""
    resolve = lower.scope.resolve
    for node in lower.values.values():
        match node:
            case Op():
                yield replace(node, inputs=tuple(resolve(i) for i in node.inputs))
            case Read():
                yield replace(node, query=resolve(node.query), memory=memories[node.memory])
            case _:
                yield node


def _outputs(spec: Spec, kind: str, lower: Lowering, bare: bool, report: Reporter) -> list[Output]:
    """x of a block and the streams beside it, or the named outputs of a bare program."""
    scope = lower.scope
    if not bare:
        return [
            Output(
                id=f"{scope.prefix}out:{name}",
                at=lower.values[scope.prefix + name].at,
                block=kind,
                name=name,
                value=scope.resolve(scope.current[name]),
            )
            for name in scope.entering
        ]
    found = []
    for i, name in enumerate(spec.model.outputs):
        at = spec.at(f"outputs.{i}")
        if name not in scope.current:
            report.error(
                "NLC0501",
                at,
                f"the output '{name}' is not a value of the block",
                suggest(name, scope.names(), "values"),
            )
            continue
        found.append(Output(id=f"out:{name}", at=at, block=kind, name=name, value=scope.resolve(scope.current[name])))
    if not spec.model.outputs:
        report.error("NLC0203", spec.at("inputs", key=True), "a program with inputs names its outputs", "outputs: [y]")
    return found


def _frame(spec: Spec, sizes: Mapping[str, int]) -> list[Weight]:
    """Embedding, last norm and head.  Their first values make the first loss ln(vocab)."""
    width, vocab, at = sizes["width"], sizes["vocab"], spec.at("sizes", key=True)
    gain = min(1.0, 128 / width) if spec.model.tied else 1.0
    frame = [
        Weight(
            id="frame:embedding",
            at=at,
            block="",
            path="embedding",
            shape=(vocab, width),
            scale=0.02,
            decay=spec.model.tied,
        ),
        Weight(id="frame:rmsnorm", at=at, block="", path="rmsnorm", shape=(width,), init=Init.CONSTANT, scale=gain),
    ]
    if not spec.model.tied:
        scale = 0.02 * min(1.0, 128 / width)
        frame.append(
            Weight(id="frame:linear", at=at, block="", path="linear", shape=(vocab, width), scale=scale, decay=True)
        )
    return frame


def _level(blocks: Blocks, level: DeclaredLevel, memories: list[str]) -> Level:
    rule, rate, objective = outer_level(blocks, level)
    return Level(
        id=f"level:{level.name}", at=level.at, name=level.name, period=level.period, objective=objective, rule=rule,
        rate=rate, memories=tuple(memories), selects=level.selects,
        source=None if memories else guarded(blocks.report, lambda: source(level.fields.get("start"))),
        said=tuple((name, said.at) for name, said in level.fields.items()),
    )  # fmt: skip
