"""Update rules and objectives as programs: equations evaluated over tensors, one state part at a time.

A rule sees grad, weight, start, lr, retain, gram, k, v, count, rows, cols and its parameters; it sets `delta`, and the
memory becomes  retain * weight [+ (1 - retain) * start] + delta;  or it sets `weight` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from nlc import equations as eq
from nlc.diagnostics import CompilerBug
from nlc.graph.nodes import Objective, Rule, RuleMemory
from nlc.graph.remembered import state_names
from nlc.interpret.operators import DTYPE, FUNCTIONS, aligned, call
from nlc.interpret.remembered import applied, begun, written
from nlc.operators import BY_SYMBOL

Parts = Mapping[str, Tensor]
Names = Mapping[str, Any]  # a name's tensor, number, tuple, word or truth value


def evaluate(tree: Any, names: Names, own: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})) -> Any:
    """The value of an expression whose names are given; every operator without weights or history is allowed.

    `own`: operators that mean something else here."""
    match tree:
        case eq.Name(id=name):
            if name not in names:
                raise CompilerBug(f"the name {name!r} has no value in this program")
            return names[name]
        case eq.Number(value=value) | eq.Text(value=value) | eq.Boolean(value=value):
            return value
        case eq.ListOf(items=items):
            return [evaluate(item, names, own) for item in items]
        case eq.Unary(value=value):
            return -evaluate(value, names, own)
        case eq.Binary(op=op, left=left, right=right) | eq.Compare(op=op, left=left, right=right):
            return FUNCTIONS[BY_SYMBOL[op]](evaluate(left, names, own), evaluate(right, names, own))
        case eq.Slice(value=value, start=start, stop=stop, single=single):
            low, high = (None if b is None else int(evaluate(b, names, own)) for b in (start, stop))
            x = evaluate(value, names, own)
            index = low if single else slice(low, high)
            return x[..., index] if isinstance(x, Tensor) else x[index]
        case eq.Call(func=func, args=args, kwargs=kwargs):
            values = [evaluate(arg, names, own) for arg in args]
            if func in own:
                return own[func](*values)
            return call(func, values, {name: evaluate(v, names, own) for name, v in kwargs})
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


def gathered(index: int) -> str:
    """Where the level at this place of a rule keeps its sum of gradients between its updates."""
    return f"level{index + 1}_grad"


@dataclass(frozen=True)
class Carried:
    """What a rule keeps between updates: its states, by name and part, the sums of its slower levels, and its count."""

    states: Mapping[str, Parts]
    count: int = 0
    vectors: frozenset[str] = frozenset()

    @classmethod
    def zero(cls, rule: Rule, start: Parts, vectors: Collection[str] = ()) -> Carried:
        """Everything starts at zero, but for the rule's own memories.  `vectors`: the parts it meets as one column."""
        names = [name for level in rule.levels for name in level.state]
        names += [gathered(i) for i, level in enumerate(rule.levels) if level.sums]
        states = {name: {part: torch.zeros_like(x) for part, x in start.items()} for name in names}
        for memory in memories(rule):
            for part, x in start.items():
                for name, first in begun(memory, x.unsqueeze(-1) if part in vectors else x).items():
                    states.setdefault(name, {})[part] = first
        return cls(states, vectors=frozenset(vectors))

    def counted(self) -> Carried:
        return replace(self, count=self.count + 1)

    def of(self, part: str) -> dict[str, Tensor]:
        return {name: parts[part] for name, parts in self.states.items()}

    def with_part(self, part: str, states: Names) -> Carried:
        """The same with the states of one part replaced."""
        new = {name: {**parts, part: states[name]} for name, parts in self.states.items()}
        return replace(self, states=new)


def run_rule(rule: Rule, part: str, base: Tensor, seen: Names, carried: Carried) -> tuple[Tensor, Carried]:
    """One update of one part: the rule's levels in order, each when so many updates have been counted.

    `base` is the part after retention, [..., rows, cols], or [..., n] for a bias or vector, which the rule meets as one
    column; `seen` holds grad, weight and start of the same shape, and gram, lr, retain, k, v and parameters.
    The leading axes are heads: each has its own matrix.
    """
    vector, own = part in carried.vectors, {name for memory in memories(rule) for name in state_names(memory)}
    like = {"base": base, **{n: seen[n] for n in ("grad", "weight", "start") if n in seen}} | carried.of(part)
    matrices = {name: x.unsqueeze(-1) if vector and name not in own else x for name, x in like.items()}
    states = {name: matrices.pop(name) for name in carried.states}
    after = _update(rule, {**seen, **matrices}, states, carried.count)
    after = {name: x.squeeze(-1) if vector and name not in own else x for name, x in after.items()}
    return after.pop("weight"), carried.with_part(part, after)


def memories(rule: Rule) -> list[RuleMemory]:
    return [memory for level in rule.levels for memory in level.memories]


def root(x: Any) -> Tensor:
    """Square root, its derivative at 0 taken as 0: of what no gradient has reached yet."""
    x = x if isinstance(x, Tensor) else torch.tensor(float(x), dtype=DTYPE)
    return torch.where(x == 0, x, torch.where(x == 0, 1.0, x).sqrt())


def made(heads: tuple[int, ...]) -> dict[str, Callable[[Any], Tensor]]:
    """What a rule's operators mean: matrices that are made, not given, are the same for all heads."""
    return {
        "sqrt": root,
        "eye": lambda n: torch.eye(int(n), dtype=DTYPE).expand(*heads, int(n), int(n)),
        "index": lambda n: torch.arange(int(n), dtype=DTYPE).expand(*heads, int(n)),
    }


def _update(rule: Rule, seen: Names, states: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The states and the weight after one update of one matrix."""
    base: Tensor = seen["base"]
    delta, weight = torch.zeros_like(base), None
    states, operators = dict(states), made(tuple(base.shape[:-2]))
    for i, level in enumerate(rule.levels):
        names: dict[str, Any] = {**seen, **states, "count": float(count), "delta": delta}
        names |= {"rows": base.shape[-2], "cols": base.shape[-1]}
        names |= {} if weight is None else {"weight": weight}
        if level.sums:
            states[gathered(i)] = names["grad"] = states[gathered(i)] + seen["grad"]
        if count % level.period:
            continue
        if level.sums:
            states[gathered(i)] = torch.zeros_like(base)
        for memory in level.memories:
            parts = {name: states[name] for name in state_names(memory)}
            keys, values, lr = (evaluate(t, names, operators) for t in (memory.keys, memory.values, memory.lr))
            new = written(memory, parts, keys, values, lr, base, loss_of)
            seeing = parts if memory.before else new
            operators[memory.name] = partial(applied, memory, seeing, base)
            states |= new
        for line in level.do:
            value = evaluate(line.value, names, operators)
            names |= dict(zip(line.targets, value if len(line.targets) > 1 else (value,), strict=True))
            weight = filled(names["weight"], base) if "weight" in line.targets else weight
        states |= {name: filled(names[name], base) for name in level.state}
        delta = filled(names["delta"], base)
    return states | {"weight": base + delta if weight is None else weight}


def filled(value: Any, like: Tensor) -> Tensor:
    """A matrix; a vector or number fills one, aligned from the left."""
    value = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=like.dtype)
    full: Tensor = aligned(value, like)[0].expand_as(like)
    return full
