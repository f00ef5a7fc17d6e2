"""Does an update rule take no step where its rate is 0?  Read off the rule's program, never off its name.

    stands(rule)    proved: with lr = 0 the program's `delta` is 0 at every update, whatever the gradients are

A value is known to be 0 because of what it is made of.  States begin at 0; they stay there if the program, told so,
gives 0 to each of them again.  What is proved is of real numbers, where the rule gives numbers at all: 0 / x is 0.
"""

from __future__ import annotations

from nlc import equations as eq
from nlc.graph.nodes import Rule

ZERO_AT_ZERO = {"transpose", "sum", "trace", "sqrt", "abs", "sign", "relu", "max", "min"}


def stands(rule: Rule) -> bool:
    """Whether a step at rate 0 leaves the weight as it is.  A rule that sets the weight itself is not proved to."""
    assigned = {name for level in rule.levels for line in level.do for name in line.targets}
    states = {name for level in rule.levels for name in level.state}
    while moving := states & _moving(rule, {"lr", *states}):
        states -= moving
    return "delta" in assigned and "weight" not in assigned and "delta" not in _moving(rule, {"lr", *states})


def _moving(rule: Rule, zeros: set[str]) -> set[str]:
    """The names that some level's program leaves at what may not be 0, where `zeros` are 0 before it."""
    found = set[str]()
    for level in rule.levels:
        known = zeros
        for line in level.do:
            known = known.union(line.targets) if _zero(line.value, known) else known.difference(line.targets)
        found |= {name for line in level.do for name in line.targets} - known
    return found


def _zero(tree: eq.Expr, zeros: set[str]) -> bool:
    match tree:
        case eq.Number(value=value):
            return value == 0
        case eq.Name(id=name):
            return name in zeros
        case eq.Unary(value=inner):
            return _zero(inner, zeros)
        case eq.Binary(op="*" | "@", left=left, right=right):
            return _zero(left, zeros) or _zero(right, zeros)
        case eq.Binary(op="+" | "-", left=left, right=right):
            return _zero(left, zeros) and _zero(right, zeros)
        case eq.Binary(op="/", left=left):
            return _zero(left, zeros)
        case eq.Call(func="where", args=(_, yes, no)):
            return _zero(yes, zeros) and _zero(no, zeros)
        case eq.Call(func=func, args=args) if func in ZERO_AT_ZERO:
            return all(_zero(a, zeros) for a in args)
    return False
