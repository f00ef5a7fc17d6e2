"""Owners: the level that updates each weight.

Needs: shapes (a selection may ask for the number of axes) and clocks.
Establishes: Weight.owner and Level.weights.  A memory carried by the model is owned by its own level, with the starts
that it holds for others; every other weight, in each layer, by the first level that selects it, those with `rest`
coming last.
Refuses: a weight that no level owns (in a bare program the host does), a level that owns nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from nlc.diagnostics import Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Carry, Level, Memory, Selection, Unit, Weight


def owners(graph: Graph) -> Graph:
    report = Reporter()
    owner: dict[str, str] = {}  # name of a weight in one layer -> id of its level
    names = {weight.id: weight_names(graph, weight) for weight in graph.of(Weight)}
    for memory in graph.of(Memory):
        holder = graph[memory.nest] if memory.nest else memory  # the start of a nested one belongs to the slower
        if holder.carry is Carry.MODEL:
            owner |= {name: holder.level for w in memory.weights for name in names[w]}
    selecting = [(level, selection) for level in graph.of(Level) for selection in level.selects]
    for level, selection in sorted(selecting, key=lambda both: _is_rest(both[1])):  # stable: in the order written
        taken = [n for w in graph.of(Weight) for n in _takes(selection, w, names[w.id]) if n not in owner]
        owner |= dict.fromkeys(taken, level.id)
        if not taken and not report.found:
            message = f"level '{level.name}' selects nothing that no level before it owns"
            report.error("NLC0904", selection.at, message, _left(names, owner))
    if not graph.bare and not report.found:
        _unowned(graph, names, owner, report)
    report.check()
    owned: dict[str, dict[str, None]] = defaultdict(dict)
    nodes: list[AnyNode] = []
    for weight in graph.of(Weight):
        found = tuple(owner.get(name, "") for name in names[weight.id])
        differ = len(set(found)) > 1
        nodes.append(replace(weight, owner=found[0], owners=found if differ else ()))
        for id in found:
            owned[id][weight.id] = None
    nodes += [replace(level, weights=tuple(owned[level.id])) for level in graph.of(Level)]
    done = graph.with_nodes(nodes)
    _tasks(done, report)
    report.check()
    return done


def _tasks(graph: Graph, report: Reporter) -> None:
    """Refuse weights that count tasks: training knows none yet."""
    for level in graph.of(Level):
        if level.weights and level.period.unit is Unit.TASK and not graph.bare:
            own = dict(graph[level.memories[0]].said) if level.memories else {}
            at = own.get("every") or dict(level.said).get("every", level.at)
            message = f"level '{level.name}': weights updated every {level.period} are not supported yet"
            report.error("NLC1001", at, message, "count steps")


def weight_names(graph: Graph, weight: Weight) -> list[str]:
    """The names of a weight, one for each layer that has it: `blocks.0.h.conv`."""
    if not weight.block:
        return [weight.path]
    return [f"blocks.{i}.{weight.path}" for i, kind in enumerate(graph.stack) if kind == weight.block]


def _takes(selection: Selection, weight: Weight, names: list[str]) -> list[str]:
    """Those of a weight's names that a selection asks for."""
    if selection.rank is not None and selection.rank != len(weight.shape or ()):
        return []
    return [n for n in names if _matches(n, selection.patterns) and not _matches(n, selection.excluded)]


def _is_rest(selection: Selection) -> bool:
    """It takes what all others leave, wherever it stands."""
    return selection.patterns == ("*",) and selection.rank is None and not selection.excluded


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


Names = Mapping[str, list[str]]  # id of a weight -> its names, one for each layer


def _left(names: Names, owner: Mapping[str, str]) -> str:
    left = [found[0] for each in names.values() if (found := [n for n in each if n not in owner])]
    return f"left over: {', '.join(left[:4])}" if left else "nothing is left over"


def _unowned(graph: Graph, names: Names, owner: Mapping[str, str], report: Reporter) -> None:
    left = [found[0] for each in names.values() if (found := [n for n in each if n not in owner])]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        first = next(graph[id] for id, each in names.items() if left[0] in each)
        at = next((lv.at for lv in reversed(graph.of(Level)) if lv.selects), first.at)
        hint = "a last level with memories: rest takes what is left; every: never freezes it"
        report.error("NLC0903", at, f"no level owns {left[0]}{more}", hint)


def frozen(graph: Graph, weight: Weight) -> bool:
    """Whether the levels that own the weight never write it."""
    return all(id and graph[id].period.unit is Unit.NEVER for id in weight.by)
