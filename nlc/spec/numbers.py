"""Numbers that cannot be meant: arithmetic without a finite real result, parameters of rules and shares out of range.

numbers(spec, report)     reports; a text that does not parse is left to nlc.spec.check
"""

from __future__ import annotations

from nlc.constants import Sizes, constant, impossible
from nlc.diagnostics import Reporter, SpecError
from nlc.equations import Assign, Call, Expr, ListOf, parse_call, parse_expression, to_text
from nlc.spec.architecture import Fields, Level
from nlc.spec.expressions import expressions, parsed, sections
from nlc.spec.fields import bind
from nlc.spec.rule import RuleSpec
from nlc.spec.view import Spec


def numbers(spec: Spec, report: Reporter) -> None:
    """Everything about a spec's numbers that needs no graph."""
    found = list(expressions(spec))
    values = {
        "x",
        *spec.model.inputs,
        *(name for _, tree in found if isinstance(tree, Assign) for name in tree.targets),
    }
    sizes = {name: size for name, size in spec.model.known_sizes().items() if name not in values}
    for subject, tree in found:
        for at, message in impossible(tree.value if isinstance(tree, Assign) else tree, sizes):
            report.error("NLC0308", at, f"{subject}: {message}" if subject else message)
    for subject, path, fields, level in sections(spec):
        _rule(spec, subject, path, fields, level, sizes, report)
        _share(subject, parsed(parse_expression, fields.retain, spec.place(f"{path}.retain")), sizes, report)


def _rule(
    spec: Spec, subject: str, path: str, fields: Fields, level: Level | None, sizes: Sizes, report: Reporter
) -> None:
    """The numbers given to a rule, and to the rate, which is its lr, are in the rule's ranges."""
    own = parsed(parse_call, fields.rule, spec.place(f"{path}.rule"))
    inherited = parsed(parse_call, level.rule, spec.place(f"{path}.rule")) if level is not None else None
    call = own or inherited
    try:
        rule = spec.rules.load(call.func if call else "gd")
        given = bind(own, tuple(rule.params), "rule") if own else {}
    except SpecError:
        return
    for name, expr in given.items():
        _within(rule, name, expr, sizes, f"{subject}: '{name}' of '{rule.name}'", report)
    rate = parsed(parse_expression, fields.rate, spec.place(f"{path}.rate"))
    if rate is not None:
        _within(rule, "lr", rate, sizes, f"{subject}: rate", report)


def _within(rule: RuleSpec, name: str, expr: Expr, sizes: Sizes, what: str, report: Reporter) -> None:
    if name not in rule.ranges:
        return
    for part in expr.items if isinstance(expr, ListOf) else (expr,):
        number = constant(_first(part), sizes)
        if number is not None and not rule.ranges[name].holds(number):
            report.error("NLC0405", part.at, f"{what} is {to_text(part)}", f"{rule.ranges[name]} is expected")


def _first(expr: Expr) -> Expr:
    """What a learned number begins as; any other is itself."""
    match expr:
        case Call("learned", (first,), ()):
            return first
    return expr


def _share(subject: str, retain: Expr | None, sizes: Sizes, report: Reporter) -> None:
    """A retention that is a number, or learned from a number on, is a share: from 0 to 1."""
    if retain is None:
        return
    first = _first(retain)
    begins = "" if first is retain else "to begin with "
    number = constant(first, sizes)
    if number is not None and not 0 <= number <= 1:
        message = f"{subject}: retain is {begins}{number:g}, and it is the share of the state that is kept"
        report.error("NLC0505", first.at, message, "a number from 0 to 1")
