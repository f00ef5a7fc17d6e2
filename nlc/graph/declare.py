"""What each memory says once levels have had their say: inheritance, and the split of levels of several frequencies.

    declare(spec, report) -> (Declared levels, Declared memories)

A field on a level holds for its memories; a memory's own field comes first.  A memory that names its own rule
inherits no rate. A level whose memories differ in period (or, where steps are counted, in rule) becomes one level for
each, named `level.memory`; each then evaluates the level's fields for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from nlc.diagnostics import Reporter, SpecError
from nlc.graph.nodes import Carry, Period, Selection, Unit
from nlc.source import Place, Position
from nlc.spec import Spec
from nlc.spec.architecture import Fields, Level
from nlc.spec.fields import CARRIES, parse_period, parse_select

AT_ONCE = Period(0, Unit.TOKEN)  # attention: its frequency is infinite
FIELDS = tuple(name for name in Fields.model_fields)
OUTER = ("every", "objective", "rule", "rate", "start", "carry")  # what a level that owns ordinary weights may say


@dataclass(frozen=True, slots=True)
class Said:
    """One field as it applies: what is written, where, and whether the memory says it itself."""

    value: Any
    at: Position
    place: Place
    own: bool


@dataclass(frozen=True, slots=True)
class DeclaredMemory:
    id: str  # level.memory
    name: str
    level: str  # name of the level after the split
    period: Period
    carry: Carry
    fields: dict[str, Said]
    at: Position
    holder: str = ""  # id of the slower memory whose updates end its life (`carry: slow`)

    def get(self, name: str, default: Any = None) -> Any:
        said = self.fields.get(name)
        return default if said is None else said.value

    def where(self, name: str) -> Position:
        said = self.fields.get(name)
        return self.at if said is None else said.at

    @property
    def attention(self) -> bool:
        return str(self.get("form", "")).strip().startswith("attention")

    @property
    def steps(self) -> bool:
        """Written by a level that counts optimiser steps (or slower)."""
        return self.carry is Carry.MODEL

    def base(self, name: str) -> str:
        """The path under which a field's values and weights go: the level's, or the memory's own."""
        return f"{self.id if self.fields[name].own else self.level}.{name}"


@dataclass(frozen=True, slots=True)
class DeclaredLevel:
    name: str
    period: Period
    at: Position
    fields: dict[str, Said]
    memories: tuple[DeclaredMemory, ...] = ()
    selects: tuple[Selection, ...] = ()


