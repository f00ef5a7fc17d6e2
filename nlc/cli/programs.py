"""Commands that make a program of a spec: compile, verify.  Torch is imported by what they call, when they call it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlc.cli import completion
from nlc.cli.common import (
    JsonOption,
    MemoryOption,
    SetOption,
    SpecArgument,
    Status,
    Stop,
    TargetOption,
    calm_threads,
    cores,
    device_there,
    note,
    say,
    say_json,
    settings,
)
from nlc.cli.specs import rule_in
from nlc.target import Target


def register(app: typer.Typer) -> None:
    for command in (compile_, verify):
        app.command(command.__name__.strip("_"))(command)


def compile_(
    spec: SpecArgument,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Where to write; build/<name> otherwise.")
    ] = None,
    target: TargetOption = Target.CPU,
    memory: MemoryOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Compile a spec to a readable PyTorch package.

    Example: nlc compile hope -o build/hope
    """
    from nlc.compile import STARTS, compile
    from nlc.spec import load

    loaded = load(spec, settings(set_, memory=memory))
    folder = out or Path("build") / loaded.model.name
    program = compile(loaded, folder, target=target)
    files = [*program.files, *[STARTS] * bool(program.inherited)]
    if json_:
        say_json({"name": program.graph.name, "out": str(folder), "files": files, **program.inherited.as_dict()})
        return
    for line in program.inherited.lines():
        note(line)
    say("\n".join(str(folder / name) for name in files))


def verify(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC", help="Paths or shipped names, of specs or rules.", autocompletion=completion.specs
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every shipped spec and rule.")] = False,
    chunk: Annotated[
        list[int] | None, typer.Option("--chunk", min=1, help="Chunk lengths to verify at; 16, 1 and 64 otherwise.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="Where the compiled program runs: cpu, cuda or cuda:N.")
    ] = "cpu",
    compile_: Annotated[
        bool, typer.Option("--compile", help="By torch's compiler, too, as nlc train --compile.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Specs verified at a time; as many as there are cores.", show_default=False),
    ] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> int:
    """Compare the compiled program with the interpreter.

    Example: nlc verify linear_attention --chunk 16
    """
    if bool(specs) is all_:
        raise Stop(Status.USAGE, "name the specs to verify, or say --all")
    if specs and "-" in specs:
        raise Stop(Status.USAGE, "a spec is read several times to verify it: give a path, not standard input")
    calm_threads()
    from nlc.spec import load, rules, shipped
    from nlc.verify.every import every, summary
    from nlc.verify.small import CHUNKS

    place, chosen = device_there(device), settings(set_)
    names = [*shipped(), *rules()] if all_ else specs or []
    for name in names:  # what is not legal is said before anything is computed
        if rule_in(name, chosen) is None:
            load(name, chosen)
    reports = []
    at_once = 1 if place != "cpu" else jobs or cores()
    if compile_:
        from runtime.compiled import refusal

        if why_not := refusal():
            raise Stop(Status.MISSING, why_not)
        if plain := [name for name in names if rule_in(name, chosen) is not None]:
            note(f"--compile: not of rules, which are no steps: {', '.join(plain)}")
    for report in every(names, chosen, chunk or CHUNKS, place, at_once, compile_):
        reports.append(report)
        if all_:
            note(f"{len(reports)} of {len(names)}: {report.lines()[0]}")
        if not json_ and not (all_ and report.passed):
            say("\n".join(report.lines()))
    passed = all(report.passed for report in reports)
    if json_:
        say_json({"ok": passed, "specs": [report.as_dict() for report in reports]})
    elif len(reports) > 1:
        say(summary(reports))
    return Status.DONE if passed else Status.UNMET
