"""Edits of the levels themselves: one more, one less, the same twice, two as one, another order."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from random import Random

from nlc.equations import Call, Expr, parse_expression, to_text
from nlc.graph.nodes import Shape, Unit
from nlc.spec.resolve import DEFAULTS
from nlc.trees import Binary
from nlc.variants.edits.draft import EXPRESSIONS, Draft, Fields, Slot, rename_fields
from nlc.variants.edits.kind import Kind
from nlc.variants.edits.periods import whole_chunks
from nlc.variants.edits.program import NOWHERE, mapped, renamed
from nlc.variants.edits.rules import asks_for_pairs
from nlc.variants.edits.tidy import take_away

MOVED = ("form", "objective", "keys", "values", "out", "start", "read", "normalise_hidden")  # with a memory, to a level


# ---- one less ------------------------------------------------------------------------------------------------------


def _removable(draft: Draft) -> list[list[Slot]]:
    """Whole levels, and single memories of levels that keep others."""
    levels = [draft.slots(level) for level in draft.inner()]
    found = [slots for slots in levels if len(levels) > 1 and slots]
    return found + [[slot] for slots in levels if len(slots) > 1 for slot in slots]


def _remove(draft: Draft, slots: list[Slot], rng: Random) -> str:
    whole = len(slots) == len(slots[0].level["memories"])
    for slot in slots:
        _bypass(draft, slot)
    for slot in slots:
        take_away(draft, slot)
    if whole:
        return f"level '{slots[0].level['name']}' is removed; what it was read with takes the place of what it gave"
    return f"memory '{slots[0].id}' is removed; what it was read with takes the place of what it gave"


def _bypass(draft: Draft, slot: Slot) -> None:
    """A read becomes its query, or a projection of it where what was read is wider or narrower."""
    fact = draft.fact(slot)
    width = draft.size(fact.outer)

    def query(part: Expr) -> Expr | None:
        if not isinstance(part, Call) or part.func != slot.name:
            return None
        if fact.inner == fact.outer:
            return part.args[0]
        return parse_expression(f"linear({to_text(part.args[0])}, out={width})", NOWHERE)

    for program in draft.programs.values():
        program.change(query)
    for fields in (*draft.levels, *(s.own for s in draft.slots() if s.name != slot.name)):
        for name in EXPRESSIONS:
            if name not in fields:
                continue
            texts = fields[name] if isinstance(fields[name], list) else [fields[name]]
            trees = [parse_expression(str(text), NOWHERE) for text in texts]
            made = [new for tree in trees if (new := mapped(tree, query)) is not tree]
            if made:
                new_texts = [to_text(mapped(tree, query)) for tree in trees]
                fields[name] = new_texts if isinstance(fields[name], list) else new_texts[0]


# ---- the same twice ------------------------------------------------------------------------------------------------


def _copied(draft: Draft) -> list[list[Slot]]:
    return [draft.slots(level) for level in draft.inner()] + [
        [slot] for level in draft.inner() if len(level["memories"]) > 1 for slot in draft.slots(level)
    ]


def _duplicate(draft: Draft, slots: list[Slot], rng: Random) -> str:
    level, whole = slots[0].level, len(slots) == len(slots[0].level["memories"])
    other: dict[str, str] = {}
    for slot in slots:
        other[slot.name] = draft.free(slot.name, list(other.values()))
    copies = {other[slot.name]: deepcopy(slot.own) for slot in slots}
    for own in copies.values():
        rename_fields(own, other)
    for slot in slots:
        _twice(draft, slot, other[slot.name])
    if not whole:
        name = next(iter(copies))
        level["memories"] |= copies
        return f"memory '{slots[0].id}' is there twice; the second is '{level['name']}.{name}'"
    made = {key: deepcopy(value) for key, value in level.items() if key != "memories"}
    rename_fields(made, other)
    made |= {"name": draft.free(level["name"], list(copies)), "memories": copies}
    draft.levels.insert(_index(draft, level) + 1, made)
    return f"level '{level['name']}' is there twice; the second is '{made['name']}'"


def _index(draft: Draft, level: Fields) -> int:
    return next(i for i, one in enumerate(draft.levels) if one is level)


def _twice(draft: Draft, slot: Slot, other: str) -> None:
    """Where the block reads a memory, it reads the other with what that gives, or adds both where they give less."""
    fact = draft.fact(slot)
    chained = fact.inner == fact.outer and not slot.pairs and not slot.attends

    def both(part: Expr) -> Expr | None:
        if not isinstance(part, Call) or part.func != slot.name:
            return None
        if chained:
            return Call(other, (part, *part.args[1:]), part.kwargs, NOWHERE)
        return Binary("+", part, renamed(part, {slot.name: other}), NOWHERE)

    for kind in draft.kinds([slot]):
        draft.programs[kind].change(both)


# ---- two as one ----------------------------------------------------------------------------------------------------


def _merging(draft: Draft) -> list[tuple[Fields, Fields] | tuple[Slot, Slot]]:
    """Levels that tokens write, the second able to share what the first says; memories of one level, alike in shape."""
    levels = [lv for lv in draft.inner() if all(s.tokens and not draft.nested(s) for s in draft.slots(lv))]
    found: list[tuple[Fields, Fields] | tuple[Slot, Slot]] = []
    found += [(a, b) for a in levels for b in levels if a is not b and _shares(draft, a, draft.slots(b))]
    for level in draft.inner():
        slots = draft.slots(level)
        found += [
            (a, b) for i, a in enumerate(slots) for b in slots[i + 1 :] if _alike(draft, a, b) and a.steps == b.steps
        ]
    return found


def _alike(draft: Draft, a: Slot, b: Slot) -> bool:
    one, two = draft.fact(a), draft.fact(b)
    where = set(draft.kinds([b])) <= set(draft.kinds([a]))
    return where and (one.heads, one.inner, one.outer) == (two.heads, two.inner, two.outer)


def _shares(draft: Draft, level: Fields, slots: Sequence[Slot]) -> bool:
    """Whether the rate and retention of a level fit other memories: in shape, in the block, in what its rule sees."""
    given = draft.slots(level)
    if any(slot.get("meta", "full") != "full" for slot in given) and any(slot.pairs for slot in slots):
        return False  # what their pairs are made with would learn nothing
    if any("every" in s.own for s in given) and "every" not in level and len({str(s.get("every")) for s in given}) > 1:
        return False
    facts = [draft.fact(s) for s in given]
    shapes = {draft.graph[id].shape for f in facts for id in (f.rate, f.retain) if id}
    if not all(_fits(shape, draft.fact(s).heads) for shape in shapes for s in slots):
        return False
    same = draft.kinds(given)
    return set(draft.kinds(slots)) <= set(same) and not any(asks_for_pairs(draft, s) for s in given)


def _fits(shape: Shape | None, heads: Shape) -> bool:
    return shape is not None and shape == heads[: len(shape)]


def _merge(draft: Draft, site: tuple[Fields, Fields] | tuple[Slot, Slot], rng: Random) -> str:
    first, second = site
    if isinstance(first, Slot) and isinstance(second, Slot):
        return _one(draft, first, second)
    assert isinstance(first, dict) and isinstance(second, dict)
    every = str(draft.slots(first)[0].get("every", "1 token"))
    draft.push(first, "keys", "values", "objective", "form", "out")
    draft.push(second, *MOVED)
    for slot in draft.slots(second):
        own = {name: slot.own[name] for name in MOVED if name in slot.own}
        for name in MOVED:  # what the first level says for its own, and this memory has by default
            if name not in own and name in first and name in DEFAULTS:
                own[name] = DEFAULTS[name]
        first["memories"][slot.name] = own
    first.setdefault("every", every)
    draft.levels[:] = [level for level in draft.levels if level is not second]
    names = f"'{first['name']}' and '{second['name']}'"
    return f"levels {names} are one: its memories share period, rule, rate and retention of '{first['name']}'"


def _one(draft: Draft, first: Slot, second: Slot) -> str:
    other = {second.name: first.name}
    for program in draft.programs.values():
        program.statements = [statement.under(other) for statement in program.statements]
    take_away(draft, second)
    for fields in (*draft.levels, *(s.own for s in draft.slots())):
        rename_fields(fields, other)
    return f"memories '{first.id}' and '{second.id}' are one, read where both were"


# ---- another order -------------------------------------------------------------------------------------------------


def _orders(draft: Draft) -> list[tuple[str, Slot, Slot]]:
    """Pairs of memories with other periods, which they may exchange; and pairs alike in shape, in one block."""
    slots = [s for s in draft.slots() if not s.attends]
    pairs = [(a, b) for i, a in enumerate(slots) for b in slots[i + 1 :]]
    free = [(a, b) for a, b in pairs if not any(draft.nested(s) for s in (a, b))]
    clocks = [("periods", a, b) for a, b in free if _both(a, b) and not any(_alone(draft, s) for s in (a, b))]
    places = [("places", a, b) for a, b in pairs if draft.kinds([a]) == draft.kinds([b]) and _alike(draft, a, b)]
    return clocks + [p for p in places if all(draft.read(s) for s in p[1:])]


def _both(a: Slot, b: Slot) -> bool:
    one, two = a.period, b.period
    alike = (a.steps == b.steps) and (a.tokens == b.tokens)
    return alike and one.unit is two.unit and one.unit is not Unit.NEVER and one.count != two.count


def _alone(draft: Draft, slot: Slot) -> bool:
    return slot.tokens and (asks_for_pairs(draft, slot) or str(slot.get("window", 1)) != "1")


def _reorder(draft: Draft, site: tuple[str, Slot, Slot], rng: Random) -> str:
    what, a, b = site
    if what == "periods":
        one, two = str(a.get("every")), str(b.get("every"))
        a.say(every=two)
        b.say(every=one)
        for slot in (a, b):
            whole_chunks(slot)
        return f"memories '{a.id}' and '{b.id}' exchange their periods, {one} and {two}"
    other = {a.name: b.name, b.name: a.name}
    for kind in draft.kinds([a]):
        program = draft.programs[kind]
        program.statements = [s.valued(renamed(s.value, other)) for s in program.statements]
    return f"memories '{a.id}' and '{b.id}' exchange their places in the flow of a token"


REMOVE = Kind("remove", "a level or a memory goes", _removable, _remove)
DUPLICATE = Kind("duplicate", "a level or a memory is there twice", _copied, _duplicate)
MERGE = Kind("merge", "two levels, or two memories, are one", _merging, _merge)
REORDER = Kind("reorder", "two memories exchange their periods, or their places in the flow", _orders, _reorder)
