"""An architecture at a size that the interpreter walks quickly: its structure, with small widths, periods and windows.

shrunk(document) -> document     sizes as wide as the model in proportion, periods and chunks in their order
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from nlc.period import Period, Unit
from nlc.spec.fields import parse_period
from nlc.variants.edits.program import NOWHERE

SIZES = {"width": 8, "heads": 2, "layers": 2, "vocab": 11, "context": 24}
PERIODS = (1, 2, 4, 8, 16)  # what the periods of tokens become, in their order: one holds the others whole
CHUNKS = {1: 1, 2: 2, 4: 3}  # periods in a chunk; of more, four
LEAST = 2  # of any other size
WORDS = re.compile(r"\b(window|segment|persistent)=(\d+)")

Spec = dict[str, Any]


def shrunk(document: Spec) -> Spec:
    small = deepcopy(document)
    chunks = [(fields, int(fields["chunk"]) // _count(fields, small)) for fields in places(small) if "chunk" in fields]
    _sizes(small)
    _periods(small)
    for fields, periods in chunks:
        fields["chunk"] = _count(fields, small) * CHUNKS.get(periods, 4)
    for fields in places(small):
        if "form" in fields:
            fields["form"] = WORDS.sub(lambda m: f"{m[1]}={min(int(m[2]), 5)}", str(fields["form"]))
    return small


def places(document: Spec) -> Iterator[Spec]:
    """The fields of every level and memory."""
    for level in document["levels"]:
        yield level
        if isinstance(level["memories"], dict):
            yield from (own for own in level["memories"].values() if own)


def _sizes(small: Spec) -> None:
    sizes, stack = small["sizes"], small.get("stack") or []
    ratio = SIZES["width"] / sizes["width"]
    counted = any("*" in layer for layer in stack)
    for name, size in sizes.items():
        if name == "layers":
            sizes[name] = size if counted else max(SIZES["layers"], len(stack))
        elif name in SIZES:
            sizes[name] = SIZES[name]
        elif name == "head":
            sizes[name] = SIZES["width"] // SIZES["heads"]
        else:
            sizes[name] = max(LEAST, round(size * ratio))
    small["run"] = {**(small.get("run") or {}), "batch": 2}


def _periods(small: Spec) -> None:
    said = [(fields, parse_period(str(fields["every"]), NOWHERE)) for fields in places(small) if "every" in fields]
    counts = sorted({period.count for _, period in said if period.unit is Unit.TOKEN})
    later = int(bool(counts) and counts[0] > 1)
    for fields, period in said:
        if period.unit is Unit.TOKEN:
            order = min(counts.index(period.count) + later, len(PERIODS) - 1)
            fields["every"] = str(Period(PERIODS[order], Unit.TOKEN))


def _count(fields: Spec, document: Spec) -> int:
    """The period of what says a chunk, in tokens; of a level, the longest of its memories."""
    for level in document["levels"]:
        memories = level["memories"] if isinstance(level["memories"], dict) else {}
        mine = [own for own in memories.values() if own]
        if level is fields or any(own is fields for own in mine):
            texts = [own.get("every") for own in (mine if level is fields else [fields])] + [level.get("every")]
            counts = [parse_period(str(text), NOWHERE).count for text in texts if text is not None]
            return max(counts, default=1)
    return 1
