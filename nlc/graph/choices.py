"""The choices of a memory: its form, start, objective and rule, from the calls that a spec writes for them.

Each function takes the text where it stands and returns a node; parameters that depend on the block become values of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from nlc.constants import Sizes
from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Boolean, Call, Expr, Multiple, Name, Text, parse_call, parse_expression, to_text, walk
from nlc.graph.declare import Said
from nlc.graph.fixed_parameters import fixed
from nlc.graph.lower import Lowering
from nlc.graph.nodes import Form, Init, Objective, Param, Rule, RuleLevel, RuleMemory, Source
from nlc.graph.scope import Place
from nlc.graph.specialise import specialise
from nlc.graph.static import Refused, literal, size
from nlc.graph.written_forms import WrittenForms
from nlc.operators import CALLABLE, OPERATORS
from nlc.rule_shapes import SEEN, shape_of, times
from nlc.spec.fields import FORMS, OBJECTIVES, STARTS, bind
from nlc.spec.remembered import Remembered
from nlc.spec.rule import KEY, RuleProgram, RuleSpec
from nlc.spec.rulebook import RuleBook
from nlc.spec.sources import source_of

ACTS = ("gelu", "silu", "relu", "tanh", "sigmoid", "softplus")
NORMS = ("none", "layernorm", "rmsnorm")
INITS = {"normal": (Init.NORMAL, None), "zeros": (Init.CONSTANT, 0.0), "identity": (Init.IDENTITY, 1.0)}

MakePlace = Callable[[str], Place]  # the name of a parameter -> where its value stands


def form(said: Said, sizes: Sizes, own: WrittenForms | None, report: Reporter) -> Form:
    """`mlp(hidden=4x, norm=layernorm, bias=true)`.  `own` are forms the spec writes itself, which come before others
    of their name."""
    call = parse_call(str(said.value), said.place)
    written = {} if own is None else own.spec.model.forms
    if own is not None and call.func in written:
        bind(call, (), "form")
        return own.form(call.func)
    if call.func not in FORMS:
        report.error("NLC0403", call.at, f"unknown form '{call.func}'", suggest(call.func, [*FORMS, *written], "forms"))
        raise Refused
    given = bind(call, FORMS[call.func], "form")
    found: dict[str, Any] = {"residual": call.func in ("mlp", "swiglu")}
    for name, expr in given.items():
        if name == "hidden" and isinstance(expr, Multiple):
            found["times"] = float(expr.factor)
        elif name in ("hidden", "depth", "window", "segment", "persistent"):
            found[name] = size(expr, sizes, report)
            if name != "depth" and found[name] < 1:
                report.error("NLC0405", expr.at, f"'{name}' of '{call.func}' is {found[name]}", "at least 1")
                raise Refused
        elif name in ("residual", "bias"):
            found[name] = _boolean(call.func, name, expr, report)
        else:
            found[name] = _word(call.func, name, expr, ACTS if name == "act" else NORMS, report)
    if call.func in ("mlp", "swiglu") and not {"hidden", "times"} & set(found):
        found["times"] = 4.0
    if call.func not in ("mlp",):
        found["depth"] = 2
    elif found.get("depth", 2) < 1:
        report.error(
            "NLC0405",
            call.at,
            f"an mlp of depth {found['depth']}",
            "depth counts weight matrices: 2 is one hidden layer",
        )
        raise Refused
    return Form(kind=call.func, **found)


def _boolean(func: str, name: str, expr: Expr, report: Reporter) -> bool:
    if isinstance(expr, Boolean):
        return expr.value
    report.error("NLC0405", expr.at, f"'{name}' of '{func}' is '{to_text(expr)}'", "true or false expected")
    raise Refused


def _word(func: str, name: str, expr: Expr, words: tuple[str, ...], report: Reporter) -> str:
    if isinstance(expr, Name | Text):
        word = expr.id if isinstance(expr, Name) else expr.value
        if word in words:
            return word
    report.error(
        "NLC0405", expr.at, f"'{name}' of '{func}' is '{to_text(expr)}'", suggest(to_text(expr), words, "choices")
    )
    raise Refused


def start(said: Said | None, report: Reporter) -> tuple[str, tuple[Init, float | None]]:
    """(learned | zeros | identity | random, initial values).  What begins as a checkpoint's is learned, too."""
    if said is None:
        return "learned", INITS["normal"]
    call = parse_call(str(said.value), said.place)
    if call.func not in STARTS:
        report.error("NLC0406", call.at, f"unknown start '{call.func}'", suggest(call.func, STARTS, "starts"))
        raise Refused
    if call.func == "from":
        return "learned", INITS["normal"]
    given = bind(call, STARTS[call.func], "start")
    word = "normal" if call.func in ("learned", "random") else call.func
    if "init" in given:
        word = _word("learned", "init", given["init"], tuple(INITS), report)
    return call.func, INITS[word]


