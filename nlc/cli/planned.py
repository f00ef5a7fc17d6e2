"""What a run would be, before there is any: `nlc train --dry-run`.  Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlc.cli.common import Stop, say, say_json
from nlc.target import Target

if TYPE_CHECKING:
    from nlc.spec import Spec
    from runtime.evaluate.tasks import Task


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that has not begun.  `text`: the text it learns from, or the name of its task."""

    name: str
    parameters: int
    levels: tuple[str, ...]
    steps: int
    tokens_per_step: int
    text: str
    device: str
    processes: int
    out: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "parameters": self.parameters, "levels": list(self.levels), "steps": self.steps,
            "tokens_per_step": self.tokens_per_step, "tokens": self.steps * self.tokens_per_step, "text": self.text,
            "device": self.device, "processes": self.processes, "out": self.out,
        }  # fmt: skip

    def lines(self) -> list[str]:
        tokens = self.steps * self.tokens_per_step
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return [
            f"would train  {self.name}: {self.parameters:,} parameters, levels {', '.join(self.levels)}",
            f"for          {self.steps:,} steps of {self.tokens_per_step:,} tokens, {tokens:,} in all",
            f"on           {self.text}",
            f"with         {self.device}{several}",
            f"and keep     {self.out}: spec.yaml, code, metrics.jsonl, checkpoints, report.html",
        ]


def plan(spec: Spec, folder: Path, data: Mapping[str, Any], task: Task | None, device: str, processes: int) -> Plan:
    """The plan of a run in this folder.  `data`: the options that say what is learned from.

    Raises SpecError, and Stop where what it would learn from is not there."""
    from nlc import passes
    from nlc.inherit import inherited
    from runtime import learned
    from runtime.errors import RunError

    graph = passes.build(spec, target=Target.of(device))
    inherited(graph)
    sizes, told = graph.sizes, spec.model.run
    path, field, tokenizer = (data[option] for option in ("--data", "--field", "--tokenizer"))
    try:
        text = learned.foreseen(path, field, tokenizer, task, sizes["context"], sizes["vocab"])
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    return Plan(
        graph.name, graph.cost.parameters if graph.cost else 0, tuple(level.name for level in graph.levels),
        told.steps, told.batch * sizes["context"], text, device, processes, str(folder),
    )  # fmt: skip


def show(found: Plan, json: bool) -> None:
    say_json(found.as_dict()) if json else say("\n".join(found.lines()))
