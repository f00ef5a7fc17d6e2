"""Which weights a level owns, or which decay, as short patterns over the names of the model's parameters."""

from __future__ import annotations

from fnmatch import fnmatchcase

from nlc.graph.graph import Graph
from nlc.graph.nodes import Weight


class Owned:
    """Every parameter of the model by its name in the spec, with its node."""

    def __init__(self, graph: Graph) -> None:
        weights = graph.of(Weight)
        self.nodes = {weight.path: weight for weight in weights if not weight.block}
        self.owners = {weight.path: weight.owner for weight in weights if not weight.block}
        for layer, block in enumerate(graph.stack):
            before = graph.stack[:layer].count(block)
            for weight in (w for w in weights if w.block == block):
                name = f"blocks.{layer}.{weight.path}"
                self.nodes[name] = weight
                self.owners[name] = weight.owners[before] if weight.owners else weight.owner

    def by(self, level: str) -> set[str]:
        """The names of the weights a level owns, by its id; "" for those that no level does."""
        return {name for name, owner in self.owners.items() if owner == level}

    def named(self, ids: set[str]) -> set[str]:
        """The names of these nodes, in every layer."""
        return {name for name, weight in self.nodes.items() if weight.id in ids}

    def decaying(self) -> set[str]:
        return {name for name, weight in self.nodes.items() if weight.decay}

    def patterns(self, wanted: set[str]) -> tuple[str, ...]:
        """Patterns that match exactly the wanted names: `*` stands for any layer, and for all of a memory's parts."""
        found: dict[str, None] = {}
        for name in self.nodes:
            if name in wanted and not any(fnmatchcase(name, pattern) for pattern in found):
                found[next(p for p in self.candidates(name) if self.matched(p) <= wanted)] = None
        return tuple(found)

    def matched(self, pattern: str) -> set[str]:
        return {name for name in self.nodes if fnmatchcase(name, pattern)}

    def candidates(self, name: str) -> list[str]:
        """Patterns for one weight, widest first: its memory in every layer, itself in every layer, itself."""
        if not name.startswith("blocks."):
            return [name]
        words = name.split(".")[2:]
        found = []
        for n in range(2, len(words)):
            wide = f"blocks.*.{'.'.join(words[:n])}.*"
            if (
                len({other.split(".", 2)[2] for other in self.matched(wide)}) > 1
            ):  # else it says less and hides the name
                found.append(wide)
        return [*found, f"blocks.*.{'.'.join(words)}", name]
