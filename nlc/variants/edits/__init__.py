"""Typed edits of an architecture: every mutant is a spec again, or is refused by the compiler before anything runs.

    document = document_of(nlc.load("hope"))         plain data, what it extends included
    mutant = mutated(document, Random(7))            one edit -> Mutant(document, edit, kind)
    child = crossed(document, other, Random(7))      one thing of another parent

The same document and the same numbers give the same mutant, in any process.  A kind of edit knows the places of a spec
that it applies to, and keeps names, shapes and what the fields mean together consistent as far as it knows; whether the
result is legal is for nlc.load and the passes to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from nlc.variants.edits.additions import LEVEL, MEMORY, READ
from nlc.variants.edits.crossing import CROSSES, Cross
from nlc.variants.edits.draft import Draft, Fields, document_of
from nlc.variants.edits.features import FEATURES
from nlc.variants.edits.forms import ARGUMENT, FORM
from nlc.variants.edits.kind import Kind, Unchanged
from nlc.variants.edits.levels import DUPLICATE, MERGE, REMOVE, REORDER
from nlc.variants.edits.mixers import MIXER
from nlc.variants.edits.periods import CHUNK, PERIOD
from nlc.variants.edits.retention import RETENTION, STATES
from nlc.variants.edits.rules import OBJECTIVE, RULE
from nlc.variants.edits.tidy import tidied

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        RULE, OBJECTIVE, PERIOD, CHUNK, FORM, ARGUMENT, RETENTION, STATES, FEATURES,
        REMOVE, DUPLICATE, MERGE, REORDER, LEVEL, MEMORY, READ, MIXER,
    )
}  # fmt: skip
WAYS: Mapping[str, Cross] = {way.name: way for way in CROSSES}

__all__ = ["KINDS", "WAYS", "Mutant", "crossed", "document_of", "mutated"]


@dataclass(frozen=True)
class Mutant:
    """An architecture made from another: its document, what was done in one sentence, and the kind of edit."""

    document: Fields
    edit: str
    kind: str


def mutated(document: Fields, rng: Random, kinds: Sequence[str] = tuple(KINDS)) -> Mutant:
    """The document with one edit, of a kind drawn first and at a place drawn then.

    Raises SpecError where the document itself is refused, ValueError where none of the kinds applies to it."""

    ways = {name: (KINDS[name].sites, KINDS[name].make) for name in kinds}
    return _drawn(Draft.of(document), rng, ways)


def crossed(a: Fields, b: Fields, rng: Random, ways: Sequence[str] = tuple(WAYS)) -> Mutant:
    """The first parent with one thing of the second.  Raises as `mutated` does."""
    other = Draft.of(b)

    def way(cross: Cross) -> tuple[Sites, Make]:
        return lambda draft: cross.sites(draft, other), lambda draft, at, rng: cross.make(draft, other, at, rng)

    return _drawn(Draft.of(a), rng, {name: way(WAYS[name]) for name in ways})


Sites = Callable[[Draft], Sequence[Any]]
Make = Callable[[Draft, Any, Random], str]


def _drawn(parent: Draft, rng: Random, ways: Mapping[str, tuple[Sites, Make]]) -> Mutant:
    """One of the kinds at one of its places; a place where nothing changes gives way to the next drawn."""
    left = list(ways)
    while left:
        name = left.pop(rng.randrange(len(left)))
        sites, make = ways[name]
        places = list(range(len(sites(parent))))
        while places:
            draft = parent.copy()
            try:
                edit = make(draft, sites(draft)[places.pop(rng.randrange(len(places)))], rng)
            except Unchanged:
                continue
            gone = tidied(draft)
            if draft.done() != parent.document:
                return Mutant(draft.document, edit + _gone(gone), name)
    raise ValueError(f"none of {', '.join(ways)} applies to '{parent.document.get('name')}'")


def _gone(names: Sequence[str]) -> str:
    listed = list(dict.fromkeys(names))
    return f"; without use, and gone with it: {', '.join(listed)}" if listed else ""
