"""Edits of when a memory is written: its period, and the chunk whose first state gradients and reads look at."""

from __future__ import annotations

from random import Random

from nlc.graph.nodes import Unit
from nlc.period import Period
from nlc.spec.fields import CARRIES, parse_period
from nlc.variants.edits.draft import Draft, Place, Slot
from nlc.variants.edits.kind import Kind, becomes, other
from nlc.variants.edits.program import NOWHERE
from nlc.variants.edits.rules import asks_for_pairs

STEPS = (1, 2, 3, 4, 8)
CHUNKS = (1, 2, 4, 16, 64)


def _period_places(draft: Draft) -> list[Place]:
    """What counts tokens, alone in what its rule sees or not, and what counts steps."""
    places = [p for p in draft.places("every") if all(_may(draft, slot) for slot in p.slots)]
    outer = [Place(f"level '{level['name']}'", level, (), True) for level in draft.outer()]
    return [p for p in [*places, *outer] if _unit(p) is not None]


def _may(draft: Draft, slot: Slot) -> bool:
    if slot.attends or (slot.tokens and (asks_for_pairs(draft, slot) or str(slot.get("window", 1)) != "1")):
        return False
    return slot.tokens or slot.steps


def _unit(place: Place) -> Unit | None:
    """Tokens or steps, where all of the place counts one of them."""
    texts = {str(slot.get("every", "")) for slot in place.slots} or {str(place.fields.get("every", ""))}
    if "" in texts:
        return None
    units = {parse_period(text, NOWHERE).unit for text in texts}
    return next(iter(units)) if len(units) == 1 and units <= {Unit.TOKEN, Unit.STEP} else None


def _period(draft: Draft, place: Place, rng: Random) -> str:
    unit = _unit(place)
    old = str(place.said("every"))
    if unit is Unit.STEP:
        counts = list(STEPS)
    else:
        context = draft.graph.sizes.get("context", 64)
        counts = [n for n in (2**i for i in range(20)) if n <= max(context // 2, 1)]
        counts = [n for n in counts if all(_lives(draft, slot, n) for slot in place.slots)]
    new = str(Period(other(rng, counts, parse_period(old, NOWHERE).count), unit or Unit.TOKEN))
    place.fields["every"] = new
    for slot in place.slots:
        whole_chunks(slot)
    return becomes(place, "every", old, new)


def whole_chunks(slot: Slot) -> None:
    """A chunk is a whole number of periods."""
    chunk, count = int(slot.get("chunk", 1)), slot.period.count
    if slot.tokens and chunk > 1 and chunk % count:
        slot.say(chunk=count * max(1, round(chunk / count)))


def _lives(draft: Draft, slot: Slot, count: int) -> bool:
    """Whether a nested memory, and those nested in it, still live a whole number of periods."""
    slots = {s.name: s for s in draft.slots()}
    holder = slots.get(str(slot.get("carry"))) if slot.get("carry") not in CARRIES else None
    below = [s for s in slots.values() if s.get("carry") == slot.name]
    if holder is not None and holder.tokens and (holder.period.count <= count or holder.period.count % count):
        return False
    return all(count > s.period.count and count % s.period.count == 0 for s in below)


def _chunk_places(draft: Draft) -> list[Place]:
    return [p for p in draft.places("chunk") if all(s.tokens and not draft.nested(s) for s in p.slots)]


def _chunk(draft: Draft, place: Place, rng: Random) -> str:
    old = int(place.said("chunk", 1))
    context = draft.graph.sizes.get("context", 64)
    periods = {slot.period.count for slot in place.slots if slot.period.unit is Unit.TOKEN}
    most = max(periods, default=1)
    counts = [n * most for n in CHUNKS if n * most <= context and all(n * most % p == 0 for p in periods)]
    new = other(rng, counts, old)
    place.fields["chunk"] = new
    return becomes(place, "chunk", old, new)


PERIOD = Kind("period", "a level or a memory is written more often, or less", _period_places, _period)
CHUNK = Kind("chunk", "gradients and reads look at the first state of longer or shorter chunks", _chunk_places, _chunk)