@dataclass
class Declaring:
    spec: Spec
    report: Reporter
    levels: list[DeclaredLevel] = field(default_factory=list)

    def level(self, level: Level) -> None:
        path = f"levels.{level.name}"
        shared = self.fields(level, path, own=False)
        if not isinstance(level.memories, dict):
            self.outer(level, path, shared)
            return
        if not level.memories:
            self.report.error(
                "NLC0904",
                self.spec.at(f"{path}.memories"),
                f"level '{level.name}' has no memories",
                "a mapping, rest or select(...)",
            )
        found = [m for name in level.memories if (m := self.memory(level, name, shared)) is not None]
        groups: dict[Any, list[DeclaredMemory]] = {}
        for memory in found:
            groups.setdefault(_frequency(memory), []).append(memory)
        for members in groups.values():
            name = level.name if len(groups) == 1 else f"{level.name}.{'_'.join(m.name for m in members)}"
            renamed = tuple(replace(m, level=name) for m in members)
            self.levels.append(DeclaredLevel(name, members[0].period, self.spec.at(path, key=True), shared, renamed))

    def fields(self, section: Fields, path: str, own: bool) -> dict[str, Said]:
        found = {}
        for name in FIELDS:
            value = getattr(section, name)
            if value is not None:
                found[name] = Said(value, self.spec.at(f"{path}.{name}"), self.spec.place(f"{path}.{name}"), own)
        return found

    def memory(self, level: Level, name: str, shared: dict[str, Said]) -> DeclaredMemory | None:
        assert isinstance(level.memories, dict)
        path = f"levels.{level.name}.memories.{name}"
        at = self.spec.at(path, key=True)
        own = self.fields(level.memories[name], path, own=True)
        if name in FIELDS:
            self.report.error(
                "NLC0504",
                at,
                f"a memory called '{name}', which is a field",
                f"the values of '{level.name}.{name}' could be either's",
            )
        inherited = {k: v for k, v in shared.items() if not (k == "rate" and "rule" in own)}
        fields = {**inherited, **own}
        attention = "form" in fields and str(fields["form"].value).strip().startswith("attention")
        if attention:
            period: Period | None = AT_ONCE
        elif "every" in fields:
            period = self.period(fields["every"])
        else:
            self.report.error(
                "NLC0203", at, f"memory '{level.name}.{name}' does not say how often it is written", "every: 1 token"
            )
            period = None
        if period is None:
            return None
        word = str(fields["carry"].value) if "carry" in fields else "sequence"
        carry = Carry(word) if word in CARRIES else Carry.SEQUENCE  # until the slower memory's own is known
        return DeclaredMemory(f"{level.name}.{name}", name, level.name, period, carry, fields, at)

    def period(self, said: Said) -> Period | None:
        try:
            return parse_period(str(said.value), said.place)
        except SpecError as error:
            self.report.take(error)
            return None

    def outer(self, level: Level, path: str, fields: dict[str, Said]) -> None:
        """A level that owns ordinary weights: memories: rest or select(...)."""
        written = level.memories if isinstance(level.memories, list) else [level.memories]
        selects = []
        for i, text in enumerate(written):
            here = f"{path}.memories" + (f".{i}" if isinstance(level.memories, list) else "")
            try:
                s = parse_select(str(text), self.spec.place(here))
                selects.append(Selection(patterns=s.patterns, rank=s.rank, excluded=s.exclude, at=self.spec.at(here)))
            except SpecError as error:
                self.report.take(error)
        for name, said in fields.items():
            if name == "start" and not str(said.value).lstrip().startswith("from"):
                message = f"level '{level.name}' owns ordinary weights, whose start their operators say"
                self.report.error("NLC0411", said.at, message, "it may begin from(checkpoint:path)")
            elif name not in OUTER or (name == "carry" and said.value != "model"):
                self.report.error(
                    "NLC0411",
                    said.at,
                    f"level '{level.name}' owns ordinary weights, so '{name}' says nothing",
                    f"it may say {', '.join(OUTER[:-1])}",
                )
        if "every" not in fields:
            self.report.error(
                "NLC0203",
                self.spec.at(path, key=True),
                f"level '{level.name}' does not say how often it updates",
                "every: 1 step",
            )
            return
        period = self.period(fields["every"])
        if period is not None:
            self.levels.append(
                DeclaredLevel(level.name, period, self.spec.at(path, key=True), fields, (), tuple(selects))
            )


def _frequency(memory: DeclaredMemory) -> Any:
    if memory.steps:
        return (
            memory.period,
            str(memory.get("rule", "gd")),
            str(memory.get("rate", "")),
            str(memory.get("objective", "l2")),
        )
    return memory.period


def declare(spec: Spec, report: Reporter) -> list[DeclaredLevel]:
    """The levels after the split, in the order written, with their memories."""
    declaring = Declaring(spec, report)
    for level in spec.model.levels:
        declaring.level(level)
    named: dict[str, DeclaredMemory] = {}
    for declared in declaring.levels:
        for memory in declared.memories:
            other = named.setdefault(memory.name, memory)
            if other is not memory:
                report.error(
                    "NLC0211",
                    memory.at,
                    f"two memories are called '{memory.name}': '{other.id}' and '{memory.id}'",
                    "the block calls them by this name",
                )
    return declaring.levels
