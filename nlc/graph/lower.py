"""Equations to values: one block's assignments, and the expressions of its fields, become Op, Read and Number nodes.

    lower = Lowering(kind, scope, sizes, memories, report)
    lower.block(statements)                      the assignments, in order
    lower.value(expr, Place("titans.rate", ...)) one expression of a field  -> id of its value, or None when reported

Single assignment happens here: `Scope` says which version of a name is meant.  A value that could not be made is None
and is not reported again by what uses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlc.constants import constant
from nlc.diagnostics import Reporter, suggest
from nlc.equations import (
    Assign,
    Binary,
    Boolean,
    Call,
    Compare,
    Expr,
    ListOf,
    Multiple,
    Name,
    Number,
    Slice,
    Text,
    Unary,
    to_text,
)
from nlc.graph import nodes
from nlc.graph.nodes import Init, Op, Read, Value, Weight, When
from nlc.graph.scope import Place, Scope
from nlc.graph.static import Refused, option, size
from nlc.operators import BY_SYMBOL, CALLABLE, OPERATORS, REQUIRED, Operator
from nlc.source import Position


@dataclass(frozen=True, slots=True)
class Readable:
    """A memory as the equations see it."""

    id: str  # as it is declared
    when: When  # where its reads look unless the call says otherwise
    fixed: bool  # attention and memories that no token writes: a call cannot choose


class Lowering:
    """The values and weights of one kind of block."""

    def __init__(
        self, kind: str, scope: Scope, sizes: Mapping[str, int], memories: Mapping[str, Readable], report: Reporter
    ) -> None:
        self.kind, self.scope, self.sizes, self.memories, self.report = kind, scope, sizes, memories, report
        self.values: dict[str, Value] = {}
        self.weights: dict[str, Weight] = {}
        self.reads: dict[str, Position] = {}  # memory name -> its first call
        self.residual: set[int] = set()  # the linear calls whose result is added to an earlier version of the name

    # ---- statements -------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[Assign]) -> None:
        for statement in statements:
            self.statement(statement)
        named = {node.name: node.at for node in self.values.values() if isinstance(node, nodes.Input)}
        for statement in statements:
            named |= {t: at for t, at in zip(statement.targets, statement.places, strict=True) if t not in named}
        for name in [n for n in named if n in self.memories]:
            hint = "call one of them something else"
            self.report.error("NLC0504", named[name], f"'{name}' is a memory and a value", hint)

    def statement(self, statement: Assign) -> None:
        if len(statement.targets) > 1:
            return self.unpack(statement)
        target = statement.targets[0]
        if target in self.scope.current:
            self.mark_residual(statement.value, target)
        place = self.scope.place(target)
        value = self.value(statement.value, place)
        self.scope.assign(target, place.id, value or "")

    def unpack(self, statement: Assign) -> None:
        """a, b = split(v, 2): the split, and one item of it for each name."""
        call, count = statement.value, len(statement.targets)
        places = [self.scope.place(t) for t in statement.targets]
        base = places[0]
        whole = None
        if isinstance(call, Call) and call.func == "split":
            whole = self.operator(call, OPERATORS["split"], replace(base, name=""), self.scope.inner(base, "split"))
            into = dict(self.values[whole].options)["n"] if whole else count  # type: ignore[union-attr]
            found = into if isinstance(into, int) else len(into)
            if found != count:
                self.report.error("NLC0505", call.at, f"split gives {found} values, and {count} names take them")
                whole = None
        else:
            self.report.error(
                "NLC0505", statement.value.at, f"{count} names, and one value", "several values come from split(v, n)"
            )
        for i, (target, place) in enumerate(zip(statement.targets, places, strict=True)):
            if whole:
                options = (("index", i),)
                self.add(Op(id=place.id, at=statement.at, block=self.kind, op="item", inputs=(whole,), options=options,
                            name=place.name, version=place.version))  # fmt: skip
            self.scope.assign(target, place.id, place.id if whole else "")

    def mark_residual(self, expr: Expr, target: str) -> None:
        """In `x = x + linear(...)`, the linear starts at 0."""
        terms = list(_terms(expr))
        if any(isinstance(t, Name) and t.id == target for t in terms):
            for term in terms:
                while isinstance(term, Call) and term.func == "dropout" and term.args:
                    term = term.args[0]
                if isinstance(term, Call) and term.func == "linear":
                    self.residual.add(id(term))

    # ---- expressions ------------------------------------------------------------------------------------------

    def value(self, expr: Expr, place: Place) -> str | None:
        """The id of an expression's value; the outermost operator gets the place's own id."""
        return self.lower(expr, place, place.id)

    def lower(self, expr: Expr, place: Place, id: str = "") -> str | None:
        folded = None if isinstance(expr, Name) else constant(expr, self.sizes, self.is_value)
        if folded is not None:
            return self.number(folded, expr, place, id)
        match expr:
            case Name():
                return self.name(expr, place, id)
            case Call("learned"):
                return self.learned(expr, place, id)
            case Call(func) if func in self.memories:
                return self.read(expr, place, id)
            case Call(func) if func in CALLABLE:
                if func == "split":
                    self.report.error(
                        "NLC0505", expr.at, "split gives several values", "take them apart: a, b = split(v, 2)"
                    )
                    return None
                return self.operator(expr, OPERATORS[func], place, id)
            case Call(func):
                hint = suggest(func, [*CALLABLE, *self.memories], "operators and memories")
                self.report.error("NLC0502", expr.at, f"unknown operator or memory '{func}'", hint)
                for argument in expr.args:
                    if not isinstance(argument, Multiple | Text | Boolean | ListOf):  # an option, of what it would be
                        self.lower(argument, place)
                return None
            case Unary("-", value):
                return self.symbol("neg", (value,), expr, place, id)
            case Binary(op, left, right) | Compare(op, left, right):
                return self.symbol(BY_SYMBOL[op], (left, right), expr, place, id)
            case Slice():
                return self.slice(expr, place, id)
            case Number() | Multiple() | Text() | Boolean() | ListOf() | Unary():
                hint = "concat(a, b) joins values" if isinstance(expr, ListOf) else ""
                self.report.error("NLC0505", expr.at, f"'{to_text(expr)}' is not a value", hint)
                return None
        raise TypeError(f"unexpected expression {expr!r}")

    def is_value(self, name: str) -> bool:
        return self.scope.lookup(name) is not None

    def name(self, expr: Name, place: Place, id: str) -> str | None:
        found = self.scope.lookup(expr.id)
        if found is not None:
            if place.field and self.scope.total[expr.id] > 1:
                message = f"a field reads '{expr.id}', which the block assigns {self.scope.total[expr.id]} times"
                if expr.id in self.scope.entering:
                    message = f"a field reads '{expr.id}', which enters the block and is assigned again"
                self.report.error("NLC0504", expr.at, message, "give the one you mean a name of its own")
                return None
            return found or None
        if expr.id in self.sizes:
            return self.number(self.sizes[expr.id], expr, place, id)
        if self.scope.total[expr.id]:
            hint = f"it is assigned {self.scope.total[expr.id]} times, so a line before them cannot say which it means"
            self.report.error("NLC0501", expr.at, f"'{expr.id}' is read before it is assigned", hint)
        elif expr.id in self.memories:
            self.report.error("NLC0501", expr.at, f"'{expr.id}' is a memory", f"read it by a call: {expr.id}(...)")
        elif expr.id == "learned":
            hint = "the number it begins with: learned(0.9)"
            self.report.error("NLC0505", expr.at, "'learned' does not say where it begins", hint)
        else:
            hint = suggest(expr.id, [*self.scope.names(), *self.sizes], "values and sizes")
            self.report.error("NLC0501", expr.at, f"undefined value '{expr.id}'", hint)
        return None

    def number(self, value: float, expr: Expr, place: Place, id: str) -> str:
        id = id or self.scope.inner(place, f"{value:g}")
        return self.add(nodes.Number(id=id, at=expr.at, block=self.kind, value=float(value)))

    def learned(self, call: Call, place: Place, id: str) -> str | None:
        """exp of a weight that starts at log(value): positive, and free of weight decay."""
        start = constant(call.args[0], self.sizes) if len(call.args) == 1 and not call.kwargs else None
        if start is None or start <= 0:
            self.report.error("NLC0505", call.at, "learned takes one number above 0", "for example: learned(0.05)")
            return None
        path = place.path if id == place.id else self.scope.weight(place, "learned")
        weight = self.weight(path, call.at, Init.CONSTANT, math.log(start))
        options = (("shape", ()), ("start", math.log(start)))
        inside = self.add(Op(id=self.scope.inner(place, "param"), at=call.at, block=self.kind, op="param", inputs=(),
                             options=options, weights=(weight,), field=place.field))  # fmt: skip
        return self.op("exp", (inside,), call.at, place, id)

    def read(self, call: Call, place: Place, id: str) -> str | None:
        memory = self.memories[call.func]
        self.reads.setdefault(call.func, call.at)
        id = id or self.scope.inner(place, call.func)
        if len(call.args) != 1:
            self.report.error(
                "NLC0505", call.at, f"the memory '{call.func}' is read with {len(call.args)} values", "one query"
            )
        when = memory.when
        for keyword, value in call.kwargs:
            words = [w.value for w in When]
            if keyword != "read" or not isinstance(value, Name | Text):
                self.report.error(
                    "NLC0505", value.at, f"'{keyword}' says nothing about a read", "read=chunk, before or after"
                )
                continue
            word = value.id if isinstance(value, Name) else value.value
            if word not in words:
                self.report.error("NLC0204", value.at, f"read is '{word}'", suggest(word, words, "choices"))
            elif place.field:
                self.report.error(
                    "NLC0411", value.at, f"'{place.field}' always reads the chunk's first state", "leave read= away"
                )
            elif memory.fixed and word != memory.when.value:
                self.report.error(
                    "NLC0411",
                    value.at,
                    f"no token writes '{call.func}', so read={word} says nothing",
                    "leave read= away",
                )
            else:
                when = When(word)
        if place.field and not memory.fixed:
            when = When.CHUNK
        query = self.lower(call.args[0], place) if call.args else None
        if query is None:
            return None
        names = self.naming(place, id)
        return self.add(Read(id=id, at=call.at, block=self.kind, memory=memory.id, query=query, when=when, **names))

    def slice(self, expr: Slice, place: Place, id: str) -> str | None:
        id = id or self.scope.inner(place, "slice")
        try:
            bounds = [None if b is None else size(b, self.sizes, self.report) for b in (expr.start, expr.stop)]
        except Refused:
            return None
        start, stop = bounds
        if expr.single:
            assert start is not None
            stop = start + 1 if start != -1 else None
        value = self.lower(expr.value, place)
        options = (("single", expr.single), ("start", start), ("stop", stop))
        return None if value is None else self.op("slice", (value,), expr.at, place, id, options)

    def symbol(self, op: str, operands: tuple[Expr, ...], expr: Expr, place: Place, id: str) -> str | None:
        id = id or self.scope.inner(place, op)
        inputs = [self.lower(o, place) for o in operands]
        return (
            None if any(i is None for i in inputs) else self.op(op, tuple(i for i in inputs if i), expr.at, place, id)
        )

    # ---- operators called by name -----------------------------------------------------------------------------

    def operator(self, call: Call, op: Operator, place: Place, id: str) -> str | None:
        id = id or self.scope.inner(place, op.name)
        least, most = op.operands
        operands = call.args if most is None else call.args[:most]
        path = self.path(call, op, place)
        options = self.options(call, op, call.args[len(operands) :])
        inputs = [self.lower(o, place) for o in operands]
        if len(operands) < least:
            values = "value" if least == 1 else "values"
            self.report.error(
                "NLC0505", call.at, f"'{op.name}' takes {least} {values}, and {len(operands)} are given", _usage(op)
            )
            return None
        if options is None or any(i is None for i in inputs):
            return None
        at = (call.keyword("name") or call).at
        weights = [
            self.weight(path + suffix, at, zero=not suffix and id_(call) in self.residual)
            for suffix in op.suffixes(dict(options))
        ]
        return self.op(op.name, tuple(i for i in inputs if i), call.at, place, id, options, tuple(weights))

    def path(self, call: Call, op: Operator, place: Place) -> str:
        """The path of the operator's weight; `name=` gives it outright."""
        given = call.keyword("name")
        if given is None:
            return self.scope.weight(place, op.name) if op.suffixes({}) else ""
        if not op.suffixes({}):
            self.report.error("NLC0505", given.at, f"'{op.name}' has no weight to name")
            return ""
        word = given.id if isinstance(given, Name) else given.value if isinstance(given, Text) else to_text(given)
        if not isinstance(given, Name | Text) or not (word.isascii() and word.isidentifier()):
            hint = "a word: letters, digits and _, not a digit first"
            self.report.error("NLC0212", given.at, f"'{word}' is not the name of a weight", hint)
        return word

    def options(self, call: Call, op: Operator, positional: Sequence[Expr]) -> tuple[tuple[str, Any], ...] | None:
        """The static arguments, defaults filled in, sorted by name; None when something was reported."""
        before = len(self.report.found)
        given: dict[str, Expr] = {}
        for i, expr in enumerate(positional):
            if i < len(op.options):
                given[op.options[i].name] = expr
            else:
                self.report.error(
                    "NLC0505", expr.at, f"'{op.name}' takes no further argument '{to_text(expr)}'", _usage(op)
                )
        known = {o.name for o in op.options}
        for keyword, expr in call.kwargs:
            if keyword in given:
                self.report.error("NLC0505", expr.at, f"'{keyword}' of '{op.name}' is given twice")
            elif keyword in known:
                given[keyword] = expr
            elif keyword != "name":
                self.report.error(
                    "NLC0505",
                    expr.at,
                    f"'{op.name}' has no argument '{keyword}'",
                    suggest(keyword, known) or _usage(op),
                )
        found: dict[str, Any] = {}
        for o in op.options:
            try:
                if o.name in given:
                    found[o.name] = option(o.kind, given[o.name], self.sizes, self.report, f"'{o.name}' of '{op.name}'")
                elif o.default is REQUIRED:
                    self.report.error("NLC0505", call.at, f"'{op.name}' needs '{o.name}'", _usage(op))
                elif o.default in self.sizes:
                    found[o.name] = self.sizes[o.default]
                elif isinstance(o.default, str) and o.kind is not o.kind.START:
                    self.report.error(
                        "NLC0503",
                        call.at,
                        f"'{op.name}' counts the size '{o.default}', which is not declared",
                        f"{op.name}(v, n)",
                    )
                elif o.default is not None:
                    found[o.name] = o.default
            except Refused:
                continue
        return tuple(sorted(found.items())) if len(self.report.found) == before else None

    # ---- nodes ------------------------------------------------------------------------------------------------

    def op(self, op: str, inputs: tuple[str, ...], at: Position, place: Place, id: str,
           options: tuple[tuple[str, Any], ...] = (), weights: tuple[str, ...] = ()) -> str:  # fmt: skip
        id = id or self.scope.inner(place, op)
        node = Op(
            id=id,
            at=at,
            block=self.kind,
            op=op,
            inputs=inputs,
            options=options,
            weights=weights,
            **self.naming(place, id),
        )
        return self.add(node)

    def naming(self, place: Place, id: str) -> dict[str, Any]:
        outermost = id == place.id
        return {
            "name": place.name if outermost else "",
            "version": place.version if outermost else 0,
            "field": place.field,
        }

    def add(self, node: Value) -> str:
        self.values[node.id] = node
        return node.id

    def weight(
        self, path: str, at: Position, init: Init = Init.NORMAL, scale: float | None = None, zero: bool = False
    ) -> str:
        """A weight; a second use of the same path is the same weight."""
        id = weight_id(self.scope.prefix, path)
        if id not in self.weights:
            init, scale = (Init.CONSTANT, 0.0) if zero else (init, scale)
            self.weights[id] = Weight(id=id, at=at, block=self.kind, path=path, init=init, scale=scale)
        return id


def weight_id(prefix: str, path: str) -> str:
    """`blocks.*.h.conv`, the pattern that its names match; `blocks.mamba.*.h.conv` where there are several kinds."""
    return f"blocks.{prefix.rstrip('/') + '.' if prefix else ''}*.{path}"


id_ = id  # the identity of a tree; `id` names a node here


def _terms(expr: Expr) -> Sequence[Expr]:
    match expr:
        case Binary("+", left, right):
            return (*_terms(left), *_terms(right))
        case Binary("-", left, _):
            return _terms(left)
    return (expr,)


def _usage(op: Operator) -> str:
    least, most = op.operands
    values = ["v"] if least == 1 and most == 1 else list("abc")[: max(least, 2 if most is None else least)]
    options = [o.name if o.default is REQUIRED else f"{o.name}=" for o in op.options]
    return f"{op.name}({', '.join([*values, *options])})"
