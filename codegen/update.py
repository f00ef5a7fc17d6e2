"""An update rule's program -> the lines of a readable Python function that updates every weight of a level.

The program's statements are kept as they stand.  What holds tensors (grad, weight, start, states, and all that follows
from them) is written as torch calls; the rest stays plain numbers, so `sqrt(1 - beta2 ** count)` costs nothing.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlc import equations as eq
from nlc.diagnostics import CompilerBug, Diagnostic, SpecError
from nlc.graph.nodes import Rule
from nlc.source import Position

TENSORS = ("grad", "weight", "start")
NUMBERS = {"lr": "lr", "count": "level.count", "retain": "1.0", "rows": "weight.shape[-2]", "cols": "weight.shape[-1]"}
NOT_YET = ("gram", "k", "v")  # what needs a layer's inputs
DECAY = "weight_decay"  # a rule's parameter of this name is 0 for the weights that do not decay

SAME = ("exp", "log", "sqrt", "tanh", "abs", "sign", "sigmoid", "relu", "trace")  # torch.<name>(tensor)
FUNCTIONAL = ("silu", "gelu", "softplus")  # torch.nn.functional.<name>(tensor)
REDUCE = {"sum": "sum", "mean": "mean", "min": "amin", "max": "amax"}  # over the last axis
PLAIN = ("exp", "log", "sqrt", "tanh")  # math.<name>(number)
BUILT_IN = ("abs", "min", "max")
STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
NEGATED, TIGHTEST = 3, 9


@dataclass(frozen=True, slots=True)
class Text:
    """A written expression: how tightly it binds, and whether it is a tensor."""

    text: str
    strength: int = TIGHTEST
    tensor: bool = False

    def within(self, least: int) -> str:
        return f"({self.text})" if self.strength < least else self.text


@dataclass(frozen=True, slots=True)
class Update:
    """What the template prints for one rule."""

    function: str
    rule: str
    parameters: tuple[str, ...]  # after level and lr
    signature: str
    state: tuple[str, ...]
    decays: bool  # some parameter is the weight decay
    setup: tuple[str, ...]  # before the loop over weights
    body: tuple[str, ...]  # for one weight, indented to its place in the loop
    imports: tuple[str, ...]  # names of runtime.ops
    math: bool


def update(rule: Rule, function: str, at: Position) -> Update:
    """The function of a rule.  Raises SpecError, at the rule, for what only a level inside a sequence can give it."""
    return Writer(rule, at).update(function)


class Writer:
    """Writes one rule; remembers which names are tensors and what must be imported."""

    def __init__(self, rule: Rule, at: Position) -> None:
        self.rule, self.at = rule, at
        self.names: dict[str, Text] = {name: Text(text) for name, text in NUMBERS.items()}
        self.names |= {name: Text(name, tensor=True) for name in TENSORS}
        self.names |= {p.name: Text("decay" if p.name == DECAY else safe(p.name)) for p in rule.params}
        self.names |= {name: Text(safe(name), tensor=True) for level in rule.levels for name in level.state}
        self.imports: set[str] = set()
        self.math = False

    def update(self, function: str) -> Update:
        setup = list(self.setup())
        state = [name for level in self.rule.levels for name in level.state]
        body = list(self.program(skip=len(setup)))
        reads = {name for level in self.rule.levels for line in level.do for name in eq.names(line.value)}
        decays = any(p.name == DECAY for p in self.rule.params) and DECAY in reads
        tail = together([f'state["{name}"]' for name in state], [safe(name) for name in state])
        state += ["start"] * ("start" in reads)
        head = together([safe(name) for name in state], [f'state["{name}"]' for name in state])
        state += [gathered(i) for i, level in enumerate(self.rule.levels) if level.period > 1]
        if decays:
            head.insert(0, f"decay = {DECAY} if decays else 0.0")
        return Update(
            function=function,
            rule=self.rule.name,
            signature=f"{function}({', '.join(['level', 'lr', *(safe(p.name) for p in self.rule.params)])})",
            parameters=tuple(safe(p.name) for p in self.rule.params),
            state=tuple(state),
            decays=decays,
            setup=tuple(setup),
            body=(*head, *body, *tail),
            imports=tuple(sorted(self.imports)),
            math=self.math,
        )

    def setup(self) -> Iterator[str]:
        """The program's first statements, as far as they are the same for every weight."""
        if self.rule.levels[0].period != 1:
            return
        for line in self.rule.levels[0].do:
            reads = set(eq.names(line.value))
            if not reads <= {p.name for p in self.rule.params if p.name != DECAY} | {"lr"} or "delta" in line.targets:
                return
            yield from self.statements((line,))

    def program(self, skip: int) -> Iterator[str]:
        """The rule's levels in order; a slower one sums its gradients and waits for its period."""
        own = any("weight" in line.targets for level in self.rule.levels for line in level.do)
        slow_delta = any(level.period > 1 and sets(level.do, "delta") for level in self.rule.levels)
        if slow_delta and not own:
            yield "delta = torch.zeros_like(grad)"
        self.names["delta"] = Text("delta", tensor=True)
        for i, level in enumerate(self.rule.levels):
            if level.period == 1:
                yield from self.statements(level.do[skip:] if i == 0 else level.do)
                continue
            total = f'state["{gathered(i)}"]'
            yield f"{total} += grad"
            yield f"if level.count % {level.period} == 0:"
            self.names["grad"] = Text(total, tensor=True)
            yield from (f"    {line}" for line in self.statements(level.do))
            yield f"    {total} = torch.zeros_like(grad)"
            self.names["grad"] = Text("grad", tensor=True)
        if not own:
            yield "weight += delta"

    def statements(self, do: tuple[Any, ...]) -> Iterator[str]:
        for line in do:
            value = self.text(line.value)
            if line.targets == ("weight",):
                yield f"weight.copy_({value.text})"
                continue
            for name in line.targets:
                self.names[name] = Text(safe(name), tensor=value.tensor)
            yield f"{', '.join(safe(name) for name in line.targets)} = {value.text}"

    # ---- expressions ------------------------------------------------------------------------------------------------

    def text(self, tree: Any) -> Text:
        match tree:
            case eq.Name(id=name):
                return self.name(name)
            case eq.Number(value=value):
                return Text(repr(value))
            case eq.Boolean(value=value) | eq.Text(value=value):
                return Text(repr(value))
            case eq.Unary(value=value):
                inner = self.text(value)
                return Text(f"-{inner.within(NEGATED)}", NEGATED, inner.tensor)
            case eq.Binary(op=op, left=left, right=right):
                return self.binary(op, self.text(left), self.text(right))
            case eq.Compare(op=op, left=left, right=right):
                a, b = self.text(left), self.text(right)
                text = f"({a.within(1)} {op} {b.within(1)})"
                return Text(f"{text}.to(grad.dtype)", tensor=True) if a.tensor or b.tensor else Text(f"float{text}")
            case eq.ListOf(items=items):
                return Text("[" + ", ".join(self.text(item).text for item in items) + "]")
            case eq.Slice():
                return self.slice(tree)
            case eq.Call(func=func, args=args, kwargs=kwargs):
                return self.call(func, args, {name: self.text(value) for name, value in kwargs})
        raise CompilerBug(f"codegen: rule '{self.rule.name}' holds an expression with no text: {tree!r}")

    def name(self, name: str) -> Text:
        if name in self.names:
            return self.names[name]
        if name in NOT_YET:
            message = f"rule '{self.rule.name}' reads '{name}', which a level that counts steps does not have yet"
            hint = "use it at a level that counts tokens, or a rule of the gradient alone: gd, momentum, adamw"
            raise SpecError([Diagnostic("NLC1001", self.at, message, hint=hint)])
        raise CompilerBug(f"codegen: rule '{self.rule.name}' reads '{name}', which nothing sets")

    def binary(self, op: str, a: Text, b: Text) -> Text:
        strength = STRENGTH[op]
        if op == "**":  # the right side binds more loosely than the left: 2 ** -x
            return Text(f"{a.within(TIGHTEST)}{space(op, a, b)}{b.within(NEGATED)}", strength, a.tensor or b.tensor)
        return Text(f"{a.within(strength)} {op} {b.within(strength + 1)}", strength, a.tensor or b.tensor)

    def slice(self, tree: eq.Slice) -> Text:
        value = self.text(tree.value)
        start, stop = ("" if end is None else self.text(end).text for end in (tree.start, tree.stop))
        bounds = start if tree.single else f"{start}:{stop}"
        return Text(f"{value.within(TIGHTEST)}[{'..., ' if value.tensor else ''}{bounds}]", tensor=value.tensor)

    def call(self, func: str, args: tuple[Any, ...], options: Mapping[str, Text]) -> Text:
        if func == "where":
            return self.where(*args)
        values = [self.text(arg) for arg in args]
        first = values[0]
        inputs = ", ".join([v.text for v in values] + [f"{name}={value.text}" for name, value in options.items()])
        if func == "eye":
            return Text(f"torch.eye({inputs}, dtype=grad.dtype, device=grad.device)", tensor=True)
        if not any(v.tensor for v in values) and func in PLAIN + BUILT_IN:
            self.math |= func in PLAIN
            return Text(f"{'math.' if func in PLAIN else ''}{func}({inputs})")
        if func in SAME + FUNCTIONAL:
            return Text(f"torch.{'nn.functional.' if func in FUNCTIONAL else ''}{func}({inputs})", tensor=True)
        if func in ("min", "max") and len(values) == 2:
            return self.extremum(func, *values)
        if func in REDUCE:
            return Text(f"{first.within(TIGHTEST)}.{REDUCE[func]}(-1)", tensor=True)
        if func == "transpose":
            return Text(f"{first.within(TIGHTEST)}.mT", tensor=True)
        if func == "stop":
            return first
        if func in ("newton_schulz", "norm", "outer"):
            self.imports.add(func)
            return Text(f"{func}({inputs})", tensor=True)
        message = f"rule '{self.rule.name}' uses '{func}', which a level that counts steps does not support yet"
        raise SpecError([Diagnostic("NLC1001", self.at, message)])

    def where(self, condition: Any, yes: Any, no: Any) -> Text:
        a, b = self.text(yes), self.text(no)
        test = self.text(condition)
        if not test.tensor:
            return Text(f"({a.text} if {test.text} else {b.text})", tensor=a.tensor or b.tensor)
        return Text(f"torch.where({test.within(1)} != 0, {a.text}, {b.text})", tensor=True)

    def extremum(self, func: str, a: Text, b: Text) -> Text:
        if a.tensor and b.tensor:
            return Text(f"torch.{func}imum({a.text}, {b.text})", tensor=True)
        tensor, number = (a, b) if a.tensor else (b, a)
        return Text(f"{tensor.within(TIGHTEST)}.clamp({'max' if func == 'min' else 'min'}={number.text})", tensor=True)


def together(targets: Sequence[str], values: Sequence[str]) -> list[str]:
    """One assignment of several values; one a line where that is too long."""
    if not targets:
        return []
    line = f"{', '.join(targets)} = {', '.join(values)}"
    return [line] if len(line) <= 100 else [f"{a} = {b}" for a, b in zip(targets, values, strict=True)]


def gathered(index: int) -> str:
    """The state in which the rule's level at this place sums its gradients."""
    return f"level{index + 1}_grad"


def sets(do: tuple[Any, ...], name: str) -> bool:
    return any(name in line.targets for line in do)


def space(op: str, a: Text, b: Text) -> str:
    """ruff's spacing of a power: tight between names and numbers, which hold no bracket."""
    simple = all(t.strength in (TIGHTEST, NEGATED) and re.fullmatch(r"-?[\w.]+", t.text) for t in (a, b))
    return op if simple else f" {op} "


def safe(name: str) -> str:
    """A name of the spec as a Python variable of the generated function."""
    taken = ("level", "state", "torch", "math", "decays", "decay", "count", "clip")
    return f"{name}_" if keyword.iskeyword(name) or name in taken else name
