"""`nlc continual`: one architecture on tasks in order, beside what it must be read against.

    naive     one task after another: the lower bound
    replay    the same, with some texts of each label kept and read again
    joint     all tasks at once, in any order: the upper bound

each as the spec is and, where it has levels slower than a token, with those off; and each with learning on and off at
test time.  All read equally many tokens.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli import completion
from nlc.cli.common import (
    DeviceOption,
    JsonOption,
    SetOption,
    SpecArgument,
    Status,
    Stop,
    note,
    say,
    say_json,
    settings,
)

if TYPE_CHECKING:
    from nlc.spec import Spec, TaskSpec

METHODS = ("naive", "replay", "joint")
TOLD = ("final", "average", "learning", "forgetting", "backward_transfer", "forward_transfer")


def register(app: typer.Typer) -> None:
    app.command()(continual)


def continual(
    spec: SpecArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the runs and of continual.json.")],
    task: Annotated[
        str,
        typer.Option(
            "--task", metavar="TASK", help="Tasks that are learned in order.", autocompletion=completion.tasks
        ),
    ] = "class_incremental",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each, of weights and of the order.")] = 1,
    replay: Annotated[int, typer.Option("--replay", min=1, help="Kept for replay, of each label or text.")] = 8,
    items: Annotated[int, typer.Option("--items", min=1, help="Test items of each task.")] = 64,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="Where the texts are; or NLC_DATA.")
    ] = None,
    device: DeviceOption = "auto",
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Learn tasks in order: naive, with replay, all at once; with slow levels off; with learning off at test time.

    Runs that are finished are kept, so the same command goes on where it was.

    Example: nlc continual hope --out build/continual
    """
    from nlc.spec import load, load_task

    found, chosen = load_task(task), settings(set_)
    if "order" not in found.knobs:
        raise Stop(Status.USAGE, f"task {found.name} is not learned in order; class_incremental and clinc150 are")
    if found.knobs["replay"] or found.knobs["mixed"]:
        raise Stop(Status.USAGE, f"task {found.name}: replay and mixed are what the methods say; --replay is how many")
    plan, base = Plan(spec, chosen, found, replay, items, data, device, out), load(spec, chosen)
    plan.begin(base)
    with redirect_stdout(sys.stderr):  # what each run says of itself
        for seed in range(seeds):
            for system, method in plan.arms(base):
                plan.run(system, method, seed)
    record = plan.record(base, seeds)
    (out / "continual.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    say_json(record) if json_ else say(table(record))


def slow_off(spec: Spec) -> dict[str, str]:
    """What turns the slow levels off: memories written less often than every token that are not the outermost level's.

    Their weights stay, at their start or, inside a sequence, as the outermost level's own: the parameters are as many.
    """
    from nlc.period import Unit
    from nlc.source import Position
    from nlc.spec.fields import parse_period

    found: dict[str, str] = {}
    for level in spec.resolved()["levels"]:
        if not isinstance(level["memories"], Mapping):
            continue
        for name, memory in level["memories"].items():
            said = (memory or {}).get("every") or level.get("every")
            period = None if said is None else parse_period(str(said), Position("", 1, 1))
            if (
                period is not None
                and period.unit is not Unit.NEVER
                and (period.unit is not Unit.TOKEN or period.count > 1)
            ):
                found[f"levels.{level['name']}.memories.{name}.every"] = "never"
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for.  A run of it lies in out/seed-0/<system>-<method>."""

    spec: str
    chosen: Mapping[str, str | object]
    task: TaskSpec
    replay: int
    items: int
    data: Path | None
    device: str
    out: Path

    def begin(self, spec: Spec) -> None:
        """Let the folder be this plan's.  Raises Stop where it is another's: runs of both would stand in one table."""
        meaning = {"spec": spec.resolved(), "task": self.task.as_dict(), "replay": self.replay, "items": self.items}
        both = (meaning | {"texts": self.digest()}, meaning)  # as it was written before, without the texts
        text, before = (json.dumps(told, indent=1, default=str) + "\n" for told in both)
        if self.data is not None and self.out.resolve() == self.data.resolve():
            raise Stop(Status.USAGE, f"{self.out} holds the texts: give another --out")
        path = self.out / "plan.json"
        if path.exists() and path.read_text(encoding="utf-8") not in (text, before):
            others = "another spec, task or number, or other texts"
            raise Stop(Status.USAGE, f"{self.out} holds runs of {others}: give another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def digest(self) -> str:
        """Of the texts, wherever they lie.  Raises Stop where they cannot be had."""
        from nlc.cli.tasks import runnable
        from runtime import exercise
        from runtime.errors import RunError

        try:
            lessons = exercise.load(runnable(self.task), self.data).lessons
        except RunError as error:
            raise Stop(error.status, str(error)) from None
        assert lessons is not None
        return lessons.digest

    def arms(self, spec: Spec) -> Iterator[tuple[str, str]]:
        for system in ("whole", *(("slow_off",) if slow_off(spec) else ())):
            for method in METHODS:
                yield system, method

    def folder(self, system: str, method: str, seed: int) -> Path:
        return self.out / f"seed-{seed}" / f"{system}-{method}"

    def lesson(self, method: str, seed: int) -> TaskSpec:
        """The task as this method learns it; an order of its own for each seed."""
        from nlc.spec.task import changed

        order = self.task.knobs["order"]
        knobs = {"replay": {"replay": self.replay}, "joint": {"mixed": 1}}.get(method, {})
        return changed(self.task, knobs | ({"order": order + seed} if seed else {}))

    def run(self, system: str, method: str, seed: int) -> None:
        """Train and examine, unless that is done; a run that was cut goes on.  Raises Stop where it fails."""
        from nlc.cli.runs import HowToRun, go_on, in_order, run
        from nlc.cli.tasks import runnable
        from nlc.spec import load

        folder = self.folder(system, method, seed)
        if (folder / "exam.json").exists():
            examined(folder)  # what is damaged is said before others are trained
            return
        how = HowToRun({"--data": self.data, "--field": None}, device=self.device, quiet=True)
        note(f"{folder}: {self.task.name}")
        if not (folder / "checkpoints" / "latest").exists() and (folder / "lock.json").exists():
            status = go_on(folder, None, False, how)
        elif (folder / "lock.json").exists():
            status = 0 if finished(folder) else go_on(folder, None, False, how)
        else:
            lesson = runnable(self.lesson(method, seed))
            sizes = {f"sizes.{size}": getattr(lesson.kind(), size) for size in ("context", "vocab")}
            chosen = {**self.chosen, **sizes, "run.seed": seed}
            spec = load(self.spec, chosen)
            off = slow_off(spec) if system == "slow_off" else {}
            told = in_order(lesson, spec.model.run.batch, chosen, how)
            status = run(load(self.spec, chosen | off | told), folder, how, lesson)
        if status:
            raise Stop(status, f"{folder}: the run ended with status {status}; the same command goes on")
        self.examine(folder)

    def examine(self, folder: Path) -> None:
        from runtime.directory import RunDirectory
        from runtime.errors import RunError
        from runtime.evaluate.exam import examine_run, task_of
        from runtime.whole import replace_text

        try:
            facts = RunDirectory(folder).read_lock()
            own = task_of(facts)
            assert own is not None
            (exam,) = examine_run(folder, [own], items=self.items, text=self.data, device=self.device)
        except RunError as error:
            raise Stop(error.status, str(error)) from None
        result = {"steps": facts["steps"], "tokens": facts["steps"] * facts["batch"] * facts["context"]}
        result |= {"parameters": parameters(folder), **exam.as_dict()}
        replace_text(folder / "exam.json", json.dumps(result, indent=1) + "\n")

    def record(self, spec: Spec, seeds: int) -> dict[str, Any]:
        """Everything, as JSON."""
        from nlc.cli.tasks import facts

        rows = []
        for system, method in self.arms(spec):
            exams = [examined(self.folder(system, method, seed)) for seed in range(seeds)]
            rows.append({"spec": self.spec, "system": system, "method": method, "seeds": exams, **over(exams)})
        told = {"spec": self.spec, "set": dict(self.chosen), "task": facts(self.task), "replay": self.replay}
        return told | {"items": self.items, "slow_off": slow_off(spec), "rows": rows}


def examined(folder: Path) -> dict[str, Any]:
    """The exam of a run.  Raises Stop where the file is damaged."""
    path = folder / "exam.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        over([found])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        said = f"'{path}' is no exam of a run ({type(error).__name__}: {error})"
        raise Stop(Status.MISSING, f"{said}: without it the same command makes it again") from None
    return found


def finished(folder: Path) -> bool:
    """Whether the last checkpoint is that of the last step."""
    from runtime.directory import RunDirectory

    last = (folder / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
    return bool(int(last.removeprefix("step-")) == RunDirectory(folder).read_lock()["steps"])


def parameters(folder: Path) -> int:
    from safetensors import safe_open

    last = (folder / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
    with safe_open(folder / "checkpoints" / last / "model.safetensors", framework="pt") as found:
        return sum(found.get_tensor(name).numel() for name in found.keys())  # noqa: SIM118


def over(exams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, of every measure, with learning on and off."""
    found: dict[str, Any] = {name: exams[0][name] for name in ("parameters", "tokens")}
    for learning in ("on", "off"):
        found[learning] = {}
        for name in TOLD:
            values = [exam[learning][name] for exam in exams if exam[learning][name] is not None]
            spread = statistics.stdev(values) if len(values) > 1 else None
            found[learning][name] = {"mean": statistics.mean(values), "deviation": spread} if values else None
    return found


def table(record: Mapping[str, Any]) -> str:
    """For a person: a row a method, and what the columns are."""
    from nlc.cli.exam import aligned, number
    from runtime.evaluate.tasks.continual.measures import DEFINITIONS

    unit = record["rows"][0]["seeds"][0]["on"]["unit"]

    def shown(measure: Mapping[str, float] | None) -> str:
        if measure is None:
            return "-"
        spread = measure["deviation"]
        return number(measure["mean"], unit) + ("" if spread is None else f" ± {number(spread, unit)}")

    head = ("method", "slow levels", "final", "learning off", *(name.replace("_", " ") for name in TOLD[1:]))
    rows = [(*head, "parameters", "tokens")]
    for row in record["rows"]:
        slow = ("on" if row["system"] == "whole" else "off") if record["slow_off"] else "none"
        cells = [shown(row["on"][name]) for name in TOLD]
        cells[1:1] = [shown(row["off"]["final"])]
        rows.append((row["method"], slow, *cells, f"{row['parameters']:,}", f"{row['tokens']:,}"))
    title = f"{record['spec']}, {record['task']['name']}: {unit}, {len(record['rows'][0]['seeds'])} seeds"
    meanings = [(name.replace("_", " "), meaning) for name, meaning in DEFINITIONS.items()]
    return "\n\n".join([title, "\n".join(aligned(rows, text=2)), "\n".join(aligned(meanings, text=2))])
