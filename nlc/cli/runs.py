"""Commands that run what was compiled: train, eval.  Torch is imported when they do."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli import completion
from nlc.cli.common import (
    MOST_ITEMS,
    DeviceOption,
    JsonOption,
    MemoryOption,
    SetOption,
    Status,
    Stop,
    calm_threads,
    device_there,
    note,
    say,
    say_json,
    settings,
)
from nlc.target import Target

if TYPE_CHECKING:
    from nlc.inherit import Inherited
    from nlc.spec import Spec
    from runtime.directory import RunDirectory
    from runtime.evaluate.tasks import Task

TASK = "task.json"  # beside train.py

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="A file, a folder, 'a/pattern*', JSON lines; or Python's own source."),
]
FieldOption = Annotated[
    str | None, typer.Option("--field", metavar="NAME", help="The field of records that holds the text (text).")
]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json; otherwise a token is a byte.")
]


class Pack(StrEnum):
    text = "text"
    documents = "documents"


PackOption = Annotated[
    Pack | None, typer.Option("--pack", help="Documents as one text, or each from the beginning (usual for records).")
]


class OnNan(StrEnum):
    stop = "stop"
    skip = "skip"
    clip = "clip"


class Learn(StrEnum):
    on = "on"
    off = "off"


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command("eval")(evaluate)


def train(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="SPEC",
            help="A path, a shipped name (hope), or -; not needed with --resume.",
            autocompletion=completion.specs,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; run.steps of the spec otherwise.")] = None,
    data: DataOption = None,
    field: FieldOption = None,
    tokenizer: TokenizerOption = None,
    pack: PackOption = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="Learn a task, not a text: mqar, 'mqar(pairs=16)', a file.",
            autocompletion=completion.tasks,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Keep the run in runs/NAME.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep the run in this folder.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; run.seed of the spec otherwise.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with the run in this folder.")
    ] = None,
    allow: Annotated[
        bool, typer.Option("--allow", help="Go on although the spec, the data or a setting is another.")
    ] = False,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Keep so many of the newest checkpoints; 0 is all.")] = 0,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-every",
            metavar="N|TIME",
            help="Save after so many steps, or so long: 500, 10m; 0 is at the end.",
        ),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="TIME", help="Save and end (75) after so long: 90s, 2h30m.")
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes on this machine that share every batch.")
    ] = 1,
    device: DeviceOption = "auto",
    memory: MemoryOption = None,
    on_nan: Annotated[
        OnNan, typer.Option("--on-nan", help="A step that is not finite stops the run, is skipped, or clipped (as 0).")
    ] = OnNan.stop,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="On a GPU, record a step once and replay it (a CUDA graph).")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Steps by torch's compiler: minutes once, then faster.")
    ] = False,
    tape: Annotated[
        bool, typer.Option("--tape", help="Record the operations of a step once and run these alone: faster on a CPU.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Mirror the metrics for TensorBoard, in RUN/tensorboard.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and write nothing.")] = False,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> int:
    """Compile a spec and train it; the run is kept in runs/NAME.

    Example: nlc train hope --steps 600 --name first

    Example: nlc train --resume runs/first

    Example: nlc train deltanet --task mqar --name recall
    """
    from nlc.spec import load

    what = {"--data": data, "--field": field, "--tokenizer": tokenizer, "--pack": pack and pack.value}
    how = HowToRun(
        what, keep, checkpoint_every, time_limit, processes, device, on_nan, cuda_graphs, compile_, tape, tensorboard,
        quiet, json_, dry_run,
    )  # fmt: skip
    how.check()
    if resume is not None:
        if dry_run:
            raise Stop(Status.USAGE, "--dry-run is for a run that has not begun, not for --resume")
        begun = {"--name": name, "--out": out, "--steps": steps, "--seed": seed, "--memory": memory, "--task": task}
        return resumed(resume, spec, set_, begun, allow, how)
    if spec is None:
        raise Stop(Status.USAGE, "say which SPEC to train, or which run to --resume")
    if allow:
        raise Stop(Status.USAGE, "--allow is for --resume")
    if name is not None and out is not None:
        raise Stop(Status.USAGE, "--name and --out both say where the run is kept: give one")
    if name is not None and (Path(name).name != name or not name.strip() or name.startswith(".")):
        raise Stop(Status.USAGE, f"--name '{name}': a name is expected, not a path; --out takes a path")
    chosen = settings(set_, steps=steps, seed=seed, memory=memory)
    lesson = None if task is None else learning(task, chosen, how)
    found = load(spec, chosen)
    if lesson is not None and lesson.ordered:
        found = load(spec, chosen | in_order(lesson, found.model.run.batch, chosen, how))
    return run(found, Path("runs") / name if name else out, how, lesson)


def resumed(
    run: Path, spec: str | None, changes: list[str] | None, begun: Mapping[str, object], allow: bool, how: HowToRun
) -> int:
    """Go on with a run.  Raises Stop where the command says again what a run begins with (`begun`)."""
    from nlc.spec import load

    if wrong := [option for option, value in begun.items() if value is not None]:
        value = begun[wrong[0]]
        key = {"--steps": f"run.steps={value}", "--seed": f"run.seed={value}"}.get(wrong[0])
        other = f"nlc train {run / 'resolved.yaml'} --set {key} --resume {run} --allow"
        hint = f"; to go on with another: {other}" if key else ""
        raise Stop(Status.USAGE, f"{wrong[0]} cannot be given with --resume: the run has it already{hint}")
    if changes and spec is None:
        raise Stop(Status.USAGE, "--set needs the SPEC that it changes")
    return go_on(run, None if spec is None else load(spec, settings(changes)), allow, how)


def learning(task: str, chosen: dict[str, str | object], how: HowToRun) -> Task:
    """The task of --task, which says the sizes of its sequences."""
    from nlc.cli.tasks import runnable
    from nlc.spec import load_task

    calm_threads()
    found = runnable(load_task(task))
    for option in ("--tokenizer", "--pack"):
        if how.data.get(option) is not None:
            raise Stop(Status.USAGE, f"{option} is for a text, and --task takes its place")
    for size in ("context", "vocab"):
        if f"sizes.{size}" in chosen:
            raise Stop(
                Status.USAGE, f"--set sizes.{size}: the task says it; --task takes knobs, as in 'mqar(pairs=16)'"
            )
        chosen[f"sizes.{size}"] = getattr(found.kind(), size)
    return found


def in_order(task: Task, batch: int, chosen: Mapping[str, object], how: HowToRun) -> dict[str, str | object]:
    """What tasks that are learned one after another say of a run: how long it is, and that no task has a lower rate."""
    from runtime import exercise
    from runtime.errors import RunError

    if "run.steps" in chosen:
        raise Stop(Status.USAGE, "--steps: the task says it; --task takes knobs, as in 'class_incremental(passes=2)'")
    try:
        course = exercise.load(task, *(how.data[option] for option in ("--data", "--field"))).course(batch)  # type: ignore[arg-type]
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    assert course is not None
    return {"run.steps": course.steps, **({} if "run.schedule" in chosen else {"run.schedule": "constant"})}


@dataclass(frozen=True, slots=True)
class HowToRun:
    """What train.py is told on its command line, and in how many processes it runs."""

    data: Mapping[str, object]  # options that say what is learned from
    keep: int = 0
    checkpoint_every: str | None = None
    time_limit: str | None = None
    processes: int = 1
    device: str = "auto"
    on_nan: str = "stop"
    cuda_graphs: bool = False
    compile: bool = False
    tape: bool = False
    tensorboard: bool = False
    quiet: bool = False
    json: bool = False
    dry: bool = False

    def check(self) -> None:
        """Ends the command where train.py would not understand an option; it would say so in its own words."""
        recorded = {"--compile": self.compile, "--tape": self.tape, "--cuda-graphs": self.cuda_graphs}
        if len(asked := [option for option, wanted in recorded.items() if wanted]) > 1:
            raise Stop(Status.USAGE, f"{' and '.join(asked)} each record the steps: give one")
        if self.checkpoint_every is None and self.time_limit is None:
            return
        calm_threads()
        from runtime.settings import duration, interval

        for option, text, read in (
            ("--checkpoint-every", self.checkpoint_every, interval),
            ("--time-limit", self.time_limit, duration),
        ):
            try:
                read("1s" if text is None else text)
            except ArgumentTypeError as error:
                raise Stop(Status.USAGE, f"{option} {error}") from None

    def arguments(self) -> list[str]:
        given = {**self.data, "--keep": self.keep or None}
        given |= {"--checkpoint-every": self.checkpoint_every, "--time-limit": self.time_limit}
        given |= {"--device": self.device, "--on-nan": self.on_nan}
        said = [str(word) for option, value in given.items() if value is not None for word in (option, value)]
        flags = {"--cuda-graphs": self.cuda_graphs, "--compile": self.compile, "--tape": self.tape}
        flags |= {"--tensorboard": self.tensorboard, "--quiet": self.quiet, "--json": self.json}
        return said + [flag for flag, wanted in flags.items() if wanted]


def run(spec: Spec, folder: Path | None, how: HowToRun, task: Task | None = None) -> int:
    """Compile into `folder`/code and run the train.py written there, on a text or a task; its exit status."""
    if spec.model.inputs:
        hint = f"`nlc compile` makes a module of it, and `nlc verify {spec.source}` compares it with the interpreter"
        raise Stop(Status.USAGE, f"{spec.source} is a bare program: it has no loss of its own to train on; {hint}")
    from runtime.directory import RunDirectory, fresh

    device = device_there(how.device)
    target = Target.of(device)
    directory = RunDirectory(folder or fresh(spec.model.name))
    if directory.used:
        message = f"{directory.path} already holds a run: give another --name or --out, or --resume it"
        raise Stop(Status.USAGE, message)
    told = spec.model.run
    if told.warmup >= told.steps and not how.quiet:
        short = f"run.warmup is {told.warmup} and run.steps {told.steps}: the rate never reaches its full value"
        note(f"{spec.origin('run.warmup')}: {short}")
    if how.dry:
        from nlc.cli.planned import plan, show

        show(plan(spec, directory.path, how.data, task, device, how.processes), how.json)
        return Status.DONE
    with directory.unless_begun():
        begins = write(spec, directory, target)
        for line in () if how.quiet else begins.lines():
            note(line)
        lesson = []
        if task is not None:
            (directory.code / TASK).write_text(json.dumps(task.as_dict(), indent=1) + "\n", encoding="utf-8")
            lesson = ["--task", str(directory.code / TASK)]
        status = start(directory.code, ["--out", str(directory.path), *lesson, *how.arguments()], how.processes)
    return reported(directory, status, how)


def write(spec: Spec, directory: RunDirectory, target: Target) -> Inherited:
    """The program of a spec, the spec as it was written, and with everything filled in; what begins as a checkpoint."""
    calm_threads()
    from nlc.compile import compile
    from nlc.show import resolved_text, written_text

    program = compile(spec, directory.code, target=target)
    directory.spec.write_text(written_text(spec) + "\n", encoding="utf-8")
    directory.resolved.write_text(resolved_text(spec) + "\n", encoding="utf-8")
    return program.inherited


def go_on(folder: Path, spec: Spec | None, allow: bool, how: HowToRun) -> int:
    """Resume a run with the program it has; with a spec's, where that is the same or the change is allowed."""
    from runtime.directory import RunDirectory
    from runtime.errors import RunError

    target = Target.of(device_there(how.device))
    directory = RunDirectory(folder)
    try:
        directory.read_lock()
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    changed = [] if spec is None else changes(directory, spec)
    if changed and not allow:
        lines = "\n".join(f"  {line}" for line in changed)
        message = f"{folder} was begun with another spec:\n{lines}"
        raise Stop(Status.USAGE, f"{message}\nnothing was changed; --allow goes on all the same")
    arguments = ["--resume", str(folder), *["--allow"] * allow, *how.arguments()]
    with TemporaryDirectory() as beside:  # the run takes the program over once nothing can be refused any more
        other = RunDirectory(beside) if changed else directory
        if spec is not None and changed:
            write(spec, other, target)
        status = start(other.code, arguments, how.processes)
    return reported(directory, status, how)


