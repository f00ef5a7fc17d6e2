"""What every command shares: options, ways to end, and the two streams (results on stdout, the rest on stderr)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nlc.cli import completion
from nlc.target import Target


class Status(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAILED = 1  # the run failed
    USAGE = 2  # usage, or an illegal spec
    UNMET = 3  # a check, verification or threshold failed
    MISSING = 4  # environment or data missing
    INTERRUPTED = 130
    TERMINATED = 143


class Stop(Exception):
    """Ends a command with one line on stderr and a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


SpecArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A path, a shipped name (hope), or - for standard input.", autocompletion=completion.specs
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the spec, e.g. sizes.width=64. Repeatable."),
]
TargetOption = Annotated[
    Target,
    typer.Option("--target", help="Whose kernels the program may call; train and verify take that of their --device."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N; auto is a GPU where there is one.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="What a training step may take: 8GB, 512MiB; run.memory of the spec otherwise."
    ),
]
MOST_ITEMS = 1_000_000  # of a test set: they are made in memory

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def settings(pairs: Iterable[str] | None, **run: object) -> dict[str, str | object]:
    """`--set` options as a mapping; the values stay text until the spec gives them a type.

    run: options that say a value of the spec's `run`, None where they are not given.
    """
    given: dict[str, str | object] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise Stop(Status.USAGE, f"--set {pair}: expected KEY=VALUE, for example --set sizes.width=64")
        if key.strip() in given:
            raise Stop(Status.USAGE, f"--set {key.strip()} is given twice")
        given[key.strip()] = value.strip()
    for option, said in run.items():
        if said is not None and given.setdefault(f"run.{option}", said) is not said:
            raise Stop(Status.USAGE, f"--{option} and --set run.{option} say the same: give one")
    return given


def called(spec: str) -> str:
    """A spec argument in messages; standard input has the name that its diagnostics give it."""
    return "<stdin>" if spec == "-" else spec


def calm_threads() -> None:
    """Before torch is imported: let its threads sleep soon while they wait for one another.

    They spin otherwise, and on a machine that does something else as well a run is then ten times slower."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_there(word: str) -> str:
    """The device that --device names.  Ends the command where there is none."""
    calm_threads()
    from runtime.device import choose
    from runtime.errors import RunError

    try:
        return str(choose(word))
    except RunError as error:
        raise Stop(error.status, str(error)) from None


def say(text: str) -> None:
    """A result, on stdout.  Where its reader has left, as `| head` does, the rest goes nowhere.

    Raises OSError, with the stream's name, where it cannot be written for another reason: a disk is full."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        error.filename = "standard output"
        raise


def note(text: str) -> None:
    """A word about what happens, on stderr."""
    print(text, file=sys.stderr)


def say_json(value: Any) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say_or_write(text: str, out: Path | None) -> None:
    """A result, on stdout or in a file; the file appears whole or not at all."""
    if out is None:
        say(text.removesuffix("\n"))
        return
    write_whole(text, out)
    note(f"wrote {out}")


def write_whole(text: str, out: Path) -> None:
    """The text in a file, whole or not at all."""
    if out.is_dir():
        raise Stop(Status.USAGE, f"{out} is a folder: a file is expected")
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        part.replace(out)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise Stop(Status.MISSING, f"{out}: {error.strerror}") from None


def choose(word: str, choices: Iterable[str], what: str) -> str:
    """The word, when it is one of the choices; otherwise a usage error that names the nearest."""
    known = list(choices)
    if word in known:
        return word
    from nlc.diagnostics import suggest

    raise Stop(Status.USAGE, f"unknown {what} '{word}': {suggest(word, known, 'one of')}")
