"""Task files: every shipped one is right, everything wrong is said at its place, and both sides know the same knobs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from nlc.diagnostics import Reporter, SpecError
from nlc.source import Mapping
from nlc.spec import find_task, load_task, tasks
from nlc.spec.task import task_from
from nlc.spec.task_kinds import KINDS as TOLD
from nlc.spec.text import parse
from runtime.evaluate.tasks import Task
from runtime.evaluate.tasks.kinds import KINDS, ORDERED
from tests.unit.tasks.examples import SMALL, TEXT

GOOD = """\
nlc: 1
task: mine
doc: What is asked.
source: here
items: associative
knobs: {context: 64, vocab: 64, pairs: 8, power: 0.01}
test: {as trained: {}, longer: {context: 128}}
sweep: [{pairs: 4}, {examples: 100}]
solved: 0.9
"""


def refused(text: str) -> list[tuple[str, int, int]]:
    """(code, line, column) of all that a file is refused for."""
    report = Reporter()
    tree = parse(text, "t.yaml", report)
    assert isinstance(tree, Mapping)
    with pytest.raises(SpecError) as error:
        task_from(tree)
    return [(d.code, d.at.line, d.at.column) for d in error.value.diagnostics]


def said(argument: str) -> str:
    with pytest.raises(SpecError) as error:
        load_task(argument)
    (d,) = error.value.diagnostics
    return f"{d.code} {d.at.column}: {d.message} ({d.hint})"


@pytest.mark.parametrize("kind", TOLD)
def test_both_sides_know_the_same_knobs(kind: str) -> None:
    assert set(TOLD) == set(KINDS)
    known = {f.name: f.type == "int" for f in fields(KINDS[kind])}  # type: ignore[arg-type]
    assert known == {name: knob.whole for name, knob in TOLD[kind].knobs.items()}


@pytest.mark.parametrize("name", tasks())
def test_items_of_every_shipped_task_can_be_made(name: str) -> None:
    task = Task.read(load_task(name).as_dict())
    if task.ordered:
        pytest.skip("learned in order: see tests/unit/continual")
    assert len(task.make("train", torch.arange(2), text=TEXT)) == 2
    for test in task.tests:
        assert task.make("test", torch.arange(2), test=test, text=TEXT).tokens.shape == (2, task.tests[test]["context"])


@pytest.mark.parametrize("name", tasks())
def test_every_degree_of_difficulty_can_be_asked_for(name: str) -> None:
    for degree in load_task(name).sweep:
        call = f"{name}({', '.join(f'{knob}={value}' for knob, value in degree.items())})"
        changed = load_task(call)
        assert changed.name == call and {**changed.knobs, "examples": changed.examples}.items() >= degree.items()


def test_both_sides_know_which_tasks_are_learned_in_order() -> None:
    assert {name for name, kind in TOLD.items() if kind.ordered} == set(ORDERED)


def test_what_can_be_made_is_allowed() -> None:
    for items, knobs in SMALL.values():
        assert TOLD[items].needs(knobs) == ""


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("associative", "asociative", [("NLC1102", 5, 8)]),
        ("pairs: 8", "pears: 8", [("NLC0203", 6, 1), ("NLC1103", 6, 33)]),
        ("pairs: 8", "pairs: 0", [("NLC0205", 6, 33)]),
        ("pairs: 8", "pairs: 8.5", [("NLC0202", 6, 33)]),
        ("pairs: 8", "pairs: eight", [("NLC0202", 6, 40)]),
        ("pairs: 8", "pairs: 20", [("NLC1104", 6, 1)]),
        ("context: 128", "context: 16", [("NLC1104", 7, 24)]),
        ("context: 128", "contxt: 16", [("NLC1103", 7, 33)]),
        ("pairs: 4", "pears: 4", [("NLC1103", 8, 10)]),
        ("solved: 0.9", "solved: 90", [("NLC0205", 9, 9)]),
        ("test: {as trained: {}, longer: {context: 128}}", "test: {}", [("NLC0205", 7, 7)]),
        ("task: mine", "task: mine\ntests: {}", [("NLC0201", 3, 1)]),
    ],
)
def test_what_is_wrong_is_said_at_its_place(before: str, after: str, found: list[tuple[str, int, int]]) -> None:
    assert before in GOOD and refused(GOOD.replace(before, after)) == found


def test_a_name_with_knobs() -> None:
    task = load_task("mqar(pairs=4, vocab=40)")
    assert (task.name, task.knobs["pairs"], task.knobs["vocab"]) == ("mqar(pairs=4, vocab=40)", 4, 40)
    assert task.tests["as trained"]["pairs"] == 4 and task.tests["longer"]["context"] == 128
    assert said("mqr").startswith("NLC1101 1: no file and no shipped task 'mqr' (did you mean 'mqar'?")
    assert said("mqar(pear=3)").startswith("NLC0405 6: the task 'mqar' has no parameter 'pear' (did you mean 'power'?")
    assert said("mqar(pairs=1.5)") == "NLC0202 6: knob 'pairs' is 1.5; a whole number is expected ()"
    assert said("mqar(pairs=many)") == "NLC0202 12: knob 'pairs' is a number ()"
    assert said("mqar(pairs=17)").startswith("NLC1104 1: 17 pairs and their queries take 68 tokens of 64")
    assert said("mqar(context=600, examples=1.5)").startswith("NLC0205 19: 'examples' is 1.5")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    task = find_task(str(path))
    assert task is not None and task.name == "mine" and task.tests["longer"]["context"] == 128
    path.write_text(f"{GOOD}solved: 0.5\n")
    assert said(str(path)).startswith("NLC0107 1: duplicate key 'solved'")
    path.write_text("nlc: 1\nname: other\nname: twice\n")
    assert find_task(str(path)) is None
    path.write_text("nlc: 1\nname: other\n")
    assert said(str(path)) == "NLC0210 0: this file is not a task (it has no key 'task')"
    path.write_text("nlc: 1\n\ttask: other\n")
    assert said(str(path)).startswith("NLC0105")
    assert said(str(tmp_path / "none.yaml")).startswith("NLC0101")
