"""Owners: the level that updates each weight.

Needs: shapes (a selection may ask for the number of axes) and clocks.
Establishes: Weight.owner and Level.weights.  A memory carried by the model is owned by its own level, with the starts
that it holds for others; every other weight by the first level that selects it, those with `rest` coming last.
Refuses: a weight that no level owns (in a bare program the host does), a level that owns nothing, a selection that
takes a weight in some layers only.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase

from nlc.diagnostics import Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Carry, Level, Memory, Selection, Unit, Weight


def owners(graph: Graph) -> Graph:
    report = Reporter()
    owner: dict[str, str] = {}
    for memory in graph.of(Memory):
        if memory.carry is Carry.MODEL:
            owner |= dict.fromkeys(memory.weights, memory.level)
        elif memory.nest and graph[memory.nest].carry is Carry.MODEL:  # its start belongs to the slower memory
            owner |= dict.fromkeys(memory.weights, graph[memory.nest].level)
    selecting = [(level, selection) for level in graph.of(Level) for selection in level.selects]
    for level, selection in sorted(selecting, key=lambda both: _is_rest(both[1])):  # stable: in the order written
        taken = [w for w in graph.of(Weight) if w.id not in owner and _takes(graph, level, selection, w, report)]
        owner |= dict.fromkeys((w.id for w in taken), level.id)
        if not taken and not report.found:
            report.error(
                "NLC0904",
                selection.at,
                f"level '{level.name}' selects nothing that no level before it owns",
                _left(graph, owner),
            )
    if not graph.bare and not report.found:
        _unowned(graph, owner, report)
    report.check()
    owned: dict[str, list[str]] = defaultdict(list)
    for weight in graph.of(Weight):
        owned[owner.get(weight.id, "")].append(weight.id)
    nodes: list[AnyNode] = [replace(w, owner=owner.get(w.id, "")) for w in graph.of(Weight)]
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


def _takes(graph: Graph, level: Level, selection: Selection, weight: Weight, report: Reporter) -> bool:
    if selection.rank is not None and selection.rank != len(weight.shape or ()):
        return False
    names = weight_names(graph, weight)
    taken = [n for n in names if _matches(n, selection.patterns) and not _matches(n, selection.excluded)]
    if taken and len(taken) < len(names):
        message = f"level '{level.name}' selects {taken[0]} and not {next(n for n in names if n not in taken)}"
        report.error(
            "NLC1001",
            selection.at,
            message,
            "selecting a weight in some layers only is not supported yet: blocks.* takes all",
        )
    return len(taken) == len(names)


def _is_rest(selection: Selection) -> bool:
    """It takes what all others leave, wherever it stands."""
    return selection.patterns == ("*",) and selection.rank is None and not selection.excluded


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


def _left(graph: Graph, owner: dict[str, str]) -> str:
    left = [w for w in graph.of(Weight) if w.id not in owner]
    return f"left over: {', '.join(weight_names(graph, w)[0] for w in left[:4])}" if left else "nothing is left over"


def _unowned(graph: Graph, owner: dict[str, str], report: Reporter) -> None:
    left = [w for w in graph.of(Weight) if w.id not in owner]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        at = next((lv.at for lv in reversed(graph.of(Level)) if lv.selects), left[0].at)
        subject = f"no level owns {weight_names(graph, left[0])[0]}{more}"
        report.error(
            "NLC0903", at, subject, "a last level with memories: rest takes what is left; every: never freezes it"
        )


def frozen(graph: Graph, weight: Weight) -> bool:
    """Whether a level owns the weight and never writes it."""
    return bool(weight.owner) and graph[weight.owner].period.unit is Unit.NEVER
