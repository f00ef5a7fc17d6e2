"""Edits of the map that a memory is: its form, and one argument of it."""

from __future__ import annotations

from random import Random

from nlc.equations import Call, parse_call, to_text
from nlc.graph.choices import ACTS, NORMS
from nlc.spec.fields import FORMS
from nlc.variants.edits.draft import Draft, Place, Slot
from nlc.variants.edits.kind import Kind, Unchanged, among, becomes, other
from nlc.variants.edits.program import NOWHERE
from nlc.variants.edits.rules import asks_for_pairs

DRAWN = (
    "matrix", "vector", "mlp(hidden=1x)", "mlp(hidden=2x)", "mlp(hidden=4x, norm=layernorm, bias=true)",
    "mlp(hidden=1x, depth=3)", "mlp(hidden=2x, act=silu)", "swiglu(hidden=1x)", "swiglu(hidden=2x, norm=rmsnorm)",
)  # fmt: skip
ARGUMENTS = {
    "hidden": ("1x", "2x", "3x", "4x"), "depth": ("1", "2", "3"), "act": ACTS, "residual": ("true", "false"),
    "norm": NORMS, "bias": ("true", "false"), "window": ("8", "16", "32", "64", "128"),
    "segment": ("16", "32", "64"), "persistent": ("1", "4", "16"),
}  # fmt: skip
UNSAID = {"depth": "2", "act": "gelu", "residual": "true", "norm": "none", "bias": "false"}


def form_of(slot: Slot) -> Call:
    return parse_call(str(slot.get("form", "matrix")), NOWHERE)


def _form_places(draft: Draft) -> list[Place]:
    """Maps with weights of their own; a rule that sees pairs sees those of a matrix."""
    return [p for p in draft.places("form") if all(not s.attends and not _bound(draft, s) for s in p.slots)]


def _bound(draft: Draft, slot: Slot) -> bool:
    return slot.pairs and asks_for_pairs(draft, slot)


def _form(draft: Draft, place: Place, rng: Random) -> str:
    old = str(place.said("form", "matrix"))
    facts = [draft.fact(slot) for slot in place.slots]
    single = all(len(fact.heads) < 2 for fact in facts)
    options = [*DRAWN, *(draft.document.get("forms") or {})] if single else list(DRAWN)
    if any(_by_channel(draft, slot) or slot.get("meta") == "none" for slot in place.slots):
        options = ["matrix", "vector"]
    if not _square(draft, place):
        options = [form for form in options if form != "vector" and form in DRAWN]
    new = other(rng, [form for form in options if form != old], parse_call(old, NOWHERE).func)
    place.fields["form"] = new
    for slot in place.slots:
        deep = form_of(slot).func not in ("matrix", "vector")
        if deep and str(slot.get("start", "learned")) in ("zeros", "learned(zeros)", "identity", "learned(identity)"):
            slot.say(start="learned")  # from zeros all the way no layer learns
    return becomes(place, "form", old, new)


def _by_channel(draft: Draft, slot: Slot) -> bool:
    """Whether a share of each key channel is kept, which only a matrix or a vector has."""
    fact = draft.fact(slot)
    return bool(fact.retain) and draft.graph[fact.retain].shape == (*fact.heads, fact.inner)


def _argument_places(draft: Draft) -> list[Place]:
    """Forms that take any: not a matrix, nor a form of one's own."""
    return [p for p in draft.places("form") if FORMS.get(parse_call(str(p.said("form", "matrix")), NOWHERE).func)]


def _argument(draft: Draft, place: Place, rng: Random) -> str:
    old = str(place.said("form"))
    call = parse_call(old, NOWHERE)
    if call.args:  # positional ones are for the reader of the table of forms
        raise Unchanged
    given = {name: to_text(value) for name, value in call.kwargs}
    name = among(rng, [n for n in FORMS[call.func] if n != "residual" or _square(draft, place)])
    value = other(rng, ARGUMENTS[name], given.get(name, UNSAID.get(name, "")))
    alternatives = {"window": "segment", "segment": "window"}
    given.pop(alternatives.get(name, ""), None)
    given[name] = value
    for said, default in UNSAID.items():
        if given.get(said) == default:
            del given[said]
    new = f"{call.func}({', '.join(f'{n}={v}' for n, v in given.items())})" if given else call.func
    place.fields["form"] = to_text(parse_call(new, NOWHERE)).removesuffix("()")
    return becomes(place, "form", old, place.fields["form"])


def _square(draft: Draft, place: Place) -> bool:
    return all(draft.fact(slot).inner == draft.fact(slot).outer for slot in place.slots)


FORM = Kind("form", "a memory is another map", _form_places, _form)
ARGUMENT = Kind(
    "argument", "one argument of a form: depth, hidden, act, norm, window, ...", _argument_places, _argument
)
