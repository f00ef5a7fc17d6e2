"""Commands for a spec of one's own: init, diff.  Neither imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlc.cli import completion
from nlc.cli.common import JsonOption, SetOption, SpecArgument, Status, Stop, say, say_json, say_or_write, settings


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(diff)


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The spec to write, e.g. mine.yaml.")],
    source: Annotated[
        str,
        typer.Option("--from", metavar="SPEC", help="The shipped spec to begin with.", autocompletion=completion.specs),
    ] = "hope",
    extends: Annotated[bool, typer.Option("--extends", help="Only `extends:` it, with room for what changes.")] = False,
) -> None:
    """Write a spec of one's own, from a shipped one with its comments.

    Example: nlc init mine.yaml --from titans_lmm
    """
    from nlc.starting import copied, extending

    if file.suffix not in (".yaml", ".yml"):
        raise Stop(Status.USAGE, f"{file}: a spec is a .yaml file")
    if file.exists():
        raise Stop(Status.USAGE, f"{file} is already there; nothing was written")
    say_or_write((extending if extends else copied)(source, file.stem), file)
    say(f"nlc check {file}")


def diff(
    before: SpecArgument,
    after: SpecArgument,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Compare two specs: keys, graph, cost.  --set changes the second.

    Example: nlc diff hope hope --set levels.titans.chunk=16
    """
    from nlc.diff import compare, report
    from nlc.spec import load

    found = compare(load(before), load(after, settings(set_)))
    say_json(found.as_dict()) if json_ else say(report(found))
