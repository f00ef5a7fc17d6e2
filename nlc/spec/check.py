"""What a model of the right types may still get wrong, as far as the file tells: names, periods, calls, equations.

check(spec, report)     reports; what needs the graph (shapes, clocks, cycles) is refused by the passes
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from nlc.constants import orderless
from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Call, Compare, Expr, Name, names, parse_block, parse_call, parse_expression, walk
from nlc.operators import CALLABLE
from nlc.source import Position, Scalar
from nlc.spec.architecture import Fields, Level
from nlc.spec.fields import (
    CARRIES,
    FORMS,
    LAYERS,
    OBJECTIVES,
    STARTS,
    bind,
    parse_bytes,
    parse_period,
    parse_select,
    parse_stack,
)
from nlc.spec.sources import source_of
from nlc.spec.unused import unused
from nlc.spec.view import Spec
from nlc.trees import children

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REQUIRED = ("width", "layers", "vocab", "context")
LONGEST = 100  # bytes of a spec's name
TAKEN = frozenset(("self", "state", "learn", "final"))  # what a bare program's layer is called with beside its inputs
_NOWHERE = Position("", 0, 0)
_EXPRESSIONS = ("rate", "retain", "window", "weigh", "out")


def check(spec: Spec, report: Reporter) -> None:
    """Everything about a spec that needs no graph."""
    _names(spec, report)
    _run(spec, report)
    _programs(spec, report)
    _frame(spec, report)
    for level in spec.model.levels:
        _fields(spec, level, f"levels.{level.name}", f"level '{level.name}'", report)
        if isinstance(level.memories, dict):
            for name, memory in level.memories.items():
                path = f"levels.{level.name}.memories.{name}"
                _fields(spec, memory, path, f"memory '{level.name}.{name}'", report, level)
        else:
            _selection(spec, level, report)
    for name in spec.rules.written():
        _try(report, partial(spec.rules.load, name))
    unused(spec, report)


def _try(report: Reporter, parse: Callable[[], Any], subject: str = "") -> Any:
    """Run a parser; what it refuses is reported with the subject in front."""
    try:
        return parse()
    except SpecError as error:
        for d in error.diagnostics:
            report.error(d.code, d.at, f"{subject}: {d.message}" if subject else d.message, d.hint, d.note)
    return None


def _names(spec: Spec, report: Reporter) -> None:
    """Names are words, and used once."""
    model = spec.model
    memories = [
        (f"levels.{lv.name}.memories.{m}", m)
        for lv in model.levels
        if isinstance(lv.memories, dict)
        for m in lv.memories
    ]
    named = [(f"levels.{lv.name}", lv.name) for lv in model.levels] + memories
    for section in ("sizes", "blocks", "inputs", "streams", "forms"):
        named += [(f"{section}.{name}", name) for name in getattr(model, section)]
    for path, name in named:
        if not _NAME.fullmatch(name):
            report.error(
                "NLC0212",
                spec.at(path, key=True),
                f"'{name}' is not a name",
                hint="letters, digits and _, not a digit first",
            )
    seen: dict[str, str] = {}
    for path, name in memories:
        if name in seen:
            where = spec.at(seen[name], key=True)
            report.error(
                "NLC0211",
                spec.at(path, key=True),
                f"a second memory '{name}'",
                hint=f"the first is on line {where.line}",
            )
        seen.setdefault(name, path)
    names = [lv.name for lv in model.levels]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        items = getattr(spec.tree.get("levels"), "items", ())
        again = [i.get("name").at for i in items if i.get("name") and i.get("name").text == name][1:]
        for at in again:
            report.error("NLC0211", at, f"a second level '{name}'", hint="levels are found by name")


def _run(spec: Spec, report: Reporter) -> None:
    """A name that can be a folder's, and sizes that are ones."""
    name = spec.model.name
    if len(name.encode()) > LONGEST:
        message = f"a name of {len(name)} letters, {len(name.encode())} bytes; at most {LONGEST} bytes"
        report.error("NLC0212", spec.at("name"), message, "a folder is called so")
    elif (
        not all(c.isascii() or c.isalnum() for c in name)
        or not name.isprintable()
        or name.strip() != name
        or set(name) & set("/\\:")
        or name.startswith(".")
    ):
        hint = "letters, digits, spaces, _ and -: a folder is called so"
        report.error("NLC0212", spec.at("name"), f"'{name}' cannot be the name of a spec", hint)
    _try(report, lambda: parse_bytes(spec.model.run.memory, spec.place("run.memory")), "run.memory")


