"""Edits that take a sublayer from another architecture: the sequence mixer of a shipped one in place of one's own."""

from __future__ import annotations

from functools import cache
from random import Random

from nlc.spec import load, shipped
from nlc.variants.edits.draft import Draft, document_of, expressions, mentioned
from nlc.variants.edits.graft import Part, brought, closed, grafted, mixes, parts
from nlc.variants.edits.kind import Kind, Unchanged, among
from nlc.variants.edits.tidy import tidied


@cache
def shipped_draft(name: str) -> Draft:
    """A shipped architecture, to take parts from."""
    return Draft.of(document_of(load(name)))


@cache
def with_mixers() -> tuple[str, ...]:
    """The shipped architectures that have a sequence mixer to give."""
    return tuple(name for name in shipped() if mixers(shipped_draft(name)))


def mixers(draft: Draft) -> list[Part]:
    """The sublayers that mix tokens and stand alone: they need nothing of others but x."""
    return [part for part in parts(draft) if mixes(draft, part) and closed(draft, part)]


def replaceable(draft: Draft) -> list[Part]:
    """Sublayers of which nothing else needs anything but x."""
    return [part for part in parts(draft) if closed(draft, part) and not _needed(draft, part)]


def _needed(draft: Draft, part: Part) -> bool:
    inside = part.statements(draft)
    own = {target for s in inside for target in s.targets} - {"x"}
    others = [s for p in draft.programs.values() for s in p.statements if not any(s is i for i in inside)]
    going = {name for level in brought(draft, part) for name in level["memories"]}
    needed = {name for s in others for name in s.reads}
    called = {name for s in others for name in s.calls}
    for slot in draft.slots():
        if slot.name not in going or slot.name in called:
            for fields in (slot.own, slot.level):
                needed |= {name for tree in expressions(fields) for name in mentioned(tree)}
    return bool(own & needed)


def _sites(draft: Draft) -> list[Part]:
    return [part for part in replaceable(draft) if mixes(draft, part)]


def _swap(draft: Draft, part: Part, rng: Random) -> str:
    name = among(rng, [n for n in with_mixers() if n != draft.document["name"]])
    donor = shipped_draft(name)
    exchange(draft, part, donor, among(rng, mixers(donor)))
    return f"the sequence mixer of '{name}' takes the place of that of block '{part.kind}'"


def exchange(host: Draft, part: Part, donor: Draft, given: Part) -> None:
    """A sublayer of the donor's where one of the host's was; what only that one used goes first."""
    program = host.programs[part.kind]
    del program.statements[part.first : part.last + 1]
    before = len(program.statements)
    tidied(host)
    if len(program.statements) != before:
        raise Unchanged
    new = grafted(host, donor, given.statements(donor), brought(donor, given))
    program.statements[part.first : part.first] = new.statements
    at = next((i for i, one in enumerate(host.levels) if not isinstance(one["memories"], dict)), len(host.levels))
    host.levels[at:at] = new.levels


MIXER = Kind("mixer", "the sequence mixer is that of another shipped architecture", _sites, _swap)
