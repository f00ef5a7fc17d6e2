"""Edits of what is kept, and of which state is seen: retention, where the rest goes, reads, lifetimes, starts."""

from __future__ import annotations

from random import Random
from typing import Any

from nlc.variants.edits.draft import Draft, Place, Slot
from nlc.variants.edits.forms import form_of
from nlc.variants.edits.kind import Kind, among, becomes, other

NUMBERS = (0.5, 0.9, 0.99, 0.999)
BIASES = (2, 4, 6)
STATE = {
    "read": ("chunk", "before", "after"), "carry": ("sequence", "stream"), "meta": ("full", "first_order"),
    "tail": ("carry", "flush", "drop"), "start": ("learned", "learned(zeros)", "zeros"),
}  # fmt: skip


def _places(draft: Draft) -> list[Place]:
    return [p for p in draft.places("retain") if all(s.tokens for s in p.slots)]


def _retention(draft: Draft, place: Place, rng: Random) -> str:
    """The share that is kept, or where the rest goes, or the state that the gradient is taken at."""
    said = place.said("retain")
    if said is not None and str(said) not in ("1", "1.0") and rng.randrange(3) == 0:
        name, words = among(rng, [("retain_to", ("zero", "start")), ("grad_at", ("old", "kept"))])
        word = str(place.said(name, words[0]))
        place.fields[name] = other(rng, words, word)
        return becomes(place, name, word, place.fields[name])
    old = None if said is None else str(said)
    keeps_all = [1] if "retain" in place.fields or (old and not place.whole) else []
    new: Any = other(rng, [*keeps_all, *NUMBERS, *_learned(draft, place, rng)], said)
    if new == 1:
        if place.whole:
            del place.fields["retain"]
        else:
            place.slots[0].drop("retain")
        return f"{place.subject}: all of the state is kept; retain was {old}"
    place.fields["retain"] = new
    return becomes(place, "retain", old, new)


def _learned(draft: Draft, place: Place, rng: Random) -> list[str]:
    """Shares that slower levels learn: one number, one a head from a value of the block, one a key channel."""
    if any(slot.get("meta") == "none" for slot in place.slots):
        return []
    found = [f"learned({among(rng, (0.9, 0.99))})"]
    facts = [draft.fact(slot) for slot in place.slots]
    heads, inner = {fact.heads for fact in facts}, {fact.inner for fact in facts}
    values = [name for name, shape in draft.common(place.slots).items() if len(shape) == 1]
    if not values or len(heads) != 1:
        return found
    value, bias, axes = among(rng, values), among(rng, BIASES), next(iter(heads))
    count = draft.size(axes[0]) if axes else "1"
    if len(axes) < 2:
        found += [f"sigmoid(linear({value}, out={count}) + {bias})"] * 2
    if len(axes) == 1 and len(inner) == 1 and all(form_of(s).func in ("matrix", "vector") for s in place.slots):
        wide = f"{count} * {draft.size(next(iter(inner)))}"
        found.append(f"sigmoid(heads(linear({value}, out={wide}), {count}) + {bias})")
    return found


def _state_places(draft: Draft) -> list[tuple[str, Place]]:
    return [
        (name, place)
        for name in STATE
        for place in draft.places(name)
        if all(slot.tokens and _may(draft, slot, name) for slot in place.slots)
    ]


def _may(draft: Draft, slot: Slot, name: str) -> bool:
    if draft.nested(slot):
        return name in ("meta",)
    if slot.get("meta") == "none":
        return name in ("read", "tail", "carry")
    return True


def _state(draft: Draft, site: tuple[str, Place], rng: Random) -> str:
    name, place = site
    words = list(STATE[name])
    old = str(place.said(name, words[0]))
    if name == "read" and (draft.held() or any(slot.loss for slot in place.slots)):
        words.remove("after")  # a token's own error comes after its read
    if name == "start" and any(form_of(slot).func not in ("matrix", "vector") or slot.loss for slot in place.slots):
        words = [word for word in words if word == "learned"]
    new = other(rng, words, old)
    place.fields[name] = new
    return becomes(place, name, old, new)


RETENTION = Kind("retention", "another share of the state is kept, or the rest goes elsewhere", _places, _retention)
STATES = Kind("state", "which state is read, how long it lives, begins and is learned through", _state_places, _state)