def reported(directory: RunDirectory, status: int, how: HowToRun) -> int:
    """The page of a run that has ended, however it did; the status of the run stays what it is."""
    if directory.lock.exists() and directory.metrics.exists():
        from nlc.cli.reporting import write_page

        try:
            place = write_page(directory.path)
        except (Stop, OSError) as error:
            note(f"no report.html: {error}")
        else:
            if not how.quiet:
                note(f"{place}: open it in a browser; nlc report {directory.path} adds text that the model writes")
    return status


def changes(directory: RunDirectory, spec: Spec) -> list[str]:
    """Every key of the resolved spec that is not what the run was begun with: levels.titans.chunk: 64 -> 32."""
    from nlc.diff import differences
    from nlc.spec import load

    return [str(change) for change in differences(load(directory.resolved).resolved(), spec.resolved())]


def start(code: Path, arguments: list[str], processes: int) -> int:
    """Run a package's train.py in this process, or in several that torchrun's launcher watches over."""
    calm_threads()
    if processes > 1:
        from nlc.launch import launch

        return launch(code / "train.py", arguments, processes)
    from runtime import program

    status: int = program.load(code).main(arguments)
    return status


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or one of its checkpoints.")],
    learn: Annotated[
        Learn | None, typer.Option("--learn", help="Whether the levels inside a sequence go on learning (on).")
    ] = None,
    data: DataOption = None,
    field: FieldOption = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=0, help="About how many tokens to read; 0 is all.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="TASK,...", help="Answers to tasks, with learning on and off.")
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", min=1, max=MOST_ITEMS, help="Items of each test set of a task (256).")
    ] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Validation loss and bits per byte of a trained run; or its answers to tasks, of a run that learned one.

    Example: nlc eval runs/first --learn off

    Example: nlc eval runs/recall --tasks mqar --items 64
    """
    calm_threads()
    from nlc.cli import exam
    from runtime.errors import RunError
    from runtime.evaluate import evaluate_run

    try:
        if chosen := exam.asked(run, tasks, data):
            if learn is not None or tokens is not None:
                option = "--tokens" if learn is None else "--learn"
                raise Stop(Status.USAGE, f"{option} is for a text; of tasks both ways to learn are shown, of --items")
            exam.examine(run, chosen, items or exam.ITEMS, data, field, device, json_)
            return
        if items is not None:
            raise Stop(Status.USAGE, "--items is for --tasks")
        learn, tokens = learn or Learn.on, tokens or 0
        on = learn is Learn.on
        result = evaluate_run(run, text=data, field=field, tokens=tokens, learn=on, device=device, warn=note)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    if json_:
        say_json({"run": str(run), "learn": learn.value, **result.as_dict()})
        return
    fires = "  ".join(f"{level} {count:,}" for level, count in result.fires.items())
    say(f"validation   {result.bits_per_byte:.4f} bits per byte ({result.loss:.4f} nats, on {result.tokens:,} tokens)")
    say(f"learning     {learn.value}" + (f"; levels fired {fires}" if fires else ""))
