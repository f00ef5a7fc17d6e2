"""Tasks as data: specs/tasks/<name>.yaml to a TaskSpec.

load_task("mqar")                     a shipped task
load_task("mqar(pairs=16)")           with other knobs
load_task("mine.yaml")                a file
find_task(argument)                   the task of a file, or of a shipped name; None where the argument is no task
tasks()                               the names of the shipped tasks

nlc: 1
task: mqar
doc: What is asked, and what it tells architectures apart by.
source: arXiv 2312.04927, section 3
items: associative                    what makes the items (nlc.spec.task_kinds)
knobs: {context: 64, vocab: 64, pairs: 8, power: 0.01}
test:                                 test sets, by what they change; the first is as hard as training
  as trained: {}
  longer: {context: 128}
sweep: [{pairs: 16}, {pairs: 32}]     degrees of difficulty, each trained for itself
examples: 0                           different items of training; 0 is as many as are asked for
solved: 0.99                          accuracy of a model that is known to solve it
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticKnownError

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import parse_call
from nlc.source import Mapping, Position, Scalar, Sequence, Tree, remember
from nlc.spec.architecture import Section
from nlc.spec.extends import without_notes
from nlc.spec.fields import bind
from nlc.spec.rule import SHIPPED, Interval
from nlc.spec.task_kinds import KINDS, Number
from nlc.spec.text import parse, read
from nlc.spec.types import typed
from nlc.trees import Number as Literally

COURSE = ("tasks that are learned in order have no 'examples'", "shots or sequences say how many there are")
OPTION = "--task"  # the file that positions in a task's call are in
Changes = MappingOf[str, tuple[Number, Position]]


def _number(value: Any) -> Any:
    """A knob's value: one type in messages, whole or not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticKnownError("float_type")
    if not isfinite(value):
        raise PydanticKnownError("finite_number")
    return value


Values = dict[str, Annotated[Any, BeforeValidator(_number), WithJsonSchema({"type": "number"})]]


class TaskFields(Section):
    """A task: what is asked, how hard it is, and what it is tested on."""

    nlc: Literal[1]
    """Version of the language."""
    task: Annotated[str, Field(min_length=1)]
    """The task's name."""
    doc: str
    """What it asks."""
    source: str
    """The paper that it comes from."""
    items: str
    """What makes its items."""
    knobs: Values
    """How hard training is; every knob of the items has a value."""
    test: Annotated[dict[str, Values], Field(min_length=1)]
    """Test sets by name, each by the knobs that it changes; the first is as hard as training."""
    sweep: list[Values] = Field(default=[])
    """Degrees of difficulty by the knobs that they change, each trained and tested for itself."""
    examples: Annotated[int, Field(ge=0)] = 0
    """Different items of training; 0 is as many as there are steps for."""
    solved: Annotated[float, Field(ge=0, le=1)] | None = None
    """The accuracy that a model reaches which is known to solve it; nothing where none is known."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """knobs: of training; tests: by name, all knobs of each; sweep: what each degree of difficulty changes."""

    name: str
    doc: str
    source: str
    items: str
    knobs: MappingOf[str, Number]
    tests: MappingOf[str, MappingOf[str, Number]]
    sweep: tuple[MappingOf[str, Number], ...]
    examples: int
    solved: float | None
    changes: MappingOf[str, MappingOf[str, Number]]  # of the tests, as they are written

    def as_dict(self) -> dict[str, Any]:
        """What the runtime needs (runtime.evaluate.tasks.Task)."""
        tests = {name: dict(knobs) for name, knobs in self.tests.items()}
        return {
            "name": self.name, "items": self.items, "knobs": dict(self.knobs), "tests": tests,
            "examples": self.examples, "source": self.source, "solved": self.solved,
        }  # fmt: skip


def tasks() -> tuple[str, ...]:
    """The shipped tasks, by name."""
    return tuple(sorted(path.stem for path in (SHIPPED / "tasks").glob("*.yaml")))


def load_task(argument: str) -> TaskSpec:
    """A task by its name, its name with other knobs, or its file.  Raises SpecError with all that is wrong."""
    if (task := find_task(argument)) is not None:
        return task
    report = Reporter()
    if Path(argument).suffix in (".yaml", ".yml") or "/" in argument:
        text = read(Path(argument), argument, report)
        if text is not None and parse(text, argument, report) is not None:
            report.error("NLC0210", Position(argument, 0, 0), "this file is not a task", "it has no key 'task'")
        raise SpecError(report.found)
    remember(OPTION, argument)
    at = Position(OPTION, 1, 1, max(1, len(argument)))
    call = parse_call(argument, at)
    if call.func not in tasks():
        report.error(
            "NLC1101", call.at, f"no file and no shipped task '{call.func}'", suggest(call.func, tasks(), "tasks")
        )
        report.check()
    task = _load(call.func)
    given = bind(call, (*task.knobs, "examples"), "the task")
    places = dict(zip((name for name, _ in call.kwargs), call.places, strict=True))
    changes: dict[str, tuple[Number, Position]] = {}
    for name, value in given.items():
        if isinstance(value, Literally):
            changes[name] = (value.value, places.get(name, value.at))
        else:
            report.error("NLC0202", value.at, f"knob '{name}' is a number")
    report.check()
    return _changed(task, changes, argument, at)


def find_task(argument: str) -> TaskSpec | None:
    """The task of an argument of the command line; raises SpecError where it is one, and is wrong."""
    path = Path(argument)
    if not path.is_file():
        return _load(argument) if argument in tasks() else None
    report = Reporter()
    text = read(path, argument, report)
    tree = parse(text, argument, report) if text is not None else None
    if not isinstance(tree, Mapping) or "task" not in tree.entries:
        return None
    report.check()
    return task_from(tree)


def _load(name: str) -> TaskSpec:
    shown = f"specs/tasks/{name}.yaml"
    report = Reporter()
    text = read(SHIPPED / "tasks" / f"{name}.yaml", shown, report)
    tree = parse(text, shown, report) if text is not None else None
    report.check()
    assert isinstance(tree, Mapping)
    return task_from(tree)


def task_from(tree: Mapping) -> TaskSpec:
    """A task's tree as a TaskSpec.  Raises SpecError with everything that is wrong with it."""
    report = Reporter()
    tree = without_notes(tree)
    said = typed(tree, report, TaskFields)
    report.check()
    assert said is not None
    if said.items not in KINDS:
        at = tree.entries["items"].value.at
        report.error("NLC1102", at, f"unknown kind of items '{said.items}'", suggest(said.items, KINDS, "items"))
        report.check()
    at = tree.entries["knobs"].at
    base = _written(tree.get("knobs"))
    _check(said.items, base, at, report)
    if KINDS[said.items].ordered and said.examples:
        report.error("NLC1104", tree.entries["examples"].at, *COURSE)
    under = {} if report.found else base  # what is wrong with training is said once
    written, degrees = tree.get("test"), tree.get("sweep")
    for entry in written.entries.values() if isinstance(written, Mapping) else ():
        _check(said.items, under | _written(entry.value), entry.at, report, whole=bool(under))
    for degree in degrees.items if isinstance(degrees, Sequence) else ():
        harder = {knob: value for knob, value in _written(degree).items() if knob != "examples"}
        _check(said.items, under | harder, degree.at, report, whole=bool(under))
    report.check()
    return TaskSpec(
        said.task, said.doc, said.source, said.items, said.knobs, {n: said.knobs | t for n, t in said.test.items()},
        tuple(said.sweep), said.examples, said.solved, said.test,
    )  # fmt: skip


