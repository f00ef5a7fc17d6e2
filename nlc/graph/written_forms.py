"""Forms that a spec writes as equations under `forms:`.

    forms = WrittenForms(spec, sizes, report)
    forms.form("ttt")                         the Form, read and checked once; raises Refused when reported
    forms.placed(form, lower, "titans.form")  the Form with weights of its own in one block, and their ids
    matrices(form), vectors(form)             the names of its state

The state is what the memory learns.  A matrix W acts once, as `W @ a`: a layer with the input a, along which dgd
erases.  A vector may stand anywhere.  The other weights of the equations belong to an outer level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Assign, Name, parse_axis, parse_block, to_text, walk
from nlc.graph.lower import Lowering
from nlc.graph.nodes import Form, Number, Op, Value
from nlc.graph.scope import Scope
from nlc.graph.static import Refused
from nlc.operators import OPERATORS
from nlc.spec import Spec

TAKEN = ("x", "y", "in", "out", "k", "v", "past", "kept", "origin")  # what a part of the state cannot be called


def matrices(form: Form) -> tuple[str, ...]:
    return tuple(name for name, axes in form.state if len(axes) == 2)


def vectors(form: Form) -> tuple[str, ...]:
    return tuple(name for name, axes in form.state if len(axes) == 1)


class WrittenForms:
    """The forms of one spec."""

    def __init__(self, spec: Spec, sizes: Mapping[str, int], report: Reporter) -> None:
        self.spec, self.sizes, self.report = spec, sizes, report
        self.read: dict[str, Form | None] = {}
        self.weights: dict[str, Lowering] = {}  # by form: the weights its equations make

    def form(self, name: str) -> Form:
        """The form of that name.  Raises Refused where something is wrong with it."""
        if name not in self.read:
            self.read[name] = self._read(name)
        form = self.read[name]
        if form is None:
            raise Refused
        return form

    def placed(self, form: Form, lower: Lowering, base: str) -> tuple[Form, tuple[str, ...]]:
        """The form with weights `<base>.<assigned name>.<operator>` in the block, and the ids of those."""
        ids = {
            id: lower.weight(f"{base}.{w.path}", w.at, w.init, w.scale)
            for id, w in self.weights[form.name].weights.items()
        }
        body = tuple(
            replace(node, weights=tuple(ids[w] for w in node.weights)) if isinstance(node, Op) else node
            for node in form.body
        )
        return replace(form, body=body), tuple(ids.values())

    # ---- one form -----------------------------------------------------------------------------------------------

    def _read(self, name: str) -> Form | None:
        before = len(self.report.found)
        given = self.spec.model.forms[name]
        state = tuple((part, self._axes(name, part, axes)) for part, axes in given.state.items())
        try:
            statements = parse_block(given.do, self.spec.place(f"forms.{name}.do"))
        except SpecError as error:
            self.report.take(error)
            return None
        parts = [part for part, _ in state]
        lower = Lowering("", Scope("", ("x", *parts), statements), self.sizes, {}, self.report)
        lower.block(statements)
        self.weights[name] = lower
        if not any("y" in s.targets for s in statements):
            at = self.spec.at(f"forms.{name}.do", key=True)
            self.report.error("NLC0412", at, f"the form '{name}' never assigns y", "y is what the memory gives for x")
        self._targets(name, parts, statements)
        if len(self.report.found) > before:
            return None
        form = _form(name, state, lower)
        self._uses(form)
        return form if len(self.report.found) == before else None

    def _axes(self, form: str, part: str, axes: list[str]) -> tuple[str, ...]:
        """The text of each axis; the name and the number of axes are checked."""
        at = self.spec.at(f"forms.{form}.state.{part}", key=True)
        if part in TAKEN or not part.isidentifier():
            taken = f"{', '.join(TAKEN)} have other meanings"
            self.report.error("NLC0412", at, f"the form '{form}' calls a part of its state '{part}'", taken)
        if len(axes) not in (1, 2):
            hint = "a matrix [out, in], or a vector [out]"
            self.report.error("NLC0412", at, f"'{part}' of the form '{form}' has {len(axes)} axes", hint)
        found = []
        for i, text in enumerate(axes):
            try:
                tree = parse_axis(str(text), self.spec.place(f"forms.{form}.state.{part}.{i}"))
            except SpecError as error:
                self.report.take(error)
                continue
            for name in [e for e in walk(tree) if isinstance(e, Name) and e.id not in (*self.sizes, "in", "out")]:
                known = suggest(name.id, [*self.sizes, "in", "out"], "sizes")
                self.report.error("NLC0503", name.at, f"unknown size '{name.id}'", known)
            found.append(to_text(tree))
        return tuple(found)

    def _targets(self, name: str, parts: list[str], statements: tuple[Assign, ...]) -> None:
        for statement in statements:
            for target, at in zip(statement.targets, statement.places, strict=True):
                if target in parts:
                    hint = "the rule writes it; call the result something else"
                    self.report.error("NLC0412", at, f"the form '{name}' assigns its own state '{target}'", hint)

    def _uses(self, form: Form) -> None:
        """Every part reaches y, a matrix by one `W @ a`; no operator looks beyond the token."""
        for node in form.body:
            if isinstance(node, Op) and (OPERATORS[node.op].register or node.op == "dropout"):
                why = "draws at random" if node.op == "dropout" else "looks at earlier tokens"
                self.report.error("NLC0412", node.at, f"'{node.op}' in the form '{form.name}' {why}", "use it outside")
        uses = list(_uses_of_matrices(form))
        reached = _needed(form)
        for part, axes in form.state:
            at = self.spec.at(f"forms.{form.name}.state.{part}", key=True)
            if part not in reached:
                message = f"y of the form '{form.name}' does not depend on its state '{part}'"
                self.report.error("NLC0412", at, message, f"use it: {part} @ x" if len(axes) == 2 else "")
                continue
            otherwise = [n.at for n, used, as_layer in uses if used == part and not as_layer]
            again = [n.at for n, used, as_layer in uses if used == part and as_layer][1:]
            if otherwise:
                message = f"'{part}' of the form '{form.name}' is used otherwise than as {part} @ a"
                self.report.error("NLC0412", otherwise[0], message, "a matrix of the state is a layer")
            if again:
                message = f"'{part}' of the form '{form.name}' is applied a second time"
                self.report.error("NLC0412", again[0], message, "a matrix of the state is applied once")


def _form(name: str, state: tuple[tuple[str, tuple[str, ...]], ...], lower: Lowering) -> Form:
    resolve = lower.scope.resolve
    body = tuple(
        replace(n, inputs=tuple(resolve(i) for i in n.inputs)) if isinstance(n, Op) else n
        for n in lower.values.values()
        if isinstance(n, Op | Number)
    )
    return Form(kind="equations", residual=False, name=name, state=state, body=body,
                result=resolve(lower.scope.current["y"]))  # fmt: skip


def _uses_of_matrices(form: Form) -> Iterator[tuple[Value, str, bool]]:
    """(operator, matrix, whether it is `matrix @ a`) of every use."""
    wide = matrices(form)
    for node in form.body:
        for at, id in enumerate(node.inputs if isinstance(node, Op) else ()):
            if id in wide:
                yield node, id, isinstance(node, Op) and node.op == "matmul" and at == 0


def _needed(form: Form) -> set[str]:
    """Whatever y depends on."""
    inputs = {node.id: node.inputs for node in form.body if isinstance(node, Op)}
    found, waiting = set[str](), [form.result]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting += inputs.get(id, ())
    return found
