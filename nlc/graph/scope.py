"""Names inside one block: which value a name means at each line, and the ids and weight names that follow from it.

An id is the assigned name, `:1`, `:2` for later assignments of it, and `/operator` for the values inside an expression:
`h`, `x:1`, `x:1/linear_2`, `titans.rate/linear`.  With several kinds of block, the kind stands in front: `mamba/h`.
A weight's path is `<assigned name>.<operator>`, counted over all assignments of that name: `x.linear`, `x.linear_2`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nlc.equations import Assign, Name


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands: the id its value gets, the path its weights get, the field it belongs to."""

    id: str
    path: str
    name: str = ""
    version: int = 0
    field: str = ""


@dataclass
class Scope:
    """The names of one block.  `entering` are the values that exist before the first line."""

    prefix: str
    entering: tuple[str, ...]
    statements: Sequence[Assign]
    current: dict[str, str] = field(default_factory=dict)  # name -> id of its value now
    aliases: dict[str, str] = field(
        default_factory=dict
    )  # id promised to a name -> id of the value it turned out to be
    paths: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.total = Counter(target for s in self.statements for target in s.targets)
        self.given: Counter[str] = Counter()
        for name in self.entering:
            self.current[name] = self.prefix + name
            self.total[name] += 1
            self.given[name] += 1

    def names(self) -> tuple[str, ...]:
        return tuple(self.total)

    def place(self, target: str) -> Place:
        """Where the next assignment of a name stands."""
        version = self.given[target]
        self.given[target] += 1
        return Place(self.promised(target, version), target, target, version)

    def promised(self, name: str, version: int = 0) -> str:
        return f"{self.prefix}{name}" + (f":{version}" if version else "")

    def assign(self, target: str, promised: str, value: str) -> None:
        self.current[target] = value
        if value != promised:
            self.aliases[promised] = value

    def lookup(self, name: str) -> str | None:
        """The value a name means here: its latest assignment, or the only one to come; None without either."""
        if name in self.current:
            return self.current[name]
        return self.promised(name) if self.total[name] == 1 else None

    def resolve(self, id: str) -> str:
        """The value behind a promised id: `q = k` gives q the value of k."""
        seen = {id}
        while id in self.aliases:
            id = self.aliases[id]
            if id in seen:
                return id
            seen.add(id)
        return id

    def inner(self, place: Place, operator: str) -> str:
        """An id for a value inside an expression."""
        return self.numbered(self.ids, f"{place.id}/{operator}")

    def weight(self, place: Place, operator: str) -> str:
        """The path of an operator's weight, in the order the operators are written, the outermost first."""
        return self.numbered(self.paths, f"{place.path}.{operator}")

    @staticmethod
    def numbered(counter: Counter[str], base: str) -> str:
        counter[base] += 1
        return base if counter[base] == 1 else f"{base}_{counter[base]}"


def alias(statement: Assign) -> str | None:
    """The name on the right of `q = k`."""
    return statement.value.id if isinstance(statement.value, Name) else None