def source(said: Said | None) -> Source | None:
    """The checkpoint that `start: from(checkpoint:path)` names."""
    found = None if said is None else source_of(str(said.value), said.place)
    return None if found is None else Source(path=found.path, renamed=found.renamed, at=found.at)


def objective(said: Said | None, lower: Lowering, place: MakePlace, report: Reporter) -> Objective:
    """`l2`, `huber(d)`, `loss`, or an expression in M, k and v."""
    if said is None:
        return Objective(kind="l2")
    expr = parse_expression(str(said.value), said.place)
    if any(isinstance(e, Name) and e.id == "M" for e in walk(expr)):
        return Objective(kind="expression", params=_free(expr, lower, place, report), tree=expr)
    call = Call(expr.id, (), (), expr.at) if isinstance(expr, Name) else expr
    if not isinstance(call, Call) or call.func not in OBJECTIVES:
        found = call.func if isinstance(call, Call) else to_text(expr)
        hint = suggest(found, OBJECTIVES, "objectives") + "; or an expression in M, k and v"
        report.error("NLC0404", expr.at, f"unknown objective '{found}'", hint)
        raise Refused
    given = bind(call, OBJECTIVES[call.func], "objective")
    for name in OBJECTIVES[call.func]:
        if name not in given:
            report.error(
                "NLC0405",
                call.at,
                f"objective '{call.func}' needs '{name}'",
                f"for example: {call.func}({'3' if name == 'p' else '1.0'})",
            )
            raise Refused
    params = tuple(_param(name, expr, lower, place) for name, expr in given.items())
    for param in params:
        _bounded(call, param, given[param.name], report)
    return Objective(kind=call.func, params=params)


def _bounded(call: Call, param: Param, expr: Expr, report: Reporter) -> None:
    """The p of lp is at least 1, or its derivative has no bound at 0; the d of huber is above 0."""
    if param.value is None and not (isinstance(param.number, int | float) and not isinstance(param.number, bool)):
        report.error("NLC0405", expr.at, f"'{param.name}' of '{call.func}' is '{to_text(expr)}'", "a number expected")
        raise Refused
    if param.value is None and (param.number < 1 if param.name == "p" else param.number <= 0):
        least = "at least 1" if param.name == "p" else "above 0"
        report.error("NLC0405", expr.at, f"'{param.name}' of '{call.func}' is '{to_text(expr)}'", least)
        raise Refused


def _free(expr: Expr, lower: Lowering, place: MakePlace, report: Reporter) -> tuple[Param, ...]:
    """The names of an objective other than M, k and v: sizes, or values of the block."""
    found: dict[str, Param] = {}
    for part in walk(expr):
        if isinstance(part, Call) and (
            part.func not in CALLABLE
            or part.func in ("dropout", "split")
            or OPERATORS[part.func].suffixes({})
            or OPERATORS[part.func].register
        ):
            hint = "an objective applies operators with one result, no weights, no chance, no memory of earlier tokens"
            report.error("NLC0404", part.at, f"'{part.func}' in an objective", hint)
            raise Refused
        if isinstance(part, Name) and part.id not in ("M", "k", "v") and part.id not in found:
            found[part.id] = _param(part.id, part, lower, place)
    return tuple(found.values())


def _param(name: str, expr: Expr, lower: Lowering, place: MakePlace) -> Param:
    """A parameter: a number, tuple, word or boolean where it is one, else a value of the block."""
    known = None if isinstance(expr, Name) and lower.is_value(expr.id) else literal(expr, lower.sizes)
    if known is not None:
        return Param(name=name, number=known)
    value = lower.value(expr, place(name))
    if value is None:
        raise Refused
    return Param(name=name, value=value)


def rule(
    said: Said | None, lower: Lowering | None, sizes: Sizes, place: MakePlace, report: Reporter, book: RuleBook
) -> tuple[Rule, Expr | None, float]:
    """The rule, the expression given for its lr (if any), and its own default lr.  `book`: the spec's rules.

    Without `lower` the rule updates ordinary weights once in some steps: its parameters are numbers."""
    call = parse_call(str(said.value), said.place) if said else None
    spec = book.load(call.func if call else "gd", call.at if call else None)
    given = bind(call, tuple(spec.params), "rule") if call else {}
    lr = given.pop("lr", None)
    params: dict[str, Param] = {}
    for name, expr in given.items():
        if lower is not None:
            params[name] = _param(name, expr, lower, place)
            hint = ""
            if params[name].value and name in fixed(spec):
                hint = f"no value of the block: the rule's program is made with it; for example {spec.params[name]}"
            elif isinstance(spec.params[name], bool) and isinstance(expr, Call) and expr.func == "learned":
                hint = "true, false or a value of the block: no gradient reaches a choice"
            if hint:
                report.error("NLC0405", expr.at, f"'{name}' of '{spec.name}' is '{to_text(expr)}'", hint)
                raise Refused
            if spec.params[name] == KEY and params[name].value:
                params[name] = replace(params[name], number=KEY)
        else:
            params[name] = Param(name=name, number=_number(call.func if call else "", name, expr, sizes, report))
        _same_kind(params[name], spec.params[name], expr, report)
        _whole(params[name], spec, expr, report)
    try:
        used = rule_of(spec, params)
    except ValueError as error:
        assert call is not None
        report.error("NLC0405", call.at, str(error), "a whole number above 0")
        raise Refused from None
    default = spec.params.get("lr", 1.0)
    assert isinstance(default, (int, float))
    return replace(used, said=tuple(given)), lr, float(default)


