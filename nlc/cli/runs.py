"""Commands that run what was compiled: train, eval.  Torch is imported when they do."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli.common import (
    JsonOption,
    SetOption,
    SpecArgument,
    Status,
    Stop,
    calm_threads,
    note,
    say,
    say_json,
    settings,
)

if TYPE_CHECKING:
    from nlc.spec import Spec

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="A text file or a folder; otherwise the source of Python's library."),
]


class Learn(StrEnum):
    on = "on"
    off = "off"


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command("eval")(evaluate)


def train(
    spec: SpecArgument,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; run.steps of the spec otherwise.")] = None,
    data: DataOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Keep the run in runs/NAME.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep the run in this folder.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; run.seed of the spec otherwise.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> int:
    """Compile a spec and train it; the run is kept in runs/NAME."""
    from nlc.spec import load

    if name is not None and out is not None:
        raise Stop(Status.USAGE, "--name and --out both say where the run is kept: give one")
    if name is not None and (Path(name).name != name or not name.strip() or name.startswith(".")):
        raise Stop(Status.USAGE, f"--name '{name}': a name is expected, not a path; --out takes a path")
    chosen = settings(set_)
    for option, value in (("steps", steps), ("seed", seed)):
        if value is not None and chosen.setdefault(f"run.{option}", value) is not value:
            raise Stop(Status.USAGE, f"--{option} and --set run.{option} say the same: give one")
    loaded = load(spec, chosen)
    return run(loaded, Path("runs") / name if name else out, data, quiet, json_)


def run(spec: Spec, folder: Path | None, data: Path | None = None, quiet: bool = False, json_: bool = False) -> int:
    """Compile into `folder`/code and run the train.py written there; its exit status."""
    if spec.model.inputs:
        hint = f"`nlc compile` makes a module of it, and `nlc verify {spec.source}` compares it with the interpreter"
        raise Stop(Status.USAGE, f"{spec.source} is a bare program: it has no loss of its own to train on; {hint}")
    calm_threads()
    from nlc.compile import compile
    from nlc.show import resolved_text, written_text
    from runtime import program
    from runtime.directory import RunDirectory, fresh

    directory = RunDirectory(folder or fresh(spec.model.name))
    if directory.used:
        raise Stop(Status.USAGE, f"{directory.path} already holds a run: give another --name or --out")
    compile(spec, directory.code)
    directory.spec.write_text(written_text(spec) + "\n", encoding="utf-8")
    directory.resolved.write_text(resolved_text(spec) + "\n", encoding="utf-8")
    arguments = ["--out", str(directory.path)]
    arguments += ["--data", str(data)] if data is not None else []
    arguments += ["--quiet"] if quiet else []
    arguments += ["--json"] if json_ else []
    status: int = program.load(directory.code).main(arguments)
    return status


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or one of its checkpoints.")],
    learn: Annotated[
        Learn, typer.Option("--learn", help="Whether the levels inside a sequence go on learning.")
    ] = Learn.on,
    data: DataOption = None,
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="About how many tokens to read; 0 is all.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Validation loss and bits per byte of a trained run."""
    calm_threads()
    from runtime.errors import RunError
    from runtime.evaluate import evaluate_run

    try:
        result = evaluate_run(run, text=data, tokens=tokens, learn=learn is Learn.on, warn=note)
    except RunError as error:
        raise Stop(error.status, str(error)) from None
    if json_:
        say_json({"run": str(run), "learn": learn.value, **result.as_dict()})
        return
    fires = "  ".join(f"{level} {count:,}" for level, count in result.fires.items())
    say(f"validation   {result.bits_per_byte:.4f} bits per byte ({result.loss:.4f} nats, on {result.tokens:,} tokens)")
    say(f"learning     {learn.value}" + (f"; levels fired {fires}" if fires else ""))
