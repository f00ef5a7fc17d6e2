"""Memories of a walk that are written alike: one constant, one register, one read of a query and one write for all.

titans = Boxes(TITANS_KEY, {name: s[f"titans.{name}"] for name in titans_boxes}, start={...})
for a, b in segments(T, (t, 8)):
    key_u, value_u = titans.read(u[:, a:b], titans_boxes)
    ...
    titans.write(k, v, rate, keep, phase=(t + a) % 8, learn="titans" in learn)
s |= {f"titans.{name}": register for name, register in titans.registers().items()}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.memories import clock_of, keys_and_values, log_retention, phase, rate, start_parts, tuple_
from codegen.names import function_name, local
from codegen.places import place_of
from codegen.written_forms import constant_of
from nlc.graph.flow import self_query
from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Recurrence
from nlc.graph.twins import twins

if TYPE_CHECKING:
    from codegen.block import Emitter
    from codegen.expressions import Scope


@dataclass(frozen=True)
class Together:
    """A group of twins.  level: place of their level; name: of the variable that holds them."""

    members: tuple[Memory, ...]
    level: str
    name: str

    @property
    def names(self) -> str:
        """The variable of the boxes' names."""
        return f"{self.name}_boxes"

    def open(self, emitter: Emitter) -> None:
        """Their registers as one."""
        emitter.scope.runtime.add("Boxes")
        emitter.say(f"{self.names} = {words(m.name for m in self.members)}")
        registers = f'{{name: s[f"{self.level}.{{name}}"] for name in {self.names}}}'
        arguments = [constant_of(emitter, self.members[0]), registers]
        if self.members[0].retain_to_start:
            arguments.append(f"start={self.starts(emitter)}")
        emitter.say(f"{self.name} = Boxes({', '.join(arguments)})")

    def starts(self, emitter: Emitter) -> str:
        """Where retention leads, for every box."""
        graph, like = emitter.graph, emitter.scope.like
        texts = [start_parts(graph, m, like) for m in self.members]
        boxes = list(zip(self.members, texts, strict=True))
        common = {text.replace(f'"{self.level}.{m.name}.', f'f"{self.level}.{{name}}.') for m, text in boxes}
        if len(common) == 1 and common != set(texts):
            return f"{{name: {common.pop()} for name in {self.names}}}"
        return "{" + ", ".join(f'"{m.name}": {text}' for m, text in boxes) + "}"

    def read(self, members: Sequence[Memory], query: str) -> str:
        """Text of the reads of some boxes with one query."""
        names = self.names if len(members) == len(self.members) else words(m.name for m in members)
        return f"{self.name}.read({query}, {names})"

    def write(self, emitter: Emitter, scope: Scope) -> str:
        """Text of the write of all."""
        graph, first = emitter.graph, self.members[0]
        k, v = keys_and_values(scope, first, self_query(graph, first))
        arguments = [k, v, rate(scope, first), log_retention(scope, first)]
        arguments += [f"phase={phase(clock_of(first, scope.position), first.chunk)}"] * (first.chunk > 1)
        arguments += ["own=False"] * (not emitter.own) + [f'learn="{graph[first.level].name}" in learn']
        return f"{self.name}.write({', '.join(arguments)})"

    def close(self, emitter: Emitter) -> None:
        """Each box's own register again."""
        emitter.say(
            f's |= {{f"{self.level}.{{name}}": register for name, register in {self.name}.registers().items()}}'
        )


def together(emitter: Emitter, recurrence: Recurrence) -> dict[str, Together]:
    """The group of each memory of the walk that has one."""
    groups = twins(emitter.graph, recurrence)
    found: dict[str, Together] = {}
    for members in groups:
        level = level_place(emitter.graph, members[0])
        base = local(function_name(level))
        names = (base, *(f"{base}_{function_name(m.name)}" for m in members), *(f"{base}{n}" for n in range(2, 100)))
        name = next(n for n in names if n not in emitter.owner and f"{n}_boxes" not in emitter.owner)
        group = Together(members, level, name)
        for text in (group.name, group.names):
            emitter.keep(text)
        found |= {m.id: group for m in members}
    return found


def level_place(graph: Graph, memory: Memory) -> str:
    """Where the memories of its level have their registers, each under its name."""
    return place_of(graph, memory).removesuffix(f".{memory.name}")


def words(names: Iterable[str]) -> str:
    return tuple_([f'"{name}"' for name in names])
