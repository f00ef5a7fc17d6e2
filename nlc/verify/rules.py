"""Does an update rule do the same everywhere?  As memories inside a sequence, and at a level that counts steps.

    report = verify_rule(load_rule("adamw"))

Inside: small programs whose memories it writes, every token and once in some tokens, judged as any spec is.  Outside:
the rule's meaning, weight by weight, against the generated function on a level's stacks of weights.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from codegen.rules import RuleView, rule_view, safe
from nlc.compile import compile
from nlc.graph.choices import rule_of
from nlc.graph.nodes import Rule
from nlc.graph.specialise import keeps_no_share, reads
from nlc.interpret.rules import Carried, mentions, run_rule
from nlc.spec import RuleSpec, loads
from nlc.spec.resolve import to_yaml
from nlc.target import Target
from nlc.verify.judge import FLOAT32, FLOAT64, Outcome, Report, judge
from runtime.level import Level, Weights
from runtime.ops import Remembered

UPDATES = 23  # more than twice the longest period of a shipped rule
RATE = 0.01
SHAPES = {"a": (4, 3), "b": (4, 3), "tall": (6, 2), "wide": (2, 5), "heads": (2, 3, 4), "bias": (4,), "number": ()}
OF_ONE_PAIR = {"k", "v", "x", "error"}
VARYING, FIXED = f"{RATE} * e", str(RATE)
Cell = tuple[str, str, int, str]  # form, every, chunk, rate
CELLS: tuple[Cell, ...] = (
    ("matrix", "1 token", 1, VARYING),
    ("mlp(hidden=5, bias=true)", "1 token", 8, VARYING),
    ("vector", "3 tokens", 3, FIXED),
    ("mlp(hidden=5, bias=true)", "3 tokens", 6, VARYING),
)


def verify_rule(
    spec: RuleSpec, seed: int = 0, device: str = "cpu", cells: Sequence[Cell] = CELLS, full: bool = True
) -> Report:
    """Verify a rule with the parameters it has without being given any; `full`: every case of the first cell."""
    began = perf_counter()
    report = Report(spec.name)
    rule = rule_of(spec)
    for form, every, chunk, rate in cells:
        asked = reads(rule) & OF_ONE_PAIR
        if (asked and every != "1 token") or (asked & {"k", "v"} and form != "matrix"):
            continue
        program = compile(
            loads(cell(spec, form, every, chunk, rate), f"{spec.name} on {form}"), target=Target.of(device)
        )
        judge(program, f"{form}, {every}", report, seed, full and chunk == 1, device)
    if not reads(rule) & OF_ONE_PAIR:
        report.outcomes += list(outside(rule, seed, device))
    report.seconds = perf_counter() - began
    return report


def cell(spec: RuleSpec, form: str, every: str, chunk: int, rate: str) -> str:
    """A bare program of one memory, two heads, its retention, and its rate where that varies, given for each token."""
    same = form == "vector"
    rule = rule_of(spec)
    kept = not keeps_no_share(rule)
    numbers = "e" * (rate == VARYING) + "a" * kept
    data: dict[str, Any] = {
        "nlc": 1,
        "name": spec.name,
        "sizes": {"heads": 2, "head": 4, "wide": 4 if same else 5},
        "inputs": {n: ["heads", "wide" if n == "v" else "head"] for n in "kvq"} | {n: ["heads"] for n in numbers},
        "rules": {spec.name: spec.written()},
        "levels": [
            {"name": "m", "every": every, "chunk": chunk, "rule": spec.name, "rate": rate, "retain": "a",
             "retain_to": "start", "read": "chunk" if chunk > 1 else "before",
             "memories": {"memory": {"form": form, "keys": "k", "values": "v"}}}
        ],
        "block": "y = memory(q)\n",
        "outputs": ["y"],
    }  # fmt: skip
    if rate == FIXED and "lr" not in reads(rule):  # of which a number would say nothing
        del data["levels"][0]["rate"]
    if not kept:
        del data["levels"][0]["retain"], data["levels"][0]["retain_to"]
    return to_yaml(data)


# ---- outside --------------------------------------------------------------------------------------------------------


def outside(rule: Rule, seed: int, device: str) -> Iterator[Outcome]:
    """The generated function on a level's stacks, in float64 and float32, against the interpreter's."""
    view = rule_view(rule, rule.name, inside=False)
    step, own = function(view)
    draw = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in SHAPES.items()}
    taught = [Taught(draw) for _ in range(UPDATES)]
    weights, carried = meaning(rule, start, taught)
    for dtype, tolerance, way in ((torch.float64, FLOAT64, "stacked"), (torch.float32, FLOAT32, "float32")):
        model = nn.ParameterDict({name: nn.Parameter(x.to(dtype, copy=True)) for name, x in start.items()}).to(device)
        names = (*(name for name in view.state if name not in view.own), *["start"] * view.starts)
        level = Level("outside", Weights(model, ("*",)).take("*"), names, view.entrywise, remembered=own)
        numbers = {safe(p.name): p.number for p in rule.params if p.name in view.parameters}
        for each in taught:
            for weight in level.weights:
                weight.value.grad = each.grad[weight.name].to(device, dtype)
                weight.gram = each.gram[weight.name].to(device, dtype) if mentions(rule, "gram") else None
            level.update(step, lr=RATE, **numbers)
        pairs = [(f"weight {w.name}", w.value.detach(), weights[w.name]) for w in level.weights]
        for w in level.weights:
            kept = {name: x for name, x in w.state.items() if name != "start"}
            pairs += [(f"state {name} of {w.name}", x, carried[w.name].states[name][PART]) for name, x in kept.items()]
        yield worst(f"outside, {UPDATES} updates", way, pairs, tolerance)


PART = "W"


class Taught:
    """A gradient of every weight, and x x^T of its layer's inputs."""

    def __init__(self, draw: torch.Generator) -> None:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw, dtype=torch.float64)

        self.grad = {name: normal(*shape) for name, shape in SHAPES.items()}
        inputs = {name: 0.3 * normal(*shape[:-2], columns(shape), 4) for name, shape in SHAPES.items()}
        self.gram = {name: x @ x.mT for name, x in inputs.items()}


