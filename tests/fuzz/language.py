"""What the strategies know of the language, beside what its own tables say: how to draw each parameter.

Rules, forms, objectives, starts and operators are drawn from the tables of nlc itself, so a new one is drawn without a
change here as long as its parameters are of a kind that is listed.  tests/fuzz/test_completeness.py fails otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_args

from nlc.equations import names as names_in
from nlc.graph.choices import ACTS, INITS, NORMS
from nlc.spec.architecture import Fields
from nlc.spec.rule import RuleSpec, load_rule, rules
from tests.fuzz.choices import Choose

# How a parameter of a form, objective or start is drawn; None: it is left out.
PARAMETERS: Mapping[tuple[str, str], Callable[[Choose], str | None]] = {
    ("form", "hidden"): lambda c: c.among(["1x", "2x", "3"]),
    ("form", "depth"): lambda c: c.among([None, "2", "3", "1"]),
    ("form", "act"): lambda c: c.among([None, *ACTS]),
    ("form", "residual"): lambda c: c.among([None, "true", "false"]),
    ("form", "norm"): lambda c: c.among([None, *NORMS]),
    ("form", "bias"): lambda c: c.among([None, "true", "false"]),
    ("form", "window"): lambda c: c.among([None, None, "1", "3", "6"]),
    ("form", "segment"): lambda c: c.among([None, None, "2", "4"]),
    ("form", "persistent"): lambda c: c.among([None, None, "1", "3"]),
    ("objective", "p"): lambda c: c.among(["2", "3", "2.5", "1.5"]),
    ("objective", "d"): lambda c: c.among(["0.5", "1.0", "0.1"]),
    ("start", "init"): lambda c: c.among([None, *INITS]),
}  # fmt: skip

# Objectives that are expressions; {g} stands for a value of the block.
EXPRESSIONS = (
    "0.5 * sum((M - v) ** 2)", "sum(tanh(M - v) ** 2)", "-sum(M * v)", "{g} * sum((M - v) ** 2) + 0.1 * sum(M * M)",
    "sum(softplus(M - v)) - 0.5 * sum(M)", "norm(M - v + 2, p=2)", "softplus(sum(M * v)) + 0.1 * sum(M ** 2) * mean(k)",
    "sum((M - v) ** 2 * {g})", "sum(where(v > 0, 2, 1) * (M - v) ** 2)",
)  # fmt: skip

# Forms of one's own: their definition, and whether they are as wide as what they are read with.
WRITTEN: Mapping[str, tuple[dict[str, Any], bool]] = {
    "ttt": ({"state": {"W": ["out", "in"], "b": ["out"]}, "do": "y = x + layernorm(W @ x + b)"}, True),
    "gated": ({"state": {"A": ["out", "in"], "B": ["out", "in"]}, "do": "y = silu(A @ x) * (B @ x)"}, False),
    "scaled": ({"state": {"s": ["in"], "W": ["out", "in"]}, "do": "y = W @ (s * x)"}, False),
    "two": ({"state": {"A": [3, "in"], "B": ["out", 3]}, "do": "a = tanh(A @ x)\ny = B @ a\n"}, False),
}  # fmt: skip

# Rules of one's own, under `rules:`.
INVENTED: Mapping[str, dict[str, Any]] = {
    "signed": {"params": {"lr": 0.01, "beta": 0.5}, "ranges": {"lr": "[0, inf)", "beta": "[0, 1)"},
               "levels": [{"every": "1 update", "state": {"m": "zeros"},
                           "do": "m = beta * m + (1 - beta) * grad\ndelta = -lr * tanh(10 * m)\n"}]},
    "slowly": {"params": {"lr": 0.01}, "ranges": {"lr": "[0, inf)"},
               "levels": [{"every": "1 update", "do": "delta = -lr * grad + 0.1 * o\n"},
                          {"every": "2 updates", "state": {"o": "zeros"}, "do": "o = 0.5 * o - lr * grad\n"}]},
}  # fmt: skip


def choices(field: str) -> tuple[str, ...]:
    """The words that a field of a memory takes."""
    annotation = Fields.model_fields[field].annotation
    return tuple(word for part in get_args(annotation) for word in get_args(part) if isinstance(word, str))


def call(choose: Choose, what: str, name: str, parameters: tuple[str, ...]) -> str:
    """`mlp(hidden=1x, norm=layernorm)`: a form, objective or start with parameters drawn."""
    drawn = {p: PARAMETERS[what, p](choose) for p in parameters}
    given = [value if what != "form" else f"{p}={value}" for p, value in drawn.items() if value is not None]
    return f"{name}({', '.join(given)})" if given else name


OF_A_PAIR = {"k", "v", "x", "error"}  # what a rule sees only where each pair is written alone


@cache
def outer_rules(inputs: bool = False) -> tuple[str, ...]:
    """Rules that a level which counts steps may have.  `inputs`: also those that look at the inputs of layers, which a
    level of ordinary weights has where no layer stands inside a walk."""
    return tuple(
        name for name in rules() if not read_by(load_rule(name)) & (OF_A_PAIR | (set() if inputs else {"gram"}))
    )


@cache
def inner_rules(pair: bool) -> tuple[str, ...]:
    """Rules of memories that tokens write.  `pair`: each pair is written alone, to a matrix."""
    return tuple(name for name in rules() if pair or not read_by(load_rule(name)) & OF_A_PAIR)


def read_by(rule: RuleSpec) -> set[str]:
    """The names a rule's program reads of what it is given."""
    lines = [line for program in rule.levels for line in program.do]
    own = {name for program in rule.levels for name in program.state} | {t for line in lines for t in line.targets}
    return {name for line in lines for name in names_in(line.value)} - own


def parameter(choose: Choose, rule: RuleSpec, name: str) -> str:
    """A number (a list, a truth value) for a parameter of a rule, near what it is without being given."""
    default = rule.params[name]
    return _shown(_near(choose, rule, name, default))


def _near(choose: Choose, rule: RuleSpec, name: str, default: Any) -> Any:
    match default:
        case bool():
            return choose.chance(50)
        case tuple():
            return tuple(_near(choose, rule, name, n) for n in default)
        case int():
            return choose.whole(1, max(2, min(default, 4)))
    found = choose.number(0.5 * default, 1.0 * default)
    interval = rule.ranges.get(name)
    return found if interval is None or interval.holds(found) else default


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"({', '.join(map(_shown, value))})"
    return str(value)
