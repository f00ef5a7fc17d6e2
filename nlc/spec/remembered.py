"""Memories inside a rule's level: what a rule file says of each.

memories:
  m: {form: 'mlp(hidden=1x)', keys: grad, values: -grad, objective: l2, rule: gd(lr=1e-2), read: after}
"""

from __future__ import annotations

from dataclasses import dataclass

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Call, Expr, Number, parse_call, parse_expression
from nlc.source import Mapping, Place, Position, Scalar, Tree
from nlc.spec.fields import FORMS, bind

FIELDS = ("form", "keys", "values", "objective", "rule", "read", "start")
MAPS = ("matrix", "mlp", "swiglu")
CHOICES = {"objective": ("l2", "dot"), "read": ("after", "before"), "start": ("identity", "zeros")}


@dataclass(frozen=True, slots=True)
class Remembered:
    """A map that the rule trains on the columns of `keys` and `values`, by gradient descent at the rate `lr`."""

    name: str
    form: Call
    text: str  # of the form,
    place: Place  # and where it stands
    keys: Expr
    values: Expr
    objective: str
    lr: Expr
    read: str
    start: str
    at: Position


def remembered(tree: Tree | None, report: Reporter) -> tuple[Remembered, ...]:
    """The memories of one level of a rule."""
    if tree is None:
        return ()
    if not isinstance(tree, Mapping):
        report.error("NLC0202", tree.at, "memories: is a mapping, e.g. {m: {form: matrix, keys: grad, values: -grad}}")
        return ()
    found = []
    for name, entry in tree.entries.items():
        try:
            if not name.isidentifier():
                raise _error("NLC0212", entry.at, f"'{name}' is not a name", "letters, digits and _, not a digit first")
            found.append(_memory(name, entry.at, entry.value))
        except SpecError as error:
            report.take(error)
    return tuple(found)


def _memory(name: str, at: Position, tree: Tree) -> Remembered:
    if not isinstance(tree, Mapping):
        raise _error("NLC0202", tree.at, f"the memory '{name}' is a mapping", "form, keys and values")
    said: dict[str, Scalar] = {}
    for key, entry in tree.entries.items():
        if key not in FIELDS:
            raise _error("NLC0201", entry.at, f"a memory of a rule has no '{key}'", suggest(key, FIELDS, "keys"))
        if not isinstance(entry.value, Scalar):
            raise _error("NLC0202", entry.value.at, f"'{key}' is text")
        said[key] = entry.value
    for key in ("form", "keys", "values"):
        if key not in said:
            raise _error("NLC0203", at, f"the memory '{name}' has no {key}", "form: matrix, keys: grad, values: -grad")
    form = parse_call(said["form"].text, said["form"].place)
    if form.func not in MAPS:
        raise _error("NLC0403", form.at, f"a rule's memory cannot be '{form.func}'", suggest(form.func, MAPS, "forms"))
    if "bias" in bind(form, FORMS[form.func], "form"):
        raise _error("NLC1001", form.at, "a rule's memory has no biases yet", "bias: false")
    words = {key: _word(said, key) for key in CHOICES}
    keys, values = (parse_expression(said[key].text, said[key].place) for key in ("keys", "values"))
    return Remembered(
        name, form, said["form"].text, said["form"].place, keys, values, words["objective"], _rate(said, at),
        words["read"], words["start"], at,
    )  # fmt: skip


def _word(said: dict[str, Scalar], key: str) -> str:
    words = CHOICES[key]
    if key in said and said[key].text not in words:
        found = said[key]
        raise _error("NLC0204", found.at, f"'{key}' of a rule's memory is '{found.text}'", suggest(found.text, words))
    return said[key].text if key in said else words[0]


def _rate(said: dict[str, Scalar], at: Position) -> Expr:
    """gd(lr=1e-2)"""
    if "rule" not in said:
        return Number(1.0, at)
    call = parse_call(said["rule"].text, said["rule"].place)
    if call.func != "gd":
        raise _error(
            "NLC1001", call.at, f"a rule's memory is written by gd, and not by '{call.func}' yet", "gd(lr=1e-2)"
        )
    return bind(call, ("lr",), "rule").get("lr", Number(1.0, at))


def _error(code: str, at: Position, message: str, hint: str = "") -> SpecError:
    report = Reporter()
    report.error(code, at, message, hint)
    return SpecError(report.found)
