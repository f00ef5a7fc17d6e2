"""`nlc bench`: how fast the generated code is, against what one would use instead.  Imports torch late."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli.common import JsonOption, Status, Stop, calm_threads, note, say, say_json, write_whole

if TYPE_CHECKING:
    from nlc.bench.record import Record
    from nlc.bench.rows import Row

QUICK, FULL = 5, 9  # turns


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="The goals alone, in minutes.")] = False,
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="PATTERN", help="Only these rows, e.g. cell-loop or 'layer-*'. Repeatable."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say which rows there are, and measure nothing.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Also write bench.json and bench.md there, as it goes."),
    ] = None,
    divide: Annotated[int, typer.Option("--divide", min=1, hidden=True, help="Divide every size by this.")] = 1,
    json_: JsonOption = False,
) -> int:
    """Measure the generated code against loops, other forms, a Transformer and other packages.

    Example: nlc bench --quick
    """
    from nlc.bench.rows import ROWS, SWEEPS, Scale, named

    chosen, sweeps, left_out = list(ROWS), list(SWEEPS), frozenset[str]()
    if rows:
        try:
            chosen, sweeps = named(rows)
        except LookupError as unknown:
            raise Stop(Status.USAGE, no_such_row(str(unknown.args[0]))) from None
    elif quick:
        chosen, sweeps = [row for row in ROWS if row.quick or row.goal is not None], []
        left_out = frozenset(row.id for row in chosen if not row.quick)
    if list_:
        listed(chosen, sweeps, json_)
        return Status.DONE
    calm_threads()
    from nlc.bench.run import run

    turns = 1 if divide > 1 else QUICK if quick else FULL

    def keep(record: Record) -> None:
        if out is not None:
            write_whole(json.dumps(record.as_dict(), indent=1), out / "bench.json")
            write_whole(record.markdown(), out / "bench.md")

    scale, kind = Scale(by=divide, turns=turns), "quick" if quick else "full"
    record = run(chosen, sweeps, scale, kind, left_out, note, keep)
    if out is not None:
        note(f"wrote {out / 'bench.json'} and {out / 'bench.md'}")
    if json_:
        say_json(record.as_dict())
    else:
        say(record.markdown().removesuffix("\n"))
    return Status.FAILED if record.failed else Status.UNMET if record.below else Status.DONE


def no_such_row(pattern: str) -> str:
    """A usage error that names the nearest."""
    from nlc.bench.rows import ROWS, SWEEPS
    from nlc.diagnostics import suggest

    known = [*(row.id for row in ROWS), *SWEEPS]
    return f"--rows {pattern}: no such row: {suggest(pattern, known)} (nlc bench --list says all)"


def listed(rows: Sequence[Row], sweeps: Sequence[str], json_: bool) -> None:
    if json_:
        say_json({"rows": [{"id": row.id, "what": row.what, "quick": row.quick} for row in rows], "sweeps": [*sweeps]})
        return
    width = max(len(id) for id in (*(row.id for row in rows), *sweeps))
    for row in rows:
        say(f"{row.id:{width}}  {row.what}")
    for id in sweeps:
        say(f"{id:{width}}  lengths 256 to 8,192, batches 1 to 16")
