"""Architectures that edits made of HOPE: chains of them, each step from a legal one.

mutation(choose) -> Mutation       one to ten edits, the last of which may be refused
known(mutation)                    raises Disagreement unless a refusal says where
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from nlc.codes import CODES
from nlc.diagnostics import SpecError
from nlc.passes import build
from nlc.show import yaml_text
from nlc.spec import load, loads, shipped
from nlc.spec.fields import parse_period
from nlc.variants.edits import crossed, document_of, mutated
from nlc.variants.edits.program import NOWHERE
from tests.fuzz.agreement import Disagreement
from tests.fuzz.choices import Choose
from tests.fuzz.program import Feeding
from tests.fuzz.shrunk import places, shrunk

BASE = "hope"
LENGTHS = (1, 1, 1, 2, 3, 5, 10)  # of chains
CROSSED = 12  # edits in a hundred are crossings with a shipped architecture
Spec = dict[str, Any]


@dataclass(frozen=True)
class Mutation:
    """`edits`: (kind, sentence) of each step.  `error`: of the last one, where it is refused.

    `text`: at a small size of a legal one; as it was refused of another."""

    text: str
    edits: tuple[tuple[str, str], ...]
    error: SpecError | None
    feeding: Feeding


@cache
def document(name: str) -> Spec:
    return document_of(load(name))


def mutation(choose: Choose) -> Mutation:
    found, edits, error = document(BASE), [], None
    for _ in range(choose.among(LENGTHS)):
        rng = Random(choose.below(2**31))
        if choose.chance(CROSSED):
            parents = [n for n in shipped() if n != BASE and not document(n).get("inputs")]
            mutant = crossed(found, document(choose.among(parents)), rng)
        else:
            mutant = mutated(found, rng)
        found = mutant.document
        edits.append((mutant.kind, mutant.edit))
        try:
            build(loads(yaml_text(found), "mutant.yaml"), check=True)
        except SpecError as refusal:
            error = refusal
            break
    small = found if error else shrunk(found)
    return Mutation(yaml_text(small), tuple(edits), error, _feeding(choose, small))


def known(one: Mutation) -> str:
    """The code of the first error, once every one of them says where it is."""
    assert one.error is not None
    lines = one.text.count("\n")
    for fault in one.error.diagnostics:
        if fault.code not in CODES or not 0 < fault.at.line <= lines or fault.at.column < 1:
            raise Disagreement("place", f"an error that stands nowhere\n{one.error}")
    return one.error.diagnostics[0].code


def _feeding(choose: Choose, small: Spec) -> Feeding:
    """As many tokens as make the slowest level that counts them fire twice, cut somewhere; borders and padding."""
    periods = [parse_period(str(fields["every"]), NOWHERE) for fields in places(small) if "every" in fields]
    longest = max((p.count for p in periods if p.unit.value == "token"), default=1)
    length = max(choose.whole(11, 16), min(2 * longest + 1, 36))
    cuts = choose.some(range(1, length), least=1, most=4)
    pieces = tuple(b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True))
    batch = choose.among([1, 1, 2])
    marks = [(b, t) for b in range(batch) for t in range(length)]
    border = padding = ()  # type: tuple[tuple[int, int], ...]
    if choose.chance(25):
        border = tuple(choose.some(marks, least=1, most=2))
        padding = tuple(choose.some(marks[:-1], most=3))
    return Feeding(length, batch, pieces, border, padding, True, choose.whole(0, 999))
