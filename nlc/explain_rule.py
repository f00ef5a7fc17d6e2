"""What an update rule is and how it will be computed: a RuleSpec -> RuleFacts -> the text of `nlc explain RULE`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlc.equations import to_text
from nlc.graph.choices import rule_of
from nlc.graph.linearity import linear
from nlc.graph.nodes import Rule
from nlc.graph.specialise import reads
from nlc.rule_shapes import entrywise
from nlc.spec import RuleSpec


@dataclass(frozen=True, slots=True)
class RuleLevelFacts:
    every: str
    state: tuple[str, ...]
    do: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleFacts:
    name: str
    doc: str
    file: str
    params: tuple[tuple[str, Any, str], ...]  # name, without being said, range in words
    sees: tuple[str, ...]
    levels: tuple[RuleLevelFacts, ...]
    kept: int  # numbers kept between updates, for each of a weight
    inside: str  # how it is computed inside a sequence
    outside: str  # and at a level that counts steps


def explain_rule(spec: RuleSpec) -> RuleFacts:
    """Gather the facts of a rule with the parameters it has without being given any."""
    rule = rule_of(spec)
    waiting = sum(level.sums for level in rule.levels)
    return RuleFacts(
        name=spec.name,
        doc=" ".join(spec.doc.split()),
        file=spec.at.file,
        params=tuple((n, value, str(spec.ranges.get(n, ""))) for n, value in spec.params.items()),
        sees=tuple(sorted(reads(rule) - {p.name for p in rule.params})),
        levels=tuple(
            RuleLevelFacts(_updates(level.period), level.state, tuple(to_text(line) for line in level.do))
            for level in rule.levels
        ),
        kept=sum(len(level.state) for level in rule.levels) + waiting,
        inside=_inside(rule),
        outside=_outside(rule),
    )


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"


def _updates(period: int) -> str:
    return "1 update" if period == 1 else f"{period} updates"


def _inside(rule: Rule) -> str:
    shape = linear(rule)
    if shape is None:
        return "token by token: a step is not linear in the gradient"
    if shape.state:
        return "in closed form where momentum is not below 0: a recurrence of products of retention and momentum"
    erase = ", which also erases" if shape.erase else ""
    return f"in closed form: a step is linear in the gradient{erase}"


def _outside(rule: Rule) -> str:
    if asked := sorted(reads(rule) & {"k", "v", "x", "error"}):
        return f"not at all: it reads {', '.join(asked)}, of one pair"
    if entrywise(rule.levels):
        return "all weights of a level as runs of entries: every entry is treated alike"
    return "matrices of one shape together, as stacks"


def report_rule(found: RuleFacts) -> str:
    """The facts as text."""
    lines = [found.name, f"{found.file}   {found.doc}".rstrip(), "", "Parameters", ""]
    width = max((len(name) for name, _, _ in found.params), default=0)
    shown = {name: _shown(value) for name, value, _ in found.params}
    second = max((len(text) for text in shown.values()), default=0)
    lines += [f"  {n:{width}}  {shown[n]:{second}}  {words}".rstrip() for n, _, words in found.params]
    for i, level in enumerate(found.levels, 1):
        state = f", state {', '.join(level.state)}" if level.state else ""
        lines += ["", f"Level {i}: every {level.every}{state}", "", *(f"  {line}" for line in level.do)]
    lines += ["", f"It sees {', '.join(found.sees)}, and keeps {_numbers(found.kept)} for each of a weight.", ""]
    return "\n".join([*lines, f"  inside a sequence   {found.inside}", f"  outside             {found.outside}"])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
