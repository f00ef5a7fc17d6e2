"""Is an update rule linear in its gradient?  Read off the rule's program, never off its name.

A value of the program is held as a combination  sum_b c_b b  of the basis vectors
    grad,  erase = weight @ gram,  weight,  and the rule's states,
with polynomials in the scalar parameters as coefficients.  What does not fit is not linear and has no closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nlc import equations as eq
from nlc.graph.nodes import Memory, Rule

Polynomial = dict[tuple[str, ...], float]  # sorted names of a product -> its factor; () is the constant
Combination = dict[str, Polynomial]  # basis vector -> coefficient; "1" is a scalar


@dataclass(frozen=True, slots=True)
class Linear:
    """delta = -lr (grad [+ weight @ gram]), or with momentum  m <- beta m - lr grad,  delta = m."""

    erase: bool
    momentum: str = ""  # the parameter (a name) that multiplies the state, "" without momentum
    state: str = ""  # the state's name
    factor: float = 1.0  # momentum as a number when it is not a parameter


def linear(rule: Rule) -> Linear | None:
    """The rule's linear form, or None when a step is not linear in the gradient."""
    if len(rule.levels) != 1 or rule.levels[0].period != 1:
        return None
    states = rule.levels[0].state
    known: dict[str, Combination] = {s: {s: {(): 1.0}} for s in states}
    for name in ("grad", "weight"):
        known[name] = {name: {(): 1.0}}
    for name in ("lr", *(p.name for p in rule.params)):
        known.setdefault(name, {"1": {(name,): 1.0}})
    try:
        for statement in rule.levels[0].do:
            (target,) = statement.targets
            known[target] = _value(statement.value, known)
    except (_NotLinear, ValueError):
        return None
    delta = known.get("delta")
    if delta is None or "weight" in delta:
        return None
    minus_lr: Polynomial = {("lr",): -1.0}
    if not states:
        erased = delta.get("erase")
        if delta.get("grad") == minus_lr and set(delta) <= {"grad", "erase"} and erased in (None, minus_lr):
            return Linear(erase=erased is not None)
        return None
    if len(states) != 1:
        return None
    (m,) = states
    if delta != known[m] or delta.get("grad") != minus_lr or set(delta) != {"grad", m} or len(delta[m]) != 1:
        return None
    ((names, factor),) = delta[m].items()
    if len(names) == 1 and factor == 1.0:
        return Linear(erase=False, momentum=names[0], state=m)
    return Linear(erase=False, state=m, factor=factor) if not names else None


def descends(rule: Rule) -> bool:
    """Whether a step is delta = -lr grad and nothing else."""
    found = linear(rule)
    return found is not None and not found.erase and not found.state


def relative(memory: Memory) -> bool:
    """Whether a period's gradients are weighed by each token's rate relative to their mean, which is the rule's lr.

    Of a linear rule, in which lr is a factor of the gradient, the sum weighed by the rates themselves says the same."""
    return memory.rate_varies and memory.period.count > 1 and linear(memory.rule) is None


class _NotLinear(Exception):
    pass


def _value(tree: eq.Expr, known: Mapping[str, Combination]) -> Combination:
    match tree:
        case eq.Number(value=value):
            return {"1": {(): float(value)}} if value else {}
        case eq.Name(id=name) if name in known:
            return known[name]
        case eq.Unary(value=inner):
            return _scaled(_value(inner, known), {(): -1.0})
        case eq.Binary(op="@", left=eq.Name(id="weight"), right=eq.Name(id="gram")):
            return {"erase": {(): 1.0}}
        case eq.Binary(op="+", left=left, right=right):
            return _sum(_value(left, known), _value(right, known))
        case eq.Binary(op="-", left=left, right=right):
            return _sum(_value(left, known), _scaled(_value(right, known), {(): -1.0}))
        case eq.Binary(op="*", left=left, right=right):
            a, b = _value(left, known), _value(right, known)
            if set(a) <= {"1"}:
                return _scaled(b, a.get("1", {}))
            if set(b) <= {"1"}:
                return _scaled(a, b.get("1", {}))
    raise _NotLinear


def _sum(a: Combination, b: Combination) -> Combination:
    out = {basis: dict(coefficient) for basis, coefficient in a.items()}
    for basis, coefficient in b.items():
        mine = out.setdefault(basis, {})
        for names, factor in coefficient.items():
            mine[names] = mine.get(names, 0.0) + factor
    return _tidy(out)


def _scaled(a: Combination, by: Polynomial) -> Combination:
    out: Combination = {}
    for basis, coefficient in a.items():
        mine = out.setdefault(basis, {})
        for names, factor in coefficient.items():
            for more, times in by.items():
                product = tuple(sorted((*names, *more)))
                mine[product] = mine.get(product, 0.0) + factor * times
    return _tidy(out)


def _tidy(a: Combination) -> Combination:
    kept = {basis: {n: f for n, f in c.items() if f} for basis, c in a.items()}
    return {basis: c for basis, c in kept.items() if c}
