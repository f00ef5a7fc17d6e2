"""A part of one architecture in another: statements of a block with the levels, sizes, forms and rules that they need.

    donor = Draft.of(...)
    parts(donor) -> its sublayers            the statements up to each new x, as they stand
    grafted(host, donor, part) -> Grafted    the same under names that are free there; the host has the rest already

Names of the frame (width, heads, head, vocab, context) mean the host's own; other sizes come along, those as wide as
the donor's model in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from nlc.equations import Expr
from nlc.operators import CALLABLE
from nlc.variants.edits.draft import Draft, Fields, expressions, mentioned, rename_fields
from nlc.variants.edits.kind import Unchanged
from nlc.variants.edits.program import Statement

FRAME = ("width", "heads", "head", "layers", "vocab", "context")


@dataclass(frozen=True)
class Part:
    """Statements of one kind of block, up to a new x, and the memories that they read."""

    kind: str
    first: int
    last: int  # the statement that assigns x
    memories: tuple[str, ...]

    def statements(self, draft: Draft) -> list[Statement]:
        return draft.programs[self.kind].statements[self.first : self.last + 1]


def parts(draft: Draft) -> list[Part]:
    """The sublayers of every kind of block; none of a bare program, nor of one whose blocks hand on other streams."""
    if draft.graph.bare:
        return []
    memories = {slot.name for slot in draft.slots()}
    found = []
    for kind, program in draft.programs.items():
        first = 0
        for last, statement in enumerate(program.statements):
            if statement.targets == ("x",):
                calls = [name for s in program.statements[first : last + 1] for name in s.calls if name in memories]
                found.append(Part(kind, first, last, tuple(dict.fromkeys(calls))))
                first = last + 1
    return found


def mixes(draft: Draft, part: Part) -> bool:
    """Whether a sublayer is a sequence mixer: it reads a memory of pairs of earlier tokens."""
    slots = {slot.name: slot for slot in draft.slots()}
    return any(slots[name].attends or slots[name].pairs for name in part.memories)


def closed(draft: Draft, part: Part) -> bool:
    """Whether a sublayer needs nothing of others but x, and no stream between blocks."""
    streams = set(draft.document.get("streams") or {})
    inside = part.statements(draft)
    assigned = {target for s in inside for target in s.targets}
    outside = {t for p in draft.programs.values() for s in p.statements for t in s.targets} - assigned
    needed = {name for s in inside for name in s.reads}
    for fields in brought(draft, part):
        needed |= {name for tree in expressions(fields) for name in mentioned(tree)}
    return not (needed | assigned) & streams and not (needed & outside)


def brought(draft: Draft, part: Part) -> list[Fields]:
    """The levels of the memories that a sublayer reads, and of those that their fields read, with these alone."""
    slots = {slot.name: slot for slot in draft.slots()}
    wanted = dict.fromkeys(part.memories)
    while True:
        more = dict(wanted)
        for name in wanted:
            slot = slots[name]
            for fields in (slot.own, slot.level):
                for tree in expressions({k: v for k, v in fields.items() if k not in ("form", "start")}):
                    more |= dict.fromkeys(sorted(mentioned(tree) & set(slots)))
            if slot.get("carry") in slots:
                more[slot.get("carry")] = None
        if list(more) == list(wanted):
            break
        wanted = more
    found = []
    for level in draft.inner():
        memories = {s.name: deepcopy(s.own) for s in draft.slots(level) if s.name in wanted}
        if memories:
            found.append({**{k: deepcopy(v) for k, v in level.items() if k != "memories"}, "memories": memories})
    return found


@dataclass(frozen=True)
class Grafted:
    """What the host is given."""

    statements: list[Statement]
    levels: list[Fields]


def grafted(host: Draft, donor: Draft, statements: Sequence[Statement], levels: Sequence[Fields]) -> Grafted:
    """Statements and levels under names that are free in the host, which is given the sizes, forms and rules they use.

    Raises Unchanged where the host has not the sizes that they count on."""
    used = {name for s in statements for name in (*s.reads, *s.calls)}
    used |= {name for fields in levels for tree in all_expressions(fields) for name in mentioned(tree)}
    if "heads" in used and "heads" not in host.graph.sizes:
        raise Unchanged
    other: dict[str, str] = {}
    memories = [name for level in levels for name in level["memories"]]
    targets = [target for s in statements for target in s.targets if target != "x"]
    for name in dict.fromkeys([*memories, *targets]):
        other[name] = host.free(name, list(other.values()))
    for section in ("forms", "rules"):
        _own(host, donor, section, used, other)
    _sizes(host, donor, used, other)
    other = {name: new for name, new in other.items() if new != name}
    made = []
    labels: list[str] = []
    for level in deepcopy(list(levels)):
        rename_fields(level, other)
        level["memories"] = {other.get(name, name): own for name, own in level["memories"].items()}
        for own in level["memories"].values():
            rename_fields(own, other)
        level["name"] = host.free(level["name"], [*labels, *other.values(), *memories])
        labels.append(level["name"])
        made.append(level)
    return Grafted([statement.under(other) for statement in statements], made)


def all_expressions(level: Fields) -> list[Expr]:
    return [tree for fields in (level, *level["memories"].values()) for tree in expressions(fields)]


def _own(host: Draft, donor: Draft, section: str, used: set[str], other: dict[str, str]) -> None:
    """Forms and rules of the donor's own, under names that mean them alone."""
    for name, said in (donor.document.get(section) or {}).items():
        if name not in used:
            continue
        there = host.document.setdefault(section, {})
        if there.get(name, said) != said:
            other[name] = host.free(name, list(other.values()))
        there[other.get(name, name)] = deepcopy(said)
        if section == "forms":
            used |= {axis for shape in said["state"].values() for axis in map(str, shape)}


def _sizes(host: Draft, donor: Draft, used: set[str], other: dict[str, str]) -> None:
    """Sizes of the donor's own: those as wide as its model in proportion to the host's."""
    ratio = host.graph.sizes["width"] / donor.graph.sizes["width"]
    for name, size in (donor.document.get("sizes") or {}).items():
        if name in FRAME or name not in used or name in CALLABLE:
            continue
        wanted = max(1, round(size * ratio)) if size >= donor.graph.sizes["width"] else size
        there = host.document["sizes"]
        if there.get(name, wanted) != wanted or (name not in there and name in host.taken()):
            other[name] = host.free(name, list(other.values()))
        there[other.get(name, name)] = wanted