def _changed(task: TaskSpec, changes: Changes, called: str, at: Position) -> TaskSpec:
    """The task with other knobs, in training and wherever a test does not say another."""
    report = Reporter()
    knobs = {name: value for name, (value, _) in changes.items() if name != "examples"}
    before = {name: (value, at) for name, value in task.knobs.items()}
    mine = {name: said for name, said in changes.items() if name != "examples"}
    _check(task.items, before | mine, at, report)
    for name, change in () if report.found else task.changes.items():
        full = before | mine | {knob: (value, at) for knob, value in change.items()}
        _check(task.items, full, at, report, f"test '{name}': ")
    examples, place = changes.get("examples", (task.examples, at))
    if not isinstance(examples, int) or examples < 0:
        report.error("NLC0205", place, f"'examples' is {examples}; 0 or more, a whole number")
    elif examples and KINDS[task.items].ordered:
        report.error("NLC1104", place, *COURSE)
    report.check()
    base = dict(task.knobs) | knobs
    return replace(
        task,
        name=called,
        knobs=base,
        tests={n: base | dict(t) for n, t in task.changes.items()},
        examples=int(examples),
    )


def changed(task: TaskSpec, knobs: MappingOf[str, Number]) -> TaskSpec:
    """The task with other knobs, called as on the command line.  Raises SpecError where they cannot be."""
    if not knobs:
        return task
    given = ", ".join(f"{name}={value}" for name, value in knobs.items())
    called = f"{task.name[:-1]}, {given})" if task.name.endswith(")") else f"{task.name}({given})"
    remember(OPTION, called)
    at = Position(OPTION, 1, 1, len(called))
    return _changed(task, {name: (value, at) for name, value in knobs.items()}, called, at)


def _written(tree: Tree | None) -> dict[str, tuple[Number, Position]]:
    """Knobs with the places of their names; what is no number is reported elsewhere."""
    if not isinstance(tree, Mapping):
        return {}
    return {
        name: (entry.value.value, entry.at)
        for name, entry in tree.entries.items()
        if isinstance(entry.value, Scalar) and isinstance(entry.value.value, int | float)
    }


def _check(items: str, knobs: Changes, at: Position, report: Reporter, where: str = "", whole: bool = True) -> None:
    """Every knob there is, each in its range, and, of a `whole` set of them, all together."""
    kind, before = KINDS[items], len(report.found)
    for name, (value, place) in knobs.items():
        if (knob := kind.knobs.get(name)) is None:
            hint = suggest(name, kind.knobs, "knobs")
            report.error("NLC1103", place, f"{where}items '{items}' have no knob '{name}'", hint)
            continue
        interval = Interval.read(knob.within)
        assert interval is not None
        if knob.whole and not isinstance(value, int):
            report.error("NLC0202", place, f"{where}knob '{name}' is {value}; a whole number is expected")
        elif not interval.holds(value):
            report.error("NLC0205", place, f"{where}knob '{name}' is {value}, which is not {interval}")
    for name in kind.knobs if whole else ():
        if name not in knobs:
            report.error("NLC0203", at, f"knob '{name}' of items '{items}' is missing", kind.knobs[name].doc)
    if (
        whole
        and len(report.found) == before
        and (why := kind.needs({name: value for name, (value, _) in knobs.items()}))
    ):
        report.error("NLC1104", at, f"{where}{why}")
