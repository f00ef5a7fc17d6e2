"""The winner of a search as a spec that compiles alone: trained as it was for the task it was ranked by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nlc.show import yaml_text
from nlc.spec import loads
from nlc.variants.journal import Record
from nlc.variants.rates import Rates, trained
from nlc.variants.scores import task_of
from nlc.variants.standings import Standing
from nlc.variants.table import said


def winner(folder: Path, records: Sequence[Record], row: Standing) -> str:
    """Raises OSError where the variant's file is gone, SpecError where it was altered and is no spec any more."""
    head = next(line for line in records if line["record"] == "search")
    trial = next(line for line in records if line["record"] == "trial" and line["trial"] == row.trial)
    path = folder / trial["file"]
    text = path.read_text(encoding="utf-8")
    task = task_of(head["rungs"][row.rung]["rank_by"], head["tasks"])
    assert task is not None and row.score is not None
    sizes, rates = head["sizes"].get(task, {}), Rates(**row.rates[task])
    changes = trained(loads(text, str(path)), head["tasks"][task], sizes, rates, row.steps[task])
    name = head["rungs"][row.rung]["rank_by"]
    notes = [f"{row.trial} of search {head['name']}: {name} {said(row.score, name)}, n = {row.score.n}"]
    notes += [f"{axis}: {label}" for axis, label in row.settings.items()]
    notes += [edit["edit"] for edit in row.edits] + list(row.rescaled)
    chosen = loads(text, str(path), changes)
    return "".join(f"# {line}\n" for line in notes) + yaml_text(chosen.resolved())
