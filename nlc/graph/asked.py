"""What a rule asks for, and where it can be had: sums over many pairs, or one pair at a time."""

from __future__ import annotations

from nlc.diagnostics import Reporter
from nlc.graph.declare import DeclaredMemory
from nlc.graph.nodes import Rule
from nlc.graph.specialise import reads
from nlc.source import Position


def gradient_alone(rule: Rule, at: Position, report: Reporter) -> None:
    """A level that counts steps hands its rule sums over the tokens of its steps."""
    if asked := sorted(reads(rule) & {"k", "v", "x", "error"}):
        names = " and ".join(f"'{name}'" for name in asked)
        message = f"rule '{rule.name}' reads {names}, of one pair, and a step's gradient is a sum of many"
        hint = "use it at a level that counts tokens, every: 1 token"
        report.error("NLC1001", at, message, hint)


def of_one_pair(memory: DeclaredMemory, rule: Rule, objective: str, report: Reporter) -> None:
    """A rule that looks at a pair, or at a layer's input and error, is given one pair at a time."""
    asked = sorted(reads(rule) & {"k", "v", "x", "error"})
    matrix = str(memory.get("form", "")).strip() == "matrix"
    several = memory.period.count > 1 or str(memory.get("window", 1)).strip() != "1"
    if asked and (several or objective == "loss"):
        message = (
            f"memory '{memory.id}': rule '{rule.name}' reads '{asked[0]}', of one pair, and is given a sum of many"
        )
        report.error("NLC1001", memory.where("rule"), message, "every: 1 token, with an objective of its own")
    elif {"k", "v"} & set(asked) and not matrix:
        message = (
            f"memory '{memory.id}': rule '{rule.name}' reads '{asked[0]}', and only a matrix is as wide as its pair"
        )
        report.error("NLC0410", memory.where("rule"), message, "x and error are those of each layer")
