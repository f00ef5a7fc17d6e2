"""What a spec says and nothing uses: inputs, streams, and a rate that no rule reads.

unused(spec, report)     reports, where nothing else is wrong: what does not parse may name them

A form or a rule of one's own may stay unused: it is a choice that is left to another file, or to --set.
"""

from __future__ import annotations

from nlc.diagnostics import Reporter, SpecError
from nlc.equations import Assign, names, parse_call
from nlc.spec.architecture import Level
from nlc.spec.expressions import expressions
from nlc.spec.view import Spec


def unused(spec: Spec, report: Reporter) -> None:
    if report.found:
        return
    if spec.model.inputs or spec.model.streams:
        _vectors(spec, report)
    for level in spec.model.levels:
        _rates(spec, level, report)


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


def _rates(spec: Spec, level: Level, report: Reporter) -> None:
    """A number that is the lr of rules none of which reads lr.  A rate that varies weighs a period's gradients, too."""
    path = f"levels.{level.name}"
    memories = level.memories if isinstance(level.memories, dict) else {}
    places = [(f"{path}.memories.{n}", m, {m.rule or level.rule}) for n, m in memories.items()]
    sharing = {rule for _, m, (rule, *_) in places if m.rate is None} if memories else {level.rule}
    for where, fields, rules in [(path, level, sharing), *places]:
        if fields.rate is None or not _number(fields.rate) or not rules or None in rules:
            continue
        if not any(_reads_lr(spec, rule) for rule in rules if rule):
            named = ", ".join(
                sorted(f"'{parse_call(rule, spec.place(f'{path}.rule')).func}'" for rule in rules if rule)
            )
            hint = "take it away, or use lr in the rule"
            report.error(
                "NLC0411", spec.at(f"{where}.rate"), f"rate is the rule's lr, and {named} never reads lr", hint
            )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _reads_lr(spec: Spec, rule: str) -> bool:
    try:
        found = spec.rules.load(parse_call(rule, spec.place("")).func)
    except SpecError:  # reported where it is written
        return True
    trees = [line.value for program in found.levels for line in program.do]
    trees += [tree for p in found.levels for m in p.memories for tree in (m.keys, m.values, m.lr)]
    return any("lr" in names(tree) for tree in trees)