def rule_of(spec: RuleSpec, given: Mapping[str, Param] = MappingProxyType({})) -> Rule:
    """A rule with these parameters in place of its own.  Raises ValueError for a period that is no whole number."""
    own = {name: Param(name=name, number=value) for name, value in spec.params.items() if name != "lr"}
    params = {**own, **given}
    keys = {name for name, param in params.items() if param.number == KEY and not param.value}
    params = {name: param for name, param in params.items() if name not in keys}
    numbers = {name: param.number for name, param in params.items()}
    levels = []
    for program in spec.levels:
        period = numbers[program.every] if isinstance(program.every, str) else program.every
        if not isinstance(period, int) or period < 1:
            raise ValueError(f"'{program.every}' of '{spec.name}' counts updates")
        do = specialise(program.do, numbers, keys)
        memories = tuple(_remembered(spec, program, memory) for memory in program.memories)
        levels.append(RuleLevel(period=period, state=program.state, do=do, memories=memories))
    return Rule(name=spec.name, params=tuple(params.values()), levels=tuple(levels))


def _remembered(spec: RuleSpec, program: RuleProgram, memory: Remembered) -> RuleMemory:
    """A memory of a rule, its widths read off what it is trained on."""
    report = Reporter()
    try:
        made = form(Said(memory.text, memory.at, memory.place, True), {}, None, report)
    except Refused:
        raise SpecError(report.found) from None
    shapes = {**SEEN, **{name: () for name, value in spec.params.items() if not isinstance(value, tuple)}}
    shapes |= {name: SEEN["grad"] for level in spec.levels for name in level.state}
    inner, outer = (times(shape_of(tree, shapes)[0]) for tree in (memory.keys, memory.values))
    return RuleMemory(
        name=memory.name, form=made, keys=memory.keys, values=memory.values, objective=memory.objective, lr=memory.lr,
        before=memory.read == "before", start=memory.start, inner=inner, outer=outer,
    )  # fmt: skip


def _number(func: str, name: str, expr: Expr, sizes: Sizes, report: Reporter) -> Any:
    value = literal(expr, sizes)
    if value is None:
        report.error(
            "NLC0405", expr.at, f"'{name}' of '{func}' is '{to_text(expr)}'", "a level that counts steps takes numbers"
        )
        raise Refused
    return value


def _whole(param: Param, spec: RuleSpec, expr: Expr, report: Reporter) -> None:
    """A whole number that shapes the rule's program, such as a count of steps, stays one."""
    default = spec.params[param.name]
    asked = isinstance(default, int) and not isinstance(default, bool) and param.name in fixed(spec)
    if asked and param.value is None and not isinstance(param.number, int):
        report.error("NLC0405", expr.at, f"'{param.name}' is '{to_text(expr)}'", "a whole number is expected")
        raise Refused


def _same_kind(param: Param, default: Any, expr: Expr, report: Reporter) -> None:
    """A parameter written as a tuple, number or boolean stays one."""
    if param.value is not None:
        return
    if default == KEY:
        hint = "a value of the block, as wide as the memory's keys"
        report.error("NLC0405", expr.at, f"'{param.name}' is '{to_text(expr)}', and is a vector", hint)
        raise Refused
    kinds = {
        bool: "true or false",
        tuple: f"a tuple of {len(default) if isinstance(default, tuple) else 0} numbers",
        float: "a number",
    }
    kind = next(k for k in (bool, tuple, float) if isinstance(default, (int, float) if k is float else k))
    fits = isinstance(param.number, (int, float) if kind is float else kind) and (
        kind is bool or not isinstance(param.number, bool)
    )
    if not fits or (isinstance(default, tuple) and len(param.number) != len(default)):
        report.error(
            "NLC0405", expr.at, f"'{param.name}' is '{to_text(expr)}'", f"{kinds[kind]} expected, for example {default}"
        )
        raise Refused


def guarded(report: Reporter, make: Callable[[], Any]) -> Any:
    """The result, or None when it was refused; what another stage raises is collected."""
    try:
        return make()
    except Refused:
        return None
    except SpecError as error:
        report.take(error)
        return None
