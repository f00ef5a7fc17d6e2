"""The command line: arguments in, exit status out.

Each module here holds one group of commands; `main` runs one and turns every way it can end into a status and, at most,
one clear message on stderr.  Importing this package imports neither torch nor the compiler.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nlc.cli import demo, doctor, programs, reporting, runs, specs, starting, tokenizer
from nlc.cli.common import Status, Stop, note, say, say_json

app = typer.Typer(
    name="nlc",
    help="Compile nested-learning specs to PyTorch programs: check, look, compile, verify, train.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(wanted: bool) -> None:
    if wanted:
        from nlc import __version__

        say(f"nlc {__version__}")
        raise typer.Exit(0)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    pass


for group in (specs, starting, programs, runs, reporting, tokenizer, doctor, demo):
    group.register(app)


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    from nlc.diagnostics import CompilerBug, SpecError

    try:
        if not arguments:
            app(args=["--help"], prog_name="nlc", standalone_mode=False)
            return Status.USAGE
        status = app(args=list(arguments), prog_name="nlc", standalone_mode=False)
        return status if isinstance(status, int) else Status.DONE
    except SpecError as error:
        if "--json" in arguments:
            say_json({"ok": False, "diagnostics": [d.as_dict() for d in error.diagnostics]})
        else:
            note(str(error))
        return Status.USAGE
    except Stop as stop:
        note(f"nlc: {stop}")
        return stop.status
    except typer.TyperException as error:
        note(usage(error))
        return error.exit_code
    except CompilerBug as bug:
        note(f"nlc: {bug}")
        return Status.FAILED
    except (KeyboardInterrupt, typer.Abort):
        note("nlc: interrupted")
        return Status.INTERRUPTED
    except OSError as error:
        if error.filename is None:
            raise
        note(f"nlc: {error.filename}: {error.strerror}")
        return Status.MISSING


def usage(error: typer.TyperException) -> str:
    """One line for a misused command: what is wrong, and where help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "nlc"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]} (see {command} --help)"


def entry() -> None:
    """The console script `nlc`."""
    sys.exit(main(sys.argv[1:]))
