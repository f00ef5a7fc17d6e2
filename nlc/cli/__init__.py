"""The command line: arguments in, exit status out.

Each module here holds one group of commands; `main` imports that of the command it is given, runs it, and turns every
way it can end into a status and, at most, one clear message on stderr.  Importing this package imports neither torch
nor the compiler.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from nlc.cli.common import Status, Stop, note, say, say_json

GROUPS = {  # module: its commands, as `nlc --help` lists them
    "specs": ("check", "show", "graph", "explain", "schema"),
    "starting": ("init", "diff"),
    "programs": ("compile", "verify"),
    "runs": ("train", "eval"),
    "tasks": ("tasks",),
    "continual": ("continual",),
    "search": ("search",),
    "generate": ("generate",),
    "state": ("state",),
    "replay": ("replay",),
    "reporting": ("report",),
    "tokenizer": ("tokenizer",),
    "bench": ("bench",),
    "doctor": ("doctor",),
    "demo": ("demo",),
}


def print_version(wanted: bool) -> None:
    if wanted:
        from nlc import __version__

        say(f"nlc {__version__}")
        raise typer.Exit(0)


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    pass


def application(command: str = "") -> typer.Typer:
    """`nlc` with this command alone, or with all of them where it is none: what is not asked for costs no time."""
    app = typer.Typer(
        name="nlc",
        help="Compile nested-learning specs to PyTorch programs: check, look, compile, verify, train.\n\n"
        "Example: nlc check hope",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(options)
    asked = [module for module, names in GROUPS.items() if command in names]
    for module in asked or GROUPS:
        import_module(f"nlc.cli.{module}").register(app)
    if asked:
        app.registered_commands = [info for info in app.registered_commands if named(info) == command]
    return app


def named(info: typer.models.CommandInfo) -> str:
    return info.name or (info.callback.__name__ if info.callback else "")


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    from nlc.diagnostics import CompilerBug, SpecError

    try:
        if not arguments:
            application()(args=["--help"], prog_name="nlc", standalone_mode=False)
            return Status.USAGE
        status = application(arguments[0])(args=list(arguments), prog_name="nlc", standalone_mode=False)
        return status if isinstance(status, int) else Status.DONE
    except SpecError as error:
        return failed(arguments, Status.USAGE, str(error), diagnostics=[d.as_dict() for d in error.diagnostics])
    except Stop as stop:
        return failed(arguments, stop.status, f"nlc: {stop}")
    except typer.TyperException as error:
        return failed(arguments, error.exit_code, usage(error))
    except CompilerBug as bug:
        return failed(arguments, Status.FAILED, f"nlc: {bug}")
    except (KeyboardInterrupt, typer.Abort):
        return failed(arguments, Status.INTERRUPTED, "nlc: interrupted")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""  # unknown where a write fails
        return failed(arguments, Status.MISSING, f"nlc: {where}{error.strerror or error}")


def failed(arguments: Sequence[str], status: int, message: str, **more: object) -> int:
    """Say why the command ends, on stderr, or on stdout where JSON is asked for and stdout can be written."""
    if "--json" in arguments:
        try:
            say_json({"ok": False, "status": int(status), "error": message.removeprefix("nlc: "), **more})
            return status
        except OSError:
            pass
    note(message)
    return status


def usage(error: typer.TyperException) -> str:
    """One line for a misused command: what is wrong, and where help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "nlc"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]} (see {command} --help)"


def entry() -> None:
    """The console script `nlc`."""
    open_streams()
    sys.exit(main(sys.argv[1:]))


def open_streams() -> None:
    """A stream that is closed, as by `>&-`, fails where it is used, and no file opened later takes its place.

    What goes to a closed stderr is lost."""
    for number, name, way in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # gets the lowest number that is free: this one
            raw = io.FileIO(number, "r" if name == "stdin" else "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, write_through=True))
