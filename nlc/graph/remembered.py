"""A memory inside a rule, at the sizes of one matrix: widths, parts and form, as a memory of the graph has them."""

from __future__ import annotations

from dataclasses import replace

from nlc.graph.nodes import Memory, Objective, Period, Rule, RuleMemory, Shape, Unit
from nlc.source import Position


def memory_of(memory: RuleMemory, rows: int, cols: int) -> Memory:
    """The memory for a matrix of so many rows and columns."""
    inner, outer = (width(times, rows, cols) for times in (memory.inner, memory.outer))
    form = memory.form
    hidden = form.hidden or max(1, round(form.times * inner))
    form = replace(form, hidden=hidden, times=0.0, residual=form.residual and inner == outer)
    return Memory(
        id=memory.name, at=Position("", 0, 0), block="", name=memory.name, level="", form=form,
        objective=Objective(kind=memory.objective), rule=Rule(name="gd"), period=Period(1, Unit.TOKEN),
        inner=inner, outer=outer, parts=parts(form.kind, form.depth, inner, hidden, outer),
    )  # fmt: skip


def width(times: tuple[int, int], rows: int, cols: int) -> int:
    return times[0] * rows + times[1] * cols


def parts(kind: str, depth: int, inner: int, hidden: int, outer: int) -> tuple[tuple[str, Shape], ...]:
    """The matrices of a form without biases."""
    match kind:
        case "matrix":
            return (("M", (outer, inner)),)
        case "swiglu":
            return (("W_gate", (hidden, inner)), ("W_in", (hidden, inner)), ("W_out", (outer, hidden)))
    if depth == 1:
        return (("W_out", (outer, inner)),)
    between = [(f"W_{i}", (hidden, hidden)) for i in range(2, depth)]
    return (("W_in", (hidden, inner)), *between, ("W_out", (outer, hidden)))


def state_names(memory: RuleMemory) -> tuple[str, ...]:
    """The rule's states that are this memory's: m_W_in, m_W_out."""
    return tuple(f"{memory.name}_{name}" for name, _ in memory_of(memory, 1, 1).parts)
