"""Where two specs differ: keys of the resolved specs, addressed as `--set` addresses them; graph; cost."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nlc.explain import explain, is_attention
from nlc.graph.draw_levels import said_period
from nlc.graph.graph import Graph
from nlc.graph.nodes import Level, Memory, Op, Read, Recurrence
from nlc.passes import build
from nlc.report import table
from nlc.show import leaves
from nlc.spec import Spec

COSTS = {
    "parameters": "parameters",
    "state_bytes": "state, bytes per sequence",
    "flops": "FLOPs per token, forward",
    "activation_bytes": "bytes saved per token",
}
ABSENT = object()
WORDS = ("doc", "name")  # say something about a spec, not what it computes


@dataclass(frozen=True, slots=True)
class Change:
    """One key with two values; either may be absent."""

    path: str
    before: Any
    after: Any

    @property
    def program(self) -> bool:
        """Whether one side has several lines."""
        return any(isinstance(x, str) and "\n" in x.strip() for x in (self.before, self.after))

    def sides(self) -> tuple[str, str]:
        """Both values as text; of a program the lines that differ."""
        if not self.program:
            return _text(self.before), _text(self.after)
        lines = list(self._lines())
        gone, come = ("\n".join(line[2:] for line in lines if line.startswith(mark)) for mark in "-+")
        return gone, come

    def __str__(self) -> str:
        if self.program:
            return f"{self.path}:\n" + "\n".join(f"    {line}" for line in self._lines())
        return f"{self.path}: {_text(self.before)} -> {_text(self.after)}"

    def _lines(self) -> Iterator[str]:
        """- and + lines of a program."""
        old, new = (_text(x).splitlines() for x in (self.before, self.after))
        return (line for line in difflib.ndiff(old, new) if line.startswith(("- ", "+ ")))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: a side that lacks the key is left out, since null is a value."""
        sides = {"path": self.path, "before": self.before, "after": self.after}
        return {name: value for name, value in sides.items() if value is not ABSENT}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The keys of two resolved specs whose values differ, in the order of the first; names and docs do not count."""
    old, new = dict(leaves(before)), dict(leaves(after))
    paths = [path for path in dict.fromkeys([*old, *new]) if path not in WORDS]
    changes = [Change(path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in paths]
    return [change for change in changes if change.before != change.after]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two specs side by side.  graph: - and + lines of what their nodes compute; cost: what of each a run pays."""

    before: str
    after: str
    keys: tuple[Change, ...]
    graph: tuple[str, ...]
    cost: tuple[tuple[str, int, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"keys": [change.as_dict() for change in self.keys]}


def compare(before: Spec, after: Spec) -> Comparison:
    """Raises SpecError where one of them is not legal."""
    graphs = [build(before), build(after)]
    old, new = (list(sentences(graph)) for graph in graphs)
    changed = [f"- {line}" for line in old if line not in new] + [f"+ {line}" for line in new if line not in old]
    one, other = (explain(graph).cost for graph in graphs)
    rows = [(name, int(getattr(one, name, 0)), int(getattr(other, name, 0))) for name in COSTS]
    keys = differences(before.resolved(), after.resolved())
    names = [spec.source for spec in (before, after)]
    return Comparison(names[0], names[1], tuple(keys), tuple(changed), tuple(rows))


def sentences(graph: Graph) -> Iterator[str]:
    """What a graph computes, a line a node; sizes are left to the keys and the cost."""
    for node in graph.nodes.values():
        match node:
            case Op():
                yield f"{node.id} = {node.op}({', '.join(node.inputs)})"
            case Read():
                yield f"{node.id} = {node.memory}({node.query}), read {node.when.value}"
            case Memory():
                chunk = f", chunk {node.chunk}" if node.chunk > 1 else ""
                kinds = f"{node.form.kind}, {node.objective.kind}, rule {node.rule.name}"
                clock = said_period(node.period, is_attention(node))
                yield f"memory {node.id}: {kinds}, {clock}{chunk}, carry {node.carry.value}"
            case Level():
                rule = f", rule {node.rule.name}" if node.rule else ""
                attends = bool(node.memories) and all(is_attention(graph[m]) for m in node.memories)
                yield f"level {node.name}: {said_period(node.period, attends)}{rule}"
            case Recurrence():
                yield f"{', '.join(node.members)}: computed as {node.lowering}"


def report(found: Comparison) -> str:
    """The text of `nlc diff`."""
    if not found.keys and not found.graph:
        return f"{found.before} and {found.after} say the same"
    keys = "\n".join(f"  {change}" for change in found.keys).replace("\n    ", "\n      ")
    parts = [f"{found.before} -> {found.after}", f"Keys\n\n{keys}"]
    if found.graph:
        parts.append("Graph\n\n" + "\n".join(f"  {line.rstrip()}" for line in found.graph))
    rows = [["", "before", "after", ""]]
    rows += [[COSTS[n], f"{a:,}", f"{b:,}", f"x {b / a:.2f}" if a else ""] for n, a, b in found.cost]
    return "\n\n".join([*parts, "Cost\n\n" + table(rows, right={1, 2, 3})])


def _text(value: Any) -> str:
    return "(absent)" if value is ABSENT else str(value).strip()
