"""After an edit: what nothing uses any more goes, and fields that would say nothing where they stand.

tidied(draft) -> what went, by name      values and memories; in the order in which they stood

A legal architecture has a use for everything with a weight, so what is left over is the edit's own doing.
"""

from __future__ import annotations

from nlc.graph.declare import OUTER
from nlc.graph.memories import NOT_ATTENTION
from nlc.spec.fields import CARRIES
from nlc.variants.edits.draft import Draft, Fields, Slot, expressions, mentioned
from nlc.variants.edits.forms import form_of

WAITS = ("chunk", "retain", "retain_to", "grad_at", "window", "weigh", "read", "tail", "meta")  # where no token writes
LEARNS = ("keys", "values", "rate", "retain", "weigh", "objective", "rule", "form")  # what a memory needs of others


def tidied(draft: Draft) -> list[str]:
    needed = _needed(draft)
    gone = []
    for kind, program in draft.programs.items():
        dead = [s for s in program.statements if not needed[kind] & set(s.targets)]
        gone += [target for s in dead for target in s.targets]
        program.statements = [s for s in program.statements if needed[kind] & set(s.targets)]
    everywhere = set().union(*needed.values())
    for slot in draft.slots():
        if slot.name not in everywhere:
            gone.append(slot.id)
            take_away(draft, slot)
    _sections(draft, everywhere)
    names = {slot.name for slot in draft.slots()}
    for slot in draft.slots():
        _fields(slot, names)
    for level in draft.inner():
        _shared(draft, level)
    for level in draft.outer():
        for name in [n for n in level if n not in (*OUTER, "name", "memories")]:
            del level[name]
    return gone


def _needed(draft: Draft) -> dict[str, set[str]]:
    """By kind of block: the names that what leaves it depends on, through values and through the writes of memories."""
    memories = {}
    for slot in draft.slots():
        said = {name: value for name in LEARNS if (value := slot.get(name)) is not None}
        memories[slot.name] = {name for tree in expressions(said) for name in mentioned(tree)} | {
            str(slot.get("carry"))
        }
    leaving = {"x", *(draft.document.get("streams") or {}), *(draft.document.get("outputs") or ())}
    found = {}
    for kind, program in draft.programs.items():
        needs = {name: set(others) for name, others in memories.items()}
        for statement in program.statements:
            for target in statement.targets:
                needs.setdefault(target, set()).update(statement.reads, statement.calls)
        mine, ahead = set[str](), set(leaving)
        while ahead:
            mine |= ahead
            ahead = {name for one in ahead for name in needs.get(one, ())} - mine
        found[kind] = mine
    return found


def take_away(draft: Draft, slot: Slot) -> None:
    """A memory out of its level, and a level without memories out of the spec; nested ones live as long as it did."""
    carry = slot.get("carry")
    for other in draft.slots():
        if other.get("carry") == slot.name:
            other.drop("carry")
            if carry is not None and carry != "model":
                other.say(carry=carry)
    del slot.level["memories"][slot.name]
    if not slot.level["memories"]:
        draft.levels[:] = [level for level in draft.levels if level is not slot.level]


def _sections(draft: Draft, needed: set[str]) -> None:
    """Inputs that nothing needs, and streams that nothing reads."""
    read = {name for p in draft.programs.values() for s in p.statements for name in s.reads}
    for one in (*draft.levels, *(slot.own for slot in draft.slots())):
        read |= {name for tree in expressions(one) for name in mentioned(tree)}
    for section, used in (("inputs", needed), ("streams", read)):
        for name in list(draft.document.get(section) or {}):
            if name not in used:
                del draft.document[section][name]
        if section in draft.document and not draft.document[section]:
            del draft.document[section]


def _fields(slot: Slot, names: set[str]) -> None:
    """What says nothing for a memory, beside what else is said of it."""
    idle: list[str] = []
    if slot.attends:
        idle += NOT_ATTENTION
    elif slot.steps:
        idle += WAITS
    if slot.loss or slot.steps:
        idle += ["keys", "values"]
    if "retain" not in slot.level and "retain" not in slot.own:
        idle += ["retain_to", "grad_at"]
    if str(slot.get("window", 1)) == "1":
        idle.append("weigh")
    for name in idle:
        slot.own.pop(name, None)
    if form_of(slot).func in ("matrix", "vector") and slot.own.get("normalise_hidden"):
        slot.drop("normalise_hidden")
    if form_of(slot).func != "matrix" and "identity" in str(slot.get("start", "")):
        slot.say(start="learned")
    if slot.get("start") == "random" and not slot.steps:
        slot.drop("start")
    if slot.get("carry", "sequence") not in {*CARRIES, *names}:
        slot.drop("carry")


def _shared(draft: Draft, level: Fields) -> None:
    """What a level says and none of its memories takes anything from."""
    slots = [slot for slot in draft.slots(level) if not slot.attends]
    if not slots:
        for name in NOT_ATTENTION:
            level.pop(name, None)
        return
    kept = any("retain" in slot.level or "retain" in slot.own for slot in slots)
    needs = {
        "retain_to": kept,
        "grad_at": kept,
        "normalise_hidden": any(form_of(slot).func not in ("matrix", "vector") for slot in slots),
        "meta": any(not slot.steps for slot in slots),
        "weigh": any(str(slot.get("window", 1)) != "1" for slot in slots),
        "keys": any(not slot.loss for slot in slots),
        "values": any(not slot.loss for slot in slots),
    }
    for name, needed in needs.items():
        if not needed:
            level.pop(name, None)