def columns(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) > 1 else 1


def meaning(rule: Rule, start: dict[str, Tensor], taught: list[Taught]) -> tuple[dict[str, Tensor], dict[str, Carried]]:
    """Every weight and what the rule keeps of it after the updates, by the interpreter."""
    found, kept = {}, {}
    params = {p.name: p.number for p in rule.params}
    for name, first in start.items():
        W0 = matrix(first)
        weight, carried = W0, Carried.zero(rule, {PART: W0})
        for each in taught:
            seen = {"grad": matrix(each.grad[name]), "gram": each.gram[name], "weight": weight, "start": W0}
            seen |= {"lr": torch.tensor(RATE, dtype=torch.float64), "retain": torch.ones((), dtype=torch.float64)}
            weight, carried = run_rule(rule, PART, weight, {**seen, **params}, carried.counted())
        found[name], kept[name] = weight, carried
    return found, kept


def matrix(x: Tensor) -> Tensor:
    """A weight of one axis is a column, a number 1 x 1."""
    return x if x.dim() > 1 else x.reshape(-1, 1)


def function(view: RuleView) -> tuple[Callable[..., Any], list[Remembered]]:
    """The generated function, as train.py has it, and the rule's own memories."""
    lines = [*view.constants, f"def {view.name}({view.arguments}):", *(f"    {line}" for line in view.lines)]
    module = types.ModuleType(view.name)
    head = "import math\nimport torch\nimport torch.nn.functional as F\nfrom runtime.ops import *\n"
    exec(head + "\n".join(lines), module.__dict__)
    made: Callable[..., Any] = module.__dict__[view.name]
    return made, [module.__dict__[name] for name in view.remembered]


def worst(case: str, way: str, pairs: list[tuple[str, Tensor, Tensor]], tolerance: float) -> Outcome:
    error, where = 0.0, ""
    for name, a, b in pairs:
        found = float((a.double().cpu().reshape(b.shape) - b).norm() / b.norm().clamp(min=1e-12))
        if not found <= error:
            error, where = found if found == found else float("inf"), name
    return Outcome(case, way, error, where, tolerance)