def _programs(spec: Spec, report: Reporter) -> None:
    """The equations of blocks and forms."""
    model = spec.model
    if model.block is not None and model.blocks:
        report.error("NLC0411", spec.at("blocks", key=True), "block and blocks are both given", hint="keep one of them")
    if not spec.said("block") and not spec.said("blocks"):
        report.error(
            "NLC0203",
            spec.tree.at,
            "'block' is missing",
            hint="the equations of one block: x enters, the last x leaves",
        )
    if model.block is not None:
        _program(spec, "block", model.block, report)
    for name, text in model.blocks.items():
        _program(spec, f"blocks.{name}", text, report)
    for name, form in model.forms.items():
        _program(spec, f"forms.{name}.do", form.do, report)
    if model.stack or model.blocks:
        kinds = tuple(model.blocks) or ("block",)
        if not model.stack and len(kinds) > 1:
            report.error(
                "NLC0203",
                spec.at("blocks", key=True),
                "'stack' is missing",
                hint=f"for example: stack: [{', '.join(kinds)}]",
            )
        places = [spec.at(f"stack.{i}") for i in range(len(model.stack))]
        layers = model.sizes.get("layers")
        layers = None if layers is None or layers > LAYERS else layers
        stack = _try(report, lambda: parse_stack(model.stack, places, kinds, layers))
        for kind in kinds if stack and model.blocks else ():
            if kind not in stack:
                at = spec.at(f"blocks.{kind}", key=True)
                report.error("NLC0409", at, f"block '{kind}' is not in the stack", "name it there, or take it away")


def _program(spec: Spec, path: str, text: str, report: Reporter) -> None:
    """The equations of one block or form."""
    try:
        parse_block(text, spec.place(path))
    except SpecError as error:
        node = spec.node(path)
        if isinstance(node, Scalar) and node.folded:
            message = f"the lines of '{path.split('.')[-1]}' run together: '>' makes one line of them"
            report.error("NLC0305", spec.at(path, key=True), message, "write | in place of >")
        else:
            report.take(error)


def _frame(spec: Spec, report: Reporter) -> None:
    """Sizes and streams that the frame needs."""
    model = spec.model
    _streams(spec, report)
    if model.sizes.get("layers", 1) > LAYERS:
        message = f"'layers' is {model.sizes['layers']}; at most {LAYERS} is expected"
        report.error("NLC0205", spec.at("sizes.layers"), message)
    if model.inputs:
        if not spec.said("outputs"):
            report.error(
                "NLC0203",
                spec.at("inputs", key=True),
                "'outputs' is missing",
                hint="a program with inputs says what it returns",
            )
        for name in TAKEN.intersection(model.inputs):
            at, hint = spec.at(f"inputs.{name}", key=True), "call the input something else"
            report.error("NLC0504", at, f"an input called '{name}', which is an argument of every layer", hint)
        for i, name in enumerate(model.outputs):
            if name in model.outputs[:i]:
                report.error("NLC0211", spec.at(f"outputs.{i}"), f"the output '{name}' is listed twice")
        return
    if model.outputs:
        report.error(
            "NLC0411", spec.at("outputs", key=True), "outputs without inputs", hint="a model of tokens returns logits"
        )
    at = spec.at("sizes", key=True)
    for size in _REQUIRED:
        if not spec.said(f"sizes.{size}") and not (size == "layers" and model.stack):
            near = suggest(size, [s for s in model.sizes if s not in _REQUIRED])
            report.error("NLC0203", at, f"sizes: '{size}' is missing", hint=near if "did you" in near else "")


