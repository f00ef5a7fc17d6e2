"""Mutants as candidates: a parent's spec with one edit more, or with one thing of another parent."""

from __future__ import annotations

import random

from nlc.show import yaml_text
from nlc.spec import loads
from nlc.variants.edits import Mutant, crossed, document_of, mutated
from nlc.variants.proposals import Tried
from nlc.variants.variant import Candidate, written


def child(first: Tried, second: Tried | None, generation: int, rng: random.Random) -> Candidate:
    """A mutant of the first; with a second, a cross of both, or a mutant where nothing of it can be taken over."""
    parents = [first] if second is None else [first, second]
    name = f"a {'mutant' if second is None else 'cross'} of {' and '.join(one.trial for one in parents)}"
    document, *other = [document_of(loads(one.text or "", one.trial)) for one in parents]
    mutant: Mutant | None = None
    if other:
        try:
            mutant = crossed(document, other[0], rng)
        except ValueError:
            parents = parents[:1]
    mutant = mutant or mutated(document, rng)
    text = yaml_text(dict(mutant.document))
    edits = (*first.candidate.edits, {"edit": mutant.edit, "kind": mutant.kind})
    return Candidate(
        first.candidate.base, first.candidate.settings, written(text, name), edits,
        tuple(one.trial for one in parents), generation, text,
    )  # fmt: skip
