"""Memories whose objective is any expression of M, k and v: operators of the language, in every way of lowering them.

A program of this kind is small, so that its objective is what it is about: one to three memories of a bare program,
written at each token, in chunks, once in a period or over a window; or, in a model of tokens, beside a memory that
each token's own loss drives, whose error passes the write.
"""

from __future__ import annotations

from typing import Any

from nlc.equations import parse_expression
from nlc.operators import OPERATORS, Shape
from nlc.source import Position
from nlc.spec.check import slopes
from tests.fuzz.choices import Choose
from tests.fuzz.equations import Equations
from tests.fuzz.program import Drawn, Feeding

SIZES = {"heads": 2, "head": 3}
AT = Position("drawn.yaml", 1, 1)
NONE = ("split", "dropout", "index", "eye")  # have several results, chance, or shapes that heads do not have
UNSAID = (",", "()", "[]")  # signs that an objective has not
ALLOWED = tuple(
    name
    for name, op in sorted(OPERATORS.items())
    if not (name in NONE or op.symbol in UNSAID or op.suffixes({}) or op.register)
)
CLOCKS: tuple[dict[str, Any], ...] = (
    {"every": "1 token"}, {"every": "1 token", "chunk": 3}, {"every": "3 tokens"}, {"every": "2 tokens", "chunk": 4},
    {"every": "1 token", "window": 3}, {"every": "1 token", "read": "after"},
)  # fmt: skip
FORMS = ("matrix", "matrix", "vector", "mlp(hidden=2)", "swiglu(hidden=2)")


class Objective(Equations):
    """Values are expressions in brackets, which are put into one another."""

    def line(self) -> None:
        operator = OPERATORS[self.choose.among(ALLOWED)]
        made = self.operator(operator)
        if made is None or len(made[0]) > 300:
            return
        text, (shape,) = f"({made[0]})", made[1]
        self.values[text] = shape
        if not operator.gradient and self.values["M"][: len(shape)] == shape:  # says something as a factor alone
            self.values[f"({text} * M)"] = self.values["M"]

    def product(self) -> tuple[str, list[Shape]] | None:
        """A matrix times a vector, without weights."""
        name = self.choose.among([n for n, s in self.values.items() if s == self.values["M"]])
        return f"outer({name}, k) @ M", [self.values["M"]]


def objective(choose: Choose, heads: Shape, gate: bool) -> str:
    """An expression that has a gradient to M: numbers, one for each head."""
    shape = (*heads, SIZES["head"])
    values: dict[str, Shape] = {
        "M": shape,
        "(M - v)": shape,
        "v": shape,
        "k": shape,
        "outer(M, v)": (*shape, shape[-1]),
    } | ({"g": heads} if gate else {})
    found = Objective(choose, SIZES, values, iter(()))
    for _ in range(choose.whole(2, 6)):
        found.line()
    terms = [n for n, s in found.values.items() if s[: len(heads)] == heads and slopes(parse_expression(n, AT), "M")]
    made = " + ".join(found.reduced(name, found.values[name], heads) for name in choose.some(terms, least=1, most=2))
    return f"{made} + 0.5 * sum((M - v) ** 2)" if choose.chance(50) else made


def objectives(choose: Choose) -> Drawn:
    """A bare program, or a model of tokens with a memory that the loss drives."""
    return tokens(choose) if choose.chance(25) else bare(choose)


def memory(choose: Choose, heads: Shape, gate: bool) -> dict[str, Any]:
    fields = {"form": choose.among(FORMS), "objective": objective(choose, heads, gate)}
    erase = ["dgd"] if fields["form"] == "matrix" else []  # a deep one erases with what it grows by, and overflows
    fields |= {"rule": choose.among(["gd", "gd", "momentum(beta=0.5)", "adam", *erase])}
    return fields | ({"retain": 0.9, "grad_at": choose.among(["old", "kept"])} if choose.chance(30) else {})


def level(choose: Choose, heads: Shape, gate: bool, names: list[str]) -> dict[str, Any]:
    clock = choose.among(CLOCKS)
    fields = {
        "name": f"level_{names[0]}",
        **clock,
        "rate": 0.05,
        "keys": "k",
        "values": "v",
        "start": "learned(normal)",
    }
    fields |= {"meta": "first_order"} if choose.chance(20) else {}
    return fields | {"memories": {name: memory(choose, heads, gate) for name in names}}


def bare(choose: Choose) -> Drawn:
    heads: Shape = choose.among([(SIZES["heads"],), ()])
    gate, count = choose.chance(50), choose.whole(1, 3)
    axes = [*(["heads"] if heads else []), "head"]
    inputs = {"k": axes, "v": axes, "q": axes} | ({"z": axes[:-1]} if gate else {})
    block = "g = 0.5 + sigmoid(z)\n" if gate else ""
    names = [f"m{i}" for i in range(count)]
    levels = [level(choose, heads, gate, [name]) for name in names]
    read = " + ".join(f"{name}(q)" for name in names) + (" + g" if gate else "")
    spec = {"nlc": 1, "name": "drawn", "sizes": dict(SIZES), "inputs": inputs, "levels": levels,
            "block": f"{block}y = {read}\n", "outputs": ["y"]}  # fmt: skip
    return Drawn(spec, Feeding(8, pieces=(3, 5), seed=choose.whole(0, 999)))


def tokens(choose: Choose) -> Drawn:
    heads: Shape = (SIZES["heads"],)
    driven = {"name": "driven", "every": f"{choose.whole(1, 3)} tokens".replace("1 tokens", "1 token"),
              "objective": "loss", "rate": 0.05, "memories": {"driver": {"form": "matrix"}}}  # fmt: skip
    outer = {"name": "train", "every": "1 step", "objective": "loss", "rule": "adamw", "memories": "rest"}
    spec = {
        "nlc": 1, "name": "drawn", "sizes": {"width": 6, **SIZES, "layers": 1, "vocab": 7, "context": 16},
        "run": {"batch": 1}, "levels": [level(choose, heads, True, ["m0"]), driven, outer],
        "block": "h = driver(rmsnorm(x))\nk = l2norm(heads(linear(h)))\nv = tanh(heads(linear(h)))\n"
        "g = 0.5 + sigmoid(linear(v, out=1))\nx = x + linear(merge(m0(k) * g))\n",
    }  # fmt: skip
    return Drawn(spec, Feeding(7, pieces=(3, 4), seed=choose.whole(0, 999)))
