"""Update rules as functions: the program of a rule file, its parameters filled in.

The functions have the signature the runtime's memories call (runtime.ops.memories):
    rule(grad=, weight=, start=, lr=, retain=, gram=, count=, state=) -> (delta, state)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen.equations import TIGHTEST, number, parenthesised, power
from nlc import equations as eq
from nlc.graph.nodes import Rule

SEEN = ("grad", "weight", "start", "lr", "retain", "gram", "count", "state")
METHODS = ("sqrt", "abs", "sign", "exp", "log", "tanh", "sigmoid", "relu")  # x.sqrt() ...
REDUCTIONS = {"sum": "sum(-1)", "mean": "mean(-1)", "min": "amin(-1)", "max": "amax(-1)", "norm": "norm(dim=-1)"}
PLAIN = ("softplus", "silu", "gelu")  # F.softplus(x) ...
STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}


@dataclass(frozen=True, slots=True)
class RuleView:
    name: str  # of the function
    doc: str
    arguments: str
    lines: tuple[str, ...]


def rule_view(rule: Rule, name: str) -> RuleView:
    """A rule with one level of its own, as a function."""
    (level,) = rule.levels
    moving = [p.name for p in rule.params if p.value]  # given by name at each write
    known = {p.name: _literal(p.number) for p in rule.params if not p.value}
    lines = [f"{s} = state[{s!r}]".replace("'", '"') for s in level.state]
    for statement in level.do:
        targets = ", ".join(statement.targets)
        lines.append(f"{targets} = {expression(statement.value, known)}")
    kept = ", ".join(f'"{s}": {s}' for s in level.state)
    if "weight" in {t for s in level.do for t in s.targets}:
        lines.append("delta = weight - retain * given")
        lines.insert(0, "given = weight")
    lines.append(f"return delta, {{{kept}}}")
    body = "\n".join(lines)
    arguments = [a for a in (*SEEN, *moving) if re.search(rf"\b{a}\b", body)]
    given = ", ".join(f"{p.name}={_literal(p.number)}" for p in rule.params if not p.value)
    doc = f"Rule {rule.name}" + (f" with {given}." if given else ".")
    return RuleView(name, doc, ", ".join(["*", *arguments, "**_"]), tuple(lines))


def _literal(value: object) -> str:
    if isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_literal(v) for v in value) + ")"
    return number(float(value)) if isinstance(value, int | float) else repr(value)


def expression(tree: eq.Expr, known: dict[str, str]) -> str:
    return _expression(tree, known)[0]


def _expression(tree: eq.Expr, known: dict[str, str]) -> tuple[str, int]:
    match tree:
        case eq.Number(value=value):
            return number(float(value)), TIGHTEST
        case eq.Name(id="rows"):
            return "grad.shape[-2]", TIGHTEST
        case eq.Name(id="cols"):
            return "grad.shape[-1]", TIGHTEST
        case eq.Name(id=name):
            return known.get(name, name), TIGHTEST
        case eq.Unary(value=value):
            text, precedence = _expression(value, known)
            return "-" + parenthesised(text, precedence, 3), 3
        case eq.Binary(op=op, left=left, right=right):
            strength = STRENGTH[op]
            a, b = _expression(left, known), _expression(right, known)
            if op == "**":
                return power(parenthesised(*a, TIGHTEST), parenthesised(*b, 3)), strength
            return f"{parenthesised(*a, strength)} {op} {parenthesised(*b, strength + 1)}", strength
        case eq.Call(func="newton_schulz", args=(matrix, *rest)):
            more = "".join(f", {expression(r, known)}" for r in rest)
            return f"newton_schulz({expression(matrix, known)}{more})", TIGHTEST
        case eq.Call(func=func, args=(value,)) if func in METHODS or func in REDUCTIONS:
            inner = parenthesised(*_expression(value, known), TIGHTEST)
            return f"{inner}.{REDUCTIONS.get(func, f'{func}()')}", TIGHTEST
        case eq.Call(func=func, args=(value,)) if func in PLAIN:
            return f"F.{func}({expression(value, known)})", TIGHTEST
        case eq.ListOf(items=items):
            return "(" + ", ".join(expression(i, known) for i in items) + ")", TIGHTEST
    raise KeyError(f"a rule's program cannot use {eq.to_text(tree)!r} here")
