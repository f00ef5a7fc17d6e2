"""A loaded spec: the typed model, and where each of its values stands and came from.

    spec.model                                   Architecture, values as written
    spec.at("levels.titans.rate")                Position of the value; key=True: of the key
    spec.place("block")                          Place: (offset, length) in the value's text -> Position, for parsers
    spec.origin("levels.titans.memories.key.rate")    where the value came from, in words
    spec.said("levels.titans.chunk")             whether the spec says it
    spec.resolved()                              everything filled in, as plain data: a spec again

Paths name levels and memories by name: `levels.cms.memories.fast.every`, `sizes.width`, `run.batch`, `inputs.k.0`.
What a memory does not say is looked up on its level; what nobody says stands where its nearest container does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nlc.source import Mapping, Place, Position, Scalar, Sequence, Tree, place_from
from nlc.spec.architecture import Architecture
from nlc.spec.extends import name_of
from nlc.spec.rulebook import RuleBook


@dataclass(frozen=True)
class Spec:
    model: Architecture
    source: str  # the file, as the user named it
    tree: Mapping = field(repr=False)
    rules: RuleBook = field(default_factory=RuleBook, repr=False, compare=False)  # that its levels may name

    def said(self, path: str) -> bool:
        """Whether the spec, what it extends or --set says this; a memory's field also when its level does."""
        return self._find(path)[2] == 0

    def at(self, path: str, key: bool = False) -> Position:
        """Where a value stands (of a mapping or a list: its key)."""
        node, key_at, _ = self._find(path)
        return node.at if isinstance(node, Scalar) and not key else key_at

    def place(self, path: str) -> Place:
        """Where each piece of a value's text stands."""
        node = self._find(path)[0]
        return node.place if isinstance(node, Scalar) else place_from(node.at, "")

    def node(self, path: str) -> Tree | None:
        """The tree of a value as it is written; None where the spec does not say it."""
        node, _, missing = self._find(path)
        return None if missing else node

    def origin(self, path: str) -> str:
        """`specs/mine.yaml:14`, `--set`, or `default`; what a memory takes from its level says so."""
        from nlc.spec.resolve import origin

        return origin(self, path)

    def resolved(self) -> dict[str, Any]:
        """The whole spec, defaults and inheritance filled in.  It loads again, meaning the same."""
        from nlc.spec.resolve import resolved

        return resolved(self)

    def _find(self, path: str) -> tuple[Tree, Position, int]:
        """The node of a path, its key's position, and how many last parts of the path are not in the tree."""
        parts = path.split(".") if path else []
        found = self._descend(parts)
        if found[2] and len(parts) > 4 and parts[0] == "levels" and parts[2] == "memories":
            inherited = self._descend([*parts[:2], *parts[4:]])
            if inherited[2] == 0:
                return inherited
        return found

    def _descend(self, parts: list[str]) -> tuple[Tree, Position, int]:
        node: Tree = self.tree
        key_at = node.at
        for index, part in enumerate(parts):
            match node:
                case Mapping(entries, _) if part in entries:
                    key_at, node = entries[part].at, entries[part].value
                case Sequence(items, _) if (item := _item(items, part)) is not None:
                    node = item
                    name = item.get("name") if isinstance(item, Mapping) else None
                    key_at = name.at if name else item.at
                case _:
                    return node, key_at, len(parts) - index
        return node, key_at, 0


def _item(items: tuple[Tree, ...], part: str) -> Tree | None:
    """The item of that name, or at that place."""
    for item in items:
        if name_of(item) == part:
            return item
    return items[int(part)] if part.isdigit() and int(part) < len(items) else None
