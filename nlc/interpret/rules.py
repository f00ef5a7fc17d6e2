"""Update rules and objectives as programs: equations evaluated over tensors, one state part at a time.

A rule sees grad, weight, start, lr, retain, gram, count, rows, cols and its parameters; it sets `delta`, and the memory
becomes  retain * weight [+ (1 - retain) * start] + delta;  or it sets `weight` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nlc import equations as eq
from nlc.diagnostics import CompilerBug
from nlc.graph.nodes import Objective, Rule
from nlc.interpret.operators import FUNCTIONS, aligned, call
from nlc.operators import BY_SYMBOL

Parts = Mapping[str, Tensor]
Names = Mapping[str, Any]  # a name's tensor, number, tuple, word or truth value


def evaluate(tree: Any, names: Names) -> Any:
    """The value of an expression whose names are given; every operator without weights or history is allowed."""
    match tree:
        case eq.Name(id=name):
            if name not in names:
                raise CompilerBug(f"the name {name!r} has no value in this program")
            return names[name]
        case eq.Number(value=value) | eq.Text(value=value) | eq.Boolean(value=value):
            return value
        case eq.ListOf(items=items):
            return [evaluate(item, names) for item in items]
        case eq.Unary(value=value):
            return -evaluate(value, names)
        case eq.Binary(op=op, left=left, right=right) | eq.Compare(op=op, left=left, right=right):
            return FUNCTIONS[BY_SYMBOL[op]](evaluate(left, names), evaluate(right, names))
        case eq.Slice(value=value, start=start, stop=stop, single=single):
            low, high = (None if b is None else int(evaluate(b, names)) for b in (start, stop))
            x = evaluate(value, names)
            index = low if single else slice(low, high)
            return x[..., index] if isinstance(x, Tensor) else x[index]
        case eq.Call(func=func, args=args, kwargs=kwargs):
            return call(func, [evaluate(arg, names) for arg in args], {name: evaluate(v, names) for name, v in kwargs})
    raise CompilerBug(f"no meaning for the expression {tree!r}")


def loss_of(objective: Objective, prediction: Tensor, key: Tensor, value: Tensor, params: Names) -> Tensor:
    """The inner loss of one pair, summed over heads, which are independent (reference section 1).

    dot -<p, v> | l2 1/2 |e|^2 | lp 1/p sum |e|^p | huber elementwise | an expression in M = M(k), k and v;  e = p - v.
    """
    error = prediction - value
    match objective.kind:
        case "dot":
            return -(prediction * value).sum()
        case "l2":
            return 0.5 * error.square().sum()
        case "lp":
            powers: Tensor = _per_entry(error, params["p"], lambda e, p: e.abs() ** p / p)
            return powers.sum()
        case "huber":
            return _per_entry(error, params["d"], huber).sum()
        case "expression":
            loss: Tensor = evaluate(objective.tree, {**params, "M": prediction, "k": key, "v": value})
            return loss.sum()
    raise CompilerBug(f"objective {objective.kind!r} has no loss of a pair")


def huber(error: Tensor, d: Tensor | float) -> Tensor:
    size = error.abs()
    return torch.where(size <= d, 0.5 * size.square(), d * (size - 0.5 * d))


def _per_entry(error: Tensor, param: Any, loss: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """A loss of every entry, whose parameter may differ by head."""
    return loss(*aligned(error, param)) if isinstance(param, Tensor) else loss(error, param)


@cache
def mentions(rule: Rule, name: str) -> bool:
    """Whether the rule's program reads a name."""
    return any(name in eq.names(line.value) for level in rule.levels for line in level.do)


def gathered(index: int, what: str) -> str:
    """Where the level at this place of a rule keeps its sum of `grad` or `gram` between its updates."""
    return f"level{index + 1}_{what}"


@dataclass(frozen=True)
class Carried:
    """What a rule keeps between updates: its states, by name and part, the sums of its slower levels, and its count."""

    states: Mapping[str, Parts]
    count: int = 0

    @classmethod
    def zero(cls, rule: Rule, start: Parts, gram: Parts) -> Carried:
        """Everything starts at zero."""
        like: dict[str, Parts] = {name: start for level in rule.levels for name in level.state}
        for i, level in enumerate(rule.levels):
            if level.period > 1:
                like[gathered(i, "grad")] = start
                like |= {gathered(i, "gram"): gram} if mentions(rule, "gram") else {}
        return cls({name: {part: torch.zeros_like(x) for part, x in parts.items()} for name, parts in like.items()})

    def counted(self) -> Carried:
        return replace(self, count=self.count + 1)

    def of(self, part: str) -> dict[str, Tensor]:
        return {name: parts[part] for name, parts in self.states.items() if part in parts}

    def with_part(self, part: str, states: Names) -> Carried:
        """The same with the states of one part replaced."""
        new = {name: {**parts, part: states[name]} if part in parts else parts for name, parts in self.states.items()}
        return replace(self, states=new)


def run_rule(rule: Rule, part: str, base: Tensor, seen: Names, carried: Carried) -> tuple[Tensor, Carried]:
    """One update of one part: the rule's levels in order, each when so many updates have been counted.

    `base` is the state after retention; `seen` holds grad, gram, weight, start, lr, retain, rows, cols and parameters.
    """
    states, delta, weight = carried.of(part), torch.zeros_like(base), None
    for i, level in enumerate(rule.levels):
        names: dict[str, Any] = {**seen, "count": float(carried.count), "delta": delta}
        if level.period > 1:
            sums = [what for what in ("grad", "gram") if gathered(i, what) in states]
            for what in sums:
                states[gathered(i, what)] = names[what] = states[gathered(i, what)] + seen[what]
            if carried.count % level.period:
                continue
            for what in sums:
                states[gathered(i, what)] = torch.zeros_like(names[what])
        own = {name for name in carried.states if not name.startswith("level")}
        names |= {name: states[name] for name in own}
        for line in level.do:
            value = evaluate(line.value, names)
            names |= dict(zip(line.targets, value if len(line.targets) > 1 else (value,), strict=True))
            weight = names["weight"] if "weight" in line.targets else weight
        states |= {name: names[name] for name in level.state}
        delta = names["delta"]
    return base + delta if weight is None else weight, carried.with_part(part, states)
