"""What no update of a rule could use, or no update could compute; each is refused where it is written.

sense(programs, tree, params, report)      after every name of the rule is known, and every shape fits
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence as SequenceOf
from typing import Any, Protocol

from nlc.constants import impossible, orderless
from nlc.diagnostics import Reporter
from nlc.equations import Assign, Call, Name, Number, Slice, names, walk
from nlc.source import Entry, Mapping, Sequence
from nlc.spec.remembered import Remembered


class Program(Protocol):
    """A level of the rule."""

    @property
    def every(self) -> int | str: ...

    @property
    def do(self) -> tuple[Assign, ...]: ...

    @property
    def memories(self) -> tuple[Remembered, ...]: ...


def sense(programs: SequenceOf[Program], tree: Mapping, params: MappingOf[str, Any], report: Reporter) -> None:
    """Every parameter and state is read, a state has one writer, delta and weight one meaning, and numbers exist."""
    lines = [line for program in programs for line in program.do]
    read = {name for line in lines for name in set(names(line.value)) - set(line.targets)}
    read |= {name for p in programs for m in p.memories for t in (m.keys, m.values, m.lr) for name in names(t)}
    read |= {program.every for program in programs if isinstance(program.every, str)}
    for name, entry in _entries(tree.get("params")):
        if name not in read:
            report.error("NLC0410", entry.at, f"the parameter '{name}' is never read", "leave it out")
    called = {part.func for line in lines for part in walk(line.value) if isinstance(part, Call)}
    for memory in (memory for program in programs for memory in program.memories):
        if memory.name not in called:
            report.error("NLC0410", memory.at, f"the memory '{memory.name}' is never read", "leave it out")
    own = "|".join([r"level\d+_grad", *(rf"{m.name}_(M|W_\w+)" for program in programs for m in program.memories)])
    owners: dict[str, int] = {}
    levels = tree.get("levels")
    assert isinstance(levels, Sequence)
    for index, (program, item) in enumerate(zip(programs, levels.items, strict=True)):
        written = {target for line in program.do for target in line.targets}
        for name, entry in _entries(item.get("state") if isinstance(item, Mapping) else None):
            if re.fullmatch(own, name):
                what = "a state that the rule has of its own: of a slower level's gradients, or of a memory"
                report.error("NLC0410", entry.at, f"'{name}' is {what}", "rename it")
            elif owners.setdefault(name, index) != index:
                report.error("NLC0410", entry.at, f"the state '{name}' is another level's, too", "one writer for each")
            elif name not in written:
                report.error("NLC0410", entry.at, f"the state '{name}' is never written: it stays 0", "leave it out")
            elif name not in read:
                report.error("NLC0410", entry.at, f"the state '{name}' is never read", "leave it out")
    _one_result(programs, report)
    for program in programs:
        for line in program.do:
            _numbers(line, params, report)


def _one_result(programs: SequenceOf[Program], report: Reporter) -> None:
    """Once a program has set the weight, a delta says nothing."""
    weight = False
    for program in programs:
        targets = [(name, at) for line in program.do for name, at in zip(line.targets, line.places, strict=True)]
        weight = weight or any(name == "weight" for name, _ in targets)
        for name, at in targets:
            if weight and name == "delta":
                report.error("NLC0410", at, "the rule sets weight, so that delta says nothing", "one of the two")


def _numbers(line: Assign, params: MappingOf[str, Any], report: Reporter) -> None:
    for at, message in impossible(line.value, {}):
        report.error("NLC0308", at, message)
    for at, message in orderless(line.value):
        report.error("NLC0505", at, message)
    for part in walk(line.value):
        match part:
            case Slice(value=Name(id=name), start=Number(value=index), single=True) if isinstance(
                listed := params.get(name), tuple
            ):
                if not (isinstance(index, int) and index < len(listed)):
                    last = f"{name}[0] to {name}[{len(listed) - 1}]" if listed else "it is empty"
                    report.error("NLC0410", part.at, f"the list '{name}' has no number {index}", last)


def _entries(tree: Any) -> Iterable[tuple[str, Entry]]:
    return tree.entries.items() if isinstance(tree, Mapping) else ()
