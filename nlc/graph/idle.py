"""Fields that say nothing about the memories they are said for, beside what else is said of them.

    idle(levels, report)

A field of a level is refused where none of its memories, as the spec has them, takes anything from it; a memory's own
always.  Defaults are
no fault, and fields of writing wait while `every` is never, so that one value turns a memory off and on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nlc.diagnostics import Reporter
from nlc.graph.declare import DeclaredLevel, DeclaredMemory


@dataclass(frozen=True, slots=True)
class Needs:
    """What a value of a field needs to mean anything for a memory."""

    value: Callable[[object], bool]
    met: Callable[[DeclaredMemory], bool]
    why: str
    hint: str


FIELDS = {
    "normalise_hidden": Needs(
        lambda value: value is True,
        lambda memory: str(memory.get("form", "")).split("(")[0].strip() not in ("matrix", "vector"),
        "a matrix or a vector has no hidden layer",
        "it is for mlp and swiglu",
    ),
    "retain_to": Needs(
        lambda value: value == "start",
        lambda memory: "retain" in memory.fields,
        "all of the state is kept",
        "say which share of it is: retain",
    ),
    "grad_at": Needs(
        lambda value: value == "kept",
        lambda memory: "retain" in memory.fields,
        "all of the state is kept",
        "say which share of it is: retain",
    ),
    "meta": Needs(
        lambda value: value != "full",
        lambda memory: not memory.steps,
        "the model carries it, and no token writes it",
        "it is for carry: sequence or stream",
    ),
}


def idle(levels: Sequence[DeclaredLevel], report: Reporter) -> None:
    written: dict[str, list[DeclaredMemory]] = {}  # by the level that the spec writes, before its split by frequency
    for memory in (m for level in levels for m in level.memories if not m.attention):
        written.setdefault(memory.id.split(".")[0], []).append(memory)
    for level, memories in written.items():
        for name, needs in FIELDS.items():
            _field(level, memories, name, needs, report)


def _field(level: str, memories: Sequence[DeclaredMemory], name: str, needs: Needs, report: Reporter) -> None:
    saying = [m for m in memories if name in m.fields and needs.value(m.fields[name].value)]
    shared = [m for m in saying if not m.fields[name].own]
    refused = [(f"memory '{m.id}'", m) for m in saying if m.fields[name].own and not needs.met(m)]
    if shared and not any(needs.met(m) for m in shared):
        refused.append((f"level '{level}'", shared[0]))
    for subject, memory in refused:
        message = f"{subject}: {needs.why}, so '{name}' says nothing"
        report.error("NLC0411", memory.where(name), message, needs.hint)
