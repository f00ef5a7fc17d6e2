"""The window of a memory: how many pairs each of its gradients is over."""

from __future__ import annotations

from nlc.constants import Sizes
from nlc.diagnostics import Reporter
from nlc.equations import parse_expression
from nlc.graph.declare import DeclaredMemory
from nlc.graph.nodes import Objective, Period, Unit
from nlc.graph.static import above_0, size


def window_of(memory: DeclaredMemory, objective: Objective, pairs: int, sizes: Sizes, report: Reporter) -> int:
    """The pairs that each gradient is over; 1 is the token's own.  Reports a window that means nothing."""
    said = memory.fields.get("window")
    if memory.attention or memory.steps or memory.period.unit is Unit.NEVER:
        return 1
    count = 1
    if said is not None:
        expr = parse_expression(str(said.value), said.place)
        count = above_0(size(expr, sizes, report), expr, report, f"'window' of '{memory.id}'")
    if count == 1:
        if "weigh" in memory.fields:
            message = f"memory '{memory.id}': each gradient is over one pair, so 'weigh' says nothing"
            report.error("NLC0411", memory.where("weigh"), message, "say over how many: window")
        return 1
    at = memory.where("window")
    if objective.kind == "loss":
        message = f"memory '{memory.id}': 'window' says nothing under objective: loss"
        report.error("NLC0411", at, message, "it counts pairs of keys and values")
    elif memory.period != Period(1, Unit.TOKEN):
        message = f"memory '{memory.id}': a window of pairs at every {memory.period} is not supported yet"
        report.error("NLC1001", at, message, "every: 1 token, with a chunk")
    elif pairs > 1:
        message = f"memory '{memory.id}': a window over {pairs} pairs a token is not supported yet"
        report.error("NLC1001", at, message, "one key and one value")
    return count
