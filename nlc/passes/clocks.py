"""Clocks: every memory and level gets the period it is written at, in the unit it is counted in.

Needs: periods as written.
Establishes: tokens and sequences as optimiser steps where a memory is carried by the model (a step is run.batch x
sizes.context tokens), sequences as tokens of the lane where a stream carries it; chunks that are multiples of their
period; whether a rate varies from token to token.
Refuses: counts that are not whole, periods that contradict how long the state lives, and lives of nested memories that
are no whole number of their periods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nlc.diagnostics import Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Carry, Input, Level, Memory, Op, Period, Read, Unit
from nlc.source import Position


def clocks(graph: Graph) -> Graph:
    report = Reporter()
    nodes: list[AnyNode] = []
    reported: set[str] = set()
    for memory in graph.of(Memory):
        period = _period(graph, memory, report)
        if period is None:
            reported.add(memory.level)
            continue
        _chunk(memory, period, report)
        nodes.append(replace(memory, period=period, rate_varies=bool(memory.rate) and varies(graph, memory.rate)))
    _lives({m.id: m for m in nodes if isinstance(m, Memory)}, report)
    periods = {m.level: m.period for m in nodes if isinstance(m, Memory)}
    for level in graph.of(Level):
        if level.id in reported:
            continue
        of_level = (
            periods.get(level.id)
            if level.memories
            else _steps(graph, level.period, f"level '{level.name}'", _at(level), report)
        )
        if of_level is not None:
            nodes.append(replace(level, period=of_level))
    report.check()
    return graph.with_nodes(nodes)


def _at(node: Memory | Level) -> Position:
    return dict(node.said).get("every", node.at)


def _period(graph: Graph, memory: Memory, report: Reporter) -> Period | None:
    """The period of a memory, in its own clock; None when refused."""
    period, subject = memory.period, f"memory '{memory.id}'"
    if period.unit is Unit.NEVER or memory.form.kind == "attention":
        return period
    if memory.carry is Carry.MODEL:
        return _steps(graph, period, subject, _at(memory), report)
    if period.unit is Unit.TOKEN:
        return period
    if memory.carry is Carry.SEQUENCE:
        message = f"{subject}: every {period}, and its state lives for one sequence"
        report.error("NLC0703", _at(memory), message, "count tokens, or say carry: model")
    elif period.unit is Unit.SEQUENCE and (context := graph.sizes.get("context")):
        return Period(period.count * context, Unit.TOKEN)  # of its lane
    elif period.unit is Unit.SEQUENCE:
        message = f"{subject}: sequences become tokens of a lane through sizes.context, which is not given"
        report.error("NLC0701", _at(memory), message, "count tokens")
    else:
        report.error(
            "NLC0703",
            _at(memory),
            f"{subject}: every {period}, and its state is a lane's own",
            "count tokens, or say carry: model",
        )
    return None


def _steps(graph: Graph, period: Period, subject: str, at: Position, report: Reporter) -> Period | None:
    """The same period in optimiser steps."""
    batch, context = graph.run.batch, graph.sizes.get("context", 0)
    match period.unit:
        case Unit.NEVER | Unit.STEP | Unit.TASK:
            return period
        case Unit.SEQUENCE:
            each, of = batch, f"a step is {batch} sequences"
        case Unit.TOKEN:
            each, of = batch * context, f"a step is {batch * context} tokens (batch {batch} x context {context})"
    if each == 0:
        report.error(
            "NLC0701", at, f"{subject}: tokens become steps through sizes.context, which is not given", "count steps"
        )
        return None
    if period.count % each == 0:
        return Period(period.count // each, Unit.STEP)
    below = period.count // each
    nearest = " or ".join(_named(Period(n, Unit.STEP), n * each, period.unit) for n in (below, below + 1) if n)
    report.error("NLC0701", at, f"{subject}: {period} is not a whole number of steps", f"{of}; nearest: {nearest}")
    return None


def _named(steps: Period, count: int, unit: Unit) -> str:
    return f"{steps} ({Period(count, unit)})"


def _chunk(memory: Memory, period: Period, report: Reporter) -> None:
    if memory.chunk == 1 or period.unit is not Unit.TOKEN or period.count == 0:
        return
    if memory.chunk % period.count:
        below = memory.chunk // period.count * period.count
        nearest = " or ".join(str(n) for n in (below, below + period.count) if n)
        message = f"memory '{memory.id}': chunk {memory.chunk} is not a multiple of its period, {period}"
        report.error("NLC0702", dict(memory.said).get("chunk", memory.at), message, f"nearest: {nearest}")


def _lives(memories: Mapping[str, Memory], report: Reporter) -> None:
    """A nested memory is written more often than its holder, a whole number of times between two of its updates."""
    for memory in memories.values():
        holder = memories.get(memory.nest)
        if holder is None or holder.period.unit is not Unit.TOKEN or memory.period.unit is not Unit.TOKEN:
            continue
        at, subject = dict(memory.said).get("carry", memory.at), f"memory '{memory.of or memory.id}'"
        life, each = holder.period.count, max(memory.period.count, memory.chunk)
        if life <= memory.period.count:
            message = f"{subject}: it is written every {memory.period}, and what holds its start every {holder.period}"
            report.error("NLC0411", at, message, "name a slower memory")
        elif life % each:
            below = life // each * each
            nearest = " or ".join(str(Period(n, Unit.TOKEN)) for n in (below, below + each) if n > each)
            what = "chunks" if memory.chunk > memory.period.count else "periods"
            message = f"{subject}: a life of {holder.period} is not a whole number of its {what}, of {each} tokens"
            report.error("NLC0702", at, message, f"nearest: {nearest}")


def varies(graph: Graph, id: str) -> bool:
    """Whether a value differs from token to token: anything but numbers and weights went into it."""
    waiting, seen = [id], set[str]()
    while waiting:
        node = graph[waiting.pop()]
        if node.id in seen:
            continue
        seen.add(node.id)
        if isinstance(node, Input | Read):
            return True
        if isinstance(node, Op):
            waiting += node.inputs
    return False
