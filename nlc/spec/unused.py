"""What a spec says and nothing uses: inputs, streams, and fields of writing that no rule reads.

unused(spec, report)     reports, where nothing else is wrong: what does not parse may name them

A form or a rule of one's own may stay unused: it is a choice that is left to another file, or to --set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nlc.diagnostics import Reporter, SpecError
from nlc.equations import Assign, names, parse_call
from nlc.spec.architecture import Level
from nlc.spec.expressions import expressions
from nlc.spec.view import Spec

EVERYTHING = frozenset(("lr", "grad"))  # of a rule that cannot be read


def unused(spec: Spec, report: Reporter) -> None:
    if report.found:
        return
    if spec.model.inputs or spec.model.streams:
        _vectors(spec, report)
    for level in spec.model.levels:
        _serving(spec, level, report)


def _vectors(spec: Spec, report: Reporter) -> None:
    """Inputs and streams that no equation, field or output names."""
    found = [tree for _, tree in expressions(spec)]
    assigned = {target for tree in found if isinstance(tree, Assign) for target in tree.targets}
    trees = [tree.value if isinstance(tree, Assign) else tree for tree in found]
    read = {name for tree in trees for name in names(tree)} | set(spec.model.outputs)
    for name in spec.model.streams:
        at = spec.at(f"streams.{name}", key=True)
        if name not in assigned:
            report.error("NLC0905", at, f"no block assigns the stream '{name}': it stays 0", f"{name} = ...")
        elif name not in read:
            report.error("NLC0905", at, f"nothing reads the stream '{name}'", "read it in an equation, or take it away")
    for name in spec.model.inputs:
        if name not in read:
            hint = "read it in an equation, or take it away"
            report.error("NLC0905", spec.at(f"inputs.{name}", key=True), f"nothing uses the input '{name}'", hint)


@dataclass(frozen=True, slots=True)
class Served:
    """What a rule must read for a field to say anything."""

    field: str
    met: Callable[[frozenset[str]], bool]  # of the names that a rule reads
    why: str
    hint: str
    said: Callable[[str], bool] = bool  # of the field's text


SERVED = (  # a rate that varies weighs a period's gradients, too
    Served(
        "rate",
        lambda reads: "lr" in reads,
        "rate is the rule's lr, and {} never reads lr",
        "take it away, or use lr in the rule",
        said=lambda text: _number(text),
    ),
    *(
        Served(
            field,
            lambda reads: bool(reads & {"grad", "error"}),
            f"{{}} reads neither grad nor error, so '{field}' says nothing",
            "take it away, or use one of them in the rule",
            said=lambda text: text.strip() != "loss",  # which has no keys and values
        )
        for field in ("objective", "grad_at")
    ),
)


def _serving(spec: Spec, level: Level, report: Reporter) -> None:
    """Fields that no rule they are said for takes anything from."""
    path = f"levels.{level.name}"
    memories = level.memories if isinstance(level.memories, dict) else {}
    places = [(f"{path}.memories.{n}", m, {m.rule or level.rule}) for n, m in memories.items()]
    for served in SERVED:
        own = {where for where, m, _ in places if getattr(m, served.field) is not None}
        sharing = {rule for where, _, (rule, *_) in places if where not in own} if memories else {level.rule}
        for where, fields, rules in [(path, level, sharing), *places]:
            text = getattr(fields, served.field)
            if text is None or not served.said(text) or not rules or None in rules:
                continue
            if not any(served.met(_read(spec, rule)) for rule in rules if rule):
                place = spec.place(f"{path}.rule")
                named = ", ".join(sorted(f"'{parse_call(rule, place).func}'" for rule in rules if rule))
                report.error("NLC0411", spec.at(f"{where}.{served.field}"), served.why.format(named), served.hint)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(spec: Spec, rule: str) -> frozenset[str]:
    """The names that a rule reads."""
    try:
        found = spec.rules.load(parse_call(rule, spec.place("")).func)
    except SpecError:  # reported where it is written
        return EVERYTHING
    trees = [line.value for program in found.levels for line in program.do]
    trees += [tree for p in found.levels for m in p.memories for tree in (m.keys, m.values, m.lr)]
    return frozenset(name for tree in trees for name in names(tree))