def _streams(spec: Spec, report: Reporter) -> None:
    """Streams flow between the blocks of a model of tokens, under names of their own."""
    for name in spec.model.streams:
        at = spec.at(f"streams.{name}", key=True)
        if spec.model.inputs:
            hint = "its one block takes inputs and returns outputs"
            report.error("NLC0411", at, f"a bare program has no stream '{name}' between blocks", hint)
        elif name == "x":
            report.error("NLC0504", at, "a stream called 'x', which flows between all blocks anyway")
        elif name in spec.model.sizes:
            report.error("NLC0504", at, f"'{name}' is a size and a stream", "call one of them something else")


def _selection(spec: Spec, level: Level, report: Reporter) -> None:
    path = f"levels.{level.name}.memories"
    if isinstance(level.memories, str):
        text = level.memories
        _try(report, lambda: parse_select(text, spec.place(path)), f"level '{level.name}'")
    elif isinstance(level.memories, list):
        for i, text in enumerate(level.memories):
            _try(report, lambda i=i, t=text: parse_select(t, spec.place(f"{path}.{i}")), f"level '{level.name}'")  # type: ignore[misc]


def _fields(spec: Spec, fields: Fields, path: str, subject: str, report: Reporter, level: Level | None = None) -> None:
    """The fields of a level, or of a memory of `level`."""
    if fields.every is not None:
        text = fields.every
        _try(report, lambda: parse_period(text, spec.place(f"{path}.every")), subject)
    for name in _EXPRESSIONS:
        if (text := getattr(fields, name)) is not None:
            _try(report, lambda n=name, t=text: parse_expression(t, spec.place(f"{path}.{n}")), subject)  # type: ignore[misc]
    for name in ("keys", "values"):
        given = getattr(fields, name)
        for i, text in enumerate(given if isinstance(given, list) else [given] if given is not None else []):
            where = f"{path}.{name}.{i}" if isinstance(given, list) else f"{path}.{name}"
            _try(report, lambda w=where, t=text: parse_expression(t, spec.place(w)), subject)  # type: ignore[misc]
    if fields.form is not None:
        forms = {**FORMS, **dict.fromkeys(spec.model.forms, ())}
        _call(spec, f"{path}.form", fields.form, forms, "form", "NLC0403", subject, report)
    if fields.start is not None:
        _start(spec, fields, path, subject, report)
    if fields.objective is not None:
        _objective(spec, fields.objective, f"{path}.objective", subject, report)
    if fields.rule is not None:
        _rule(spec, fields, path, subject, report, level)
    if level and level.rule and fields.rate is not None and fields.rule is None and _gives_lr(level.rule):
        report.error(
            "NLC0408",
            spec.at(f"{path}.rate"),
            f"{subject}: rate beside the level's {level.rule}",
            hint="rate is the rule's lr; give one",
        )
    if fields.carry is not None and fields.carry not in CARRIES:
        known = [m for lv in spec.model.levels if isinstance(lv.memories, dict) for m in lv.memories]
        if fields.carry not in known:
            report.error("NLC0204", spec.at(f"{path}.carry"), f"{subject}: 'carry' is the text '{fields.carry}'",
                         hint=suggest(fields.carry, [*CARRIES, *known]))  # fmt: skip


def _call(
    spec: Spec,
    path: str,
    text: str,
    known: dict[str, tuple[str, ...]],
    what: str,
    code: str,
    subject: str,
    report: Reporter,
) -> dict[str, Expr] | None:
    """A call whose name is one of `known`, with the parameters that it takes."""
    call: Call | None = _try(report, lambda: parse_call(text, spec.place(path)), subject)
    if call is None:
        return None
    if call.func not in known:
        report.error(
            code, call.at, f"{subject}: unknown {what} '{call.func}'", hint=suggest(call.func, known, f"{what}s")
        )
        return None
    bound: dict[str, Expr] | None = _try(report, lambda: bind(call, known[call.func], what), subject)
    return bound


