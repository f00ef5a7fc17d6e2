"""Every equation and expression of a spec, parsed: for checks of what is read and of numbers.

sections(spec)          (subject, path, fields, the level of a memory or None) of every level and memory
expressions(spec)       (subject, tree) of every assignment of a block, field and axis of an input
parsed(parse, ...)      a text's tree; None for no text, and for one that nlc.spec.check refuses
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nlc.diagnostics import SpecError
from nlc.equations import Assign, Expr, parse_block, parse_call, parse_expression
from nlc.source import Place
from nlc.spec.architecture import Fields, Level
from nlc.spec.view import Spec

Parse = Callable[[str, Place], Any]

_PARSERS: dict[str, Parse] = {
    **dict.fromkeys(("rate", "retain", "window", "weigh", "out", "objective", "keys", "values"), parse_expression),
    **dict.fromkeys(("form", "rule", "start"), parse_call),
}


def sections(spec: Spec) -> Iterator[tuple[str, str, Fields, Level | None]]:
    for level in spec.model.levels:
        path = f"levels.{level.name}"
        yield f"level '{level.name}'", path, level, None
        for name, memory in level.memories.items() if isinstance(level.memories, dict) else ():
            yield f"memory '{level.name}.{name}'", f"{path}.memories.{name}", memory, level


def expressions(spec: Spec) -> Iterator[tuple[str, Assign | Expr]]:
    model = spec.model
    programs = {"block": model.block} if model.block is not None else {}
    programs |= {f"blocks.{kind}": text for kind, text in model.blocks.items()}
    for path, program in programs.items():
        for statement in parsed(parse_block, program, spec.place(path)) or ():
            yield "", statement
    for subject, path, given, parse in _fields(spec):
        texts = {f"{path}.{i}": text for i, text in enumerate(given)} if isinstance(given, list) else {path: given}
        for where, text in texts.items():
            if (tree := parsed(parse, text, spec.place(where))) is not None:
                yield subject, tree


def _fields(spec: Spec) -> Iterator[tuple[str, str, list[str] | str | None, Parse]]:
    """(subject, path, text or texts, parser) of the axes of inputs and of fields that hold expressions or calls."""
    for section in ("inputs", "streams"):
        for name, shape in getattr(spec.model, section).items():
            yield "", f"{section}.{name}", shape, parse_expression
    for subject, path, fields, _ in sections(spec):
        for name, parse in _PARSERS.items():
            yield subject, f"{path}.{name}", getattr(fields, name), parse


def parsed(parse: Parse, text: str | None, place: Place) -> Any:
    try:
        return None if text is None else parse(text, place)
    except SpecError:
        return None
