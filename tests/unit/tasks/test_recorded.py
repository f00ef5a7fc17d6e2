"""bench/results/tasks.json: every shipped task is there, solved as its file says or said not to be, beside chance."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nlc.spec import load_task, tasks
from runtime.evaluate.tasks import Task
from tests.unit.tasks.examples import TEXT

BENCH = Path(__file__).parents[3] / "bench"
ROWS: list[dict[str, Any]] = json.loads((BENCH / "results" / "tasks.json").read_text(encoding="utf-8"))["rows"]
WITH_A_SCORE = [name for name in tasks() if load_task(name).solved is not None]
UNSOLVED: set[str] = set()  # a model that solves one takes its name out
SURE = 3.9  # standard errors: one in 10,000 by chance


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts of bench/ import one another by their plain names."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in ("solvers", "tasks"):
        sys.modules.pop(name, None)


def name_of(row: dict[str, Any]) -> str:
    """mqar(pairs=4) -> mqar"""
    return str(row["task"].partition("(")[0])


def solves(row: dict[str, Any]) -> bool:
    """Whether the test that is as hard as training is passed, by the accuracy that the task's file says."""
    return bool(row["tests"][0]["on"]["accuracy"] >= load_task(name_of(row)).solved)


def deviation(p: float, items: int) -> float:
    return math.sqrt(p * (1 - p) / items)


def echoed(task: Task, items: int = 64) -> float:
    """The share of answers that are the token which asks: what a model with tied embeddings says untrained."""
    made = task.make("test", torch.arange(items), test=next(iter(task.tests)), text=TEXT)
    return float(((made.targets == made.tokens) & (made.answers >= 0)).sum() / (made.answers >= 0).sum())


@pytest.mark.parametrize("name", WITH_A_SCORE)
def test_every_task_has_a_record_that_says_whether_it_is_solved(name: str) -> None:
    rows = [row for row in ROWS if name_of(row) == name]
    assert rows, f"no record of '{name}': add a setting to bench/solvers.py, then python bench/tasks.py --tasks {name}"
    assert any(map(solves, rows)) is (name not in UNSOLVED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}, {row['system']}, {row['steps']}")
def test_a_record_is_of_the_task_as_it_is_now(row: dict[str, Any]) -> None:
    task = load_task(row["task"])
    assert [test["test"] for test in row["tests"]] == list(task.tests)
    kind = Task.read(task.as_dict())
    for test in row["tests"]:
        assert test["knobs"] == dict(task.tests[test["test"]]) and test["solved"] == task.solved
        assert test["chance"] == pytest.approx(kind.kind(test["test"]).chance)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}, {row['system']}, {row['steps']}")
def test_an_untrained_model_scores_chance(row: dict[str, Any]) -> None:
    """Binomial, items as trials, since answers of one item go wrong together.  Two things are known of the untrained.

    One with tied embeddings says its own token again, which at the first place of parity is right.  And it answers
    equal tokens alike: answers of many tokens, guessed one by one by chance, come to less.
    """
    task, chance = Task.read(load_task(row["task"]).as_dict()), row["tests"][0]["chance"]
    kind = task.kind(next(iter(task.tests)))
    echo = 0.0 if task.ordered else echoed(task)
    high = max(chance, echo)
    assert row["untrained"] <= high + SURE * deviation(high, row["items"])
    if task.ordered or chance >= 1 / len(kind.choices):
        assert row["untrained"] >= chance - SURE * deviation(chance, row["items"])


def test_one_command_makes_what_is_recorded() -> None:
    from solvers import SOLVERS

    recorded = [(row["task"], row["system"], row["sets"]) for row in ROWS]
    for setting in SOLVERS:
        assert (setting.task, setting.system, setting.sets) in recorded, f"{setting.task} was changed and not run again"


def test_the_table_says_what_the_record_says() -> None:
    lines = (BENCH / "results" / "tasks.md").read_text(encoding="utf-8").splitlines()
    said = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    head, body = said[0], said[2:]
    of = {name: head.index(name) for name in ("test", "right, learning on", "solved")}
    shown = [[line[i] for i in of.values()] for line in body]
    tests = [test for row in ROWS for test in row["tests"]]
    assert shown == [[test["test"], f"{test['on']['accuracy']:.3f}", verdict(test)] for test in tests]


def verdict(test: dict[str, Any]) -> str:
    return "" if test["solved"] is None else "yes" if test["on"]["accuracy"] >= test["solved"] else "no"
