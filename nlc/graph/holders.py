"""Nested memories, `carry: slow`: the state of one begins again at each update of a slower one, which holds its start.

    nested(levels, report) -> levels      each such memory with its holder, and with the holder's lifetime
    with_starts(levels, memories, report) -> memories, and beside them the starts that slower ones hold

The start is a memory of the holder's level and is written by the holder's rule, from what the inner memory's reads
teach (NL, eq. 72, first order): gradients at the running state stand for those at the start.  Where the model carries
the holder, the start is ordinary weights of its level, and sequences end the state's life before its updates do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nlc.diagnostics import Reporter
from nlc.graph.declare import DeclaredLevel, DeclaredMemory
from nlc.graph.nodes import Carry, Memory, Unit
from nlc.spec.fields import CARRIES


def nested(levels: Sequence[DeclaredLevel], report: Reporter) -> list[DeclaredLevel]:
    """The levels, every `carry: <a memory>` resolved."""
    memories = {m.name: m for level in levels for m in level.memories}

    def resolved(memory: DeclaredMemory) -> DeclaredMemory:
        holder = memories.get(_named(memory))
        if (
            holder is None
            or _ring(memory, memories, report)
            or _refused(memory, holder, report)
            or Unit.NEVER in (memory.period.unit, holder.period.unit)
        ):
            return memory
        return replace(memory, holder=holder.id, carry=_lifetime(holder, memories))

    return [replace(level, memories=tuple(resolved(m) for m in level.memories)) for level in levels]


def _named(memory: DeclaredMemory) -> str:
    """The memory that `carry` names, "" for a lifetime of its own."""
    word = str(memory.get("carry", ""))
    return "" if word in CARRIES else word


def _lifetime(memory: DeclaredMemory, memories: dict[str, DeclaredMemory]) -> Carry:
    """Of the state in which a memory and its holders live."""
    seen = set[str]()
    while (name := _named(memory)) and name in memories and name not in seen:
        seen.add(name)
        memory = memories[name]
    return Carry.SEQUENCE if memory.steps else memory.carry


def _ring(memory: DeclaredMemory, memories: dict[str, DeclaredMemory], report: Reporter) -> bool:
    """Whether memories hold each other's starts in a ring, which is said of the first of them."""
    ring = [memory.name]
    while (name := _named(memories[ring[-1]])) in memories and name not in ring:
        ring.append(name)
    if name != memory.name or len(ring) == 1:
        return False
    if memory.name == min(ring):
        said = " -> ".join([*ring, memory.name])
        report.error(
            "NLC0411", memory.where("carry"), f"memories hold each other's starts: {said}", "the slowest holds"
        )
    return True


def _refused(memory: DeclaredMemory, holder: DeclaredMemory, report: Reporter) -> bool:
    """Whether the memory cannot be nested in the other, which is then said."""
    at, subject = memory.where("carry"), f"memory '{memory.id}'"
    before = len(report.found)
    if holder.id == memory.id:
        report.error("NLC0411", at, f"{subject} would begin again at its own updates", "name a slower memory")
    elif memory.attention or holder.attention:
        keeps = memory if memory.attention else holder
        report.error("NLC0411", at, f"{subject}: attention ('{keeps.id}') keeps pairs, and holds no start")
    elif Unit.NEVER not in (memory.period.unit, holder.period.unit):
        for one in (memory, holder):
            if str(one.get("objective", "l2")) != "loss":
                message = f"{subject}: nested memories with objective {one.get('objective', 'l2')} ('{one.id}') are"
                report.error("NLC1001", at, f"{message} not supported yet", "objective: loss at both")
                break
            if one.get("tail", "carry") != "carry":
                message = f"{subject}: nested memories with tail: {one.get('tail')} ('{one.id}') are not supported yet"
                report.error("NLC1001", at, message, "tail: carry")
                break
    return len(report.found) > before


def with_starts(levels: Sequence[DeclaredLevel], memories: Sequence[Memory], report: Reporter) -> list[Memory]:
    """The memories, nested ones with their holder; after them the starts that it holds, as memories of its level."""
    holders = {m.id: m.holder for level in levels for m in level.memories if m.holder}
    found = {(m.block, _declared(m)): m for m in memories}
    made = {_declared(m) for m in memories}
    carried = {_declared(m): m for m in memories if m.carry is Carry.MODEL}
    done: list[Memory] = []
    starts: list[Memory] = []
    for memory in memories:
        inner, id, held = memory, _declared(memory), list[Memory]()
        while id in holders:
            holder = found.get((memory.block, holders[id])) or carried.get(holders[id])
            if holder is None and holders[id] not in made:
                break  # it is refused already
            if holder is None:
                at = dict(memory.said).get("carry", memory.at)
                message = f"memory '{memory.id}' and its holder '{holders[id]}' are read in different kinds of block"
                report.error("NLC0411", at, message, "read both where one of them is read")
                break
            start = _start(inner, memory, holder)
            held.append(replace(inner, nest=start.id if start else holder.id))
            if start is None or len(held) > len(
                holders
            ):  # the model carries it; or a circle, for pass clocks to refuse
                break
            inner, id = start, holders[id]
        else:
            held.append(inner)
        done.append(held[0] if held else memory)
        starts += held[1:]
    return [*done, *starts]


def _declared(memory: Memory) -> str:
    """The id that the spec gives it, without a kind of block."""
    return memory.id.removeprefix(f"{memory.block}/")


def _start(inner: Memory, read: Memory, holder: Memory) -> Memory | None:
    """The start of `inner` as a memory that tokens write when they write its holder."""
    if holder.carry is Carry.MODEL:
        return None
    return replace(
        inner, id=f"{inner.id}.start", name=f"{inner.name}.start", level=holder.level, rule=holder.rule,
        rate=holder.rate, retain=holder.retain, retain_to_start=holder.retain_to_start, objective=holder.objective,
        period=holder.period, chunk=1, meta=holder.meta, said=holder.said, of=read.id,
    )  # fmt: skip