def _start(spec: Spec, fields: Fields, path: str, subject: str, report: Reporter) -> None:
    text = fields.start or ""
    if text.lstrip().startswith("from"):
        _try(report, lambda: source_of(text, spec.place(f"{path}.start")), subject)
        return
    bound = _call(spec, f"{path}.start", text, STARTS, "start", "NLC0406", subject, report)
    init = (bound or {}).get("init")
    if init is not None and not (isinstance(init, Name) and init.id in ("normal", "zeros", "identity")):
        report.error("NLC0406", init.at, f"{subject}: a learned start begins at normal, zeros or identity")


def _objective(spec: Spec, text: str, path: str, subject: str, report: Reporter) -> None:
    """A name with parameters, or an expression in M, k and v."""
    tree: Expr | None = _try(report, lambda: parse_expression(text, spec.place(path)), subject)
    if tree is None:
        return
    for at, message in orderless(tree):
        report.error("NLC0505", at, f"{subject}: {message}")
    head = tree.id if isinstance(tree, Name) else tree.func if isinstance(tree, Call) else ""
    called = next((e for e in walk(tree) if isinstance(e, Call) and e.func == "M"), None)
    if head in OBJECTIVES:
        bound = _call(spec, path, text, OBJECTIVES, "objective", "NLC0404", subject, report)
        missing = [p for p in OBJECTIVES[head] if p not in (bound or {})]
        if bound is not None and missing:
            report.error(
                "NLC0405",
                tree.at,
                f"{subject}: objective '{head}' needs '{missing[0]}'",
                hint=f"for example: {head}(1.5)",
            )
    elif called is not None:
        hint = "M is the prediction for k; no call: sum(abs(M - v))"
        report.error("NLC0404", called.at, f"{subject}: 'M' is called in an objective", hint)
    elif "M" in names(tree) or (not isinstance(tree, Name) and not (isinstance(tree, Call) and head not in CALLABLE)):
        if not slopes(tree, "M"):
            what = "the objective has no gradient to M" if "M" in names(tree) else "the objective does not depend on M"
            hint = "M is the memory's prediction for k, for example: sum((M - v)**2)"
            report.error("NLC0404", tree.at, f"{subject}: {what}, so the memory learns nothing", hint)
    else:
        hint = suggest(head, OBJECTIVES, "objectives") + "; or an expression in M, k and v"
        report.error("NLC0404", tree.at, f"{subject}: unknown objective '{head or text}'", hint=hint)


def slopes(tree: Expr, name: str) -> bool:
    """Whether an expression has a gradient to a name, as far as its operators tell."""
    match tree:
        case Name(id):
            return id == name
        case Call(func="stop" | "sign") | Compare():
            return False
        case Call(func="where", args=(_, *ways)):
            return any(slopes(way, name) for way in ways)
    return any(slopes(child, name) for child in children(tree))


def _rule(spec: Spec, fields: Fields, path: str, subject: str, report: Reporter, level: Level | None) -> None:
    call: Call | None = _try(report, lambda: parse_call(fields.rule or "", spec.place(f"{path}.rule")), subject)
    if call is None:
        return
    if call.func not in spec.rules.names() and spec.rules.none(call.func):
        hint = suggest(call.func, spec.rules.names(), "rules")
        report.error("NLC0402", call.at, f"{subject}: unknown update rule '{call.func}'", hint)
        return
    try:
        rule = spec.rules.load(call.func, call.at)
    except SpecError as error:  # of the rule's own file
        report.take(error)
        return
    where = (
        f" of {rule.at}" if call.func in spec.rules.hiding() else ""
    )  # not the shipped rule that one may have in mind
    bound = _try(report, lambda: bind(call, tuple(rule.params), f"rule{where}"), subject)
    if bound and "lr" in bound and fields.rate is not None:
        report.error(
            "NLC0408", bound["lr"].at, f"{subject}: lr beside rate", hint="rate is the rule's lr; give one of them"
        )


def _gives_lr(rule: str) -> bool:
    """Whether a rule's text gives lr (a rule that does not parse is reported elsewhere)."""
    try:
        call = parse_call(rule, _NOWHERE)
    except SpecError:
        return False
    return call.keyword("lr") is not None
