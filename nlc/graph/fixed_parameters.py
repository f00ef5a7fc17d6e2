"""The parameters of an update rule that are part of its program, and so no value of the block.

fixed(rule) -> names of what shapes a program: an operator's option (`norm(a, q)`, `newton_schulz(m, ns_steps)`), a
bound of a slice, the period of a level, and lists of numbers
"""

from __future__ import annotations

from collections.abc import Iterator

from nlc.equations import Call, Expr, Name, Slice, names, walk
from nlc.operators import OPERATORS
from nlc.spec.rule import RuleSpec


def fixed(rule: RuleSpec) -> frozenset[str]:
    """Parameters that must be numbers, lists or words wherever the rule is named."""
    lists = {name for name, default in rule.params.items() if isinstance(default, tuple)}
    periods = {level.every for level in rule.levels if isinstance(level.every, str)}
    trees = [line.value for level in rule.levels for line in level.do]
    trees += [tree for level in rule.levels for m in level.memories for tree in (m.keys, m.values, m.lr)]
    shaping = {name for tree in trees for part in walk(tree) for given in _static(part) for name in names(given)}
    return frozenset(lists | ((periods | shaping) & set(rule.params)))


def _static(part: Expr) -> Iterator[Expr]:
    """What of an expression is taken as a number before the program runs."""
    if isinstance(part, Slice) and not isinstance(part.value, Name):
        yield from (bound for bound in (part.start, part.stop) if bound is not None)
    if isinstance(part, Call) and (operator := OPERATORS.get(part.func)) is not None:
        count = operator.operands[1]
        yield from part.args[count:] if count is not None else ()
        yield from (value for _, value in part.kwargs)
