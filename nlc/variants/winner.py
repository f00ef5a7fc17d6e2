"""The winner of a search as a spec as any other: its own sizes, trained as it was for the task it was ranked by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlc.diagnostics import SpecError
from nlc.passes import build
from nlc.show import yaml_text
from nlc.spec import Spec, load_task, loads
from nlc.variants.journal import Record, variant_text
from nlc.variants.rates import Rates, trained
from nlc.variants.scores import task_of
from nlc.variants.standings import Standing
from nlc.variants.table import said


def winner(folder: Path, records: Sequence[Record], row: Standing, file: str = "winner.yaml") -> str:
    """file: what it will be called.  Raises OSError where the variant's is gone, JournalError where it was changed."""
    head = next(line for line in records if line["record"] == "search")
    trial = next(line for line in records if line["record"] == "trial" and line["trial"] == row.trial)
    path = folder / trial["file"]
    text = variant_text(path, trial)
    task = task_of(head["rungs"][row.rung]["rank_by"], head["tasks"])
    assert task is not None and row.score is not None
    facts, sizes = head["tasks"][task], head["sizes"].get(task, {})
    changes = trained(loads(text, str(path)), facts, {}, Rates(**row.rates[task]), row.steps[task])
    name = head["rungs"][row.rung]["rank_by"]
    notes = [f"{row.trial} of search {head['name']}: {name} {said(row.score, name)}, n = {row.score.n}"]
    notes += [f"{axis}: {label}" for axis, label in row.settings.items()]
    notes += [edit["edit"] for edit in row.edits] + list(row.rescaled)
    had = "".join(f", {path} {size}" for path, size in sizes.items())
    notes += [f"as it was ranked{had}: nlc train {file} --task {_argument(task, facts)}"]
    chosen = loads(text, str(path), changes)
    if not _legal(chosen):  # with the task's sizes it was
        chosen = loads(text, str(path), {**changes, **sizes})
    return "".join(f"# {line}\n" for line in notes) + yaml_text(chosen.resolved())


def _legal(spec: Spec) -> bool:
    try:
        build(spec)
    except SpecError:
        return False
    return True


def _argument(task: str, facts: Mapping[str, Any]) -> str:
    """What `--task` takes: the name of a shipped task with its knobs; of a file only what the search calls it."""
    name = str(facts.get("name", task))
    try:
        same = json.dumps(load_task(name).as_dict()) == json.dumps(facts)
    except SpecError:
        same = False
    return f"'{name}'" if same else f"FILE, which is '{task}' there"
