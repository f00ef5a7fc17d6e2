"""`nlc report`: a run, several, or a search as one HTML page.  Torch is imported for the samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli.common import JsonOption, Status, Stop, calm_threads, note, say, say_or_write, write_whole
from nlc.cli.searched import JOURNAL, is_search, only_one, report_search

if TYPE_CHECKING:
    from nlc.page import Facts, Sample
    from runtime.directory import RunDirectory

WRITTEN = 240  # tokens of a sample
TEMPERATURES = (0.0, 0.7, 1.0)
MOST = 5  # damaged rows that the terminal names


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Run directories, several are compared; or the folder of a search."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Where to write; DIR/report.html otherwise.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples/--no-samples", help="Whether each run's checkpoint writes some text.")
    ] = True,
    markdown: Annotated[bool, typer.Option("--markdown", help="Of a search: print it as Markdown.")] = False,
    json_: JsonOption = False,
) -> None:
    """One page of a run, of several side by side, or of a search.

    Of a run: curves, levels, gradients, samples, spec, cost, versions. Of a search: leaderboard, front, axes, curves,
    heat maps, lineage, finalists beside their base, and what was refused, failed or a duplicate.

    Example: nlc report runs/first
    """
    only_one(runs)
    if is_search(runs[0]):
        report_search(runs[0], out, markdown, json_)
        return
    if markdown:
        raise Stop(Status.USAGE, f"--markdown is for the folder of a search: '{runs[0]}' has no {JOURNAL}")
    calm_threads()
    from nlc.page import page
    from nlc.page.page import data_text

    if json_:
        say(data_text(distinct([facts(path, samples) for path in runs])))
        return
    name = "report.html" if len(runs) == 1 else "compared.html"
    say_or_write(page(distinct([facts(path, samples) for path in runs])), out or runs[0] / name)


def write_page(folder: Path) -> Path:
    """The page of a run that has just ended, without samples, which take longer than all else."""
    from nlc.page import page

    place = folder / "report.html"
    write_whole(page([facts(folder, samples=False)]), place)
    return place


# ---- a run directory as facts ---------------------------------------------------------------------------------------


def facts(path: Path, samples: bool) -> Facts:
    """What a page knows of the run in a folder.  Raises Stop where there is none."""
    from nlc.page import Facts
    from runtime import metrics, replay
    from runtime.directory import RunDirectory, no_run
    from runtime.errors import RunError
    from runtime.trends import Trends

    directory, missing = RunDirectory(path), dict[str, str]()
    try:
        if not path.is_dir():
            raise no_run(path)
        lock = directory.read_lock()
    except RunError as error:
        nor = "" if (path / "lock.json").exists() or not path.is_dir() else f", and no search's: it has no {JOURNAL}"
        raise Stop(error.status, f"{error}{nor}") from None
    found = list[metrics.Line]()
    try:
        found = metrics.lines(directory.metrics)
    except OSError as error:
        missing["metrics"] = f"metrics.jsonl cannot be read: {error.strerror}"
        note(f"warning: {path}/{missing['metrics']}")
    rows = [line.row for line in found if line.row is not None]
    if not rows:
        missing.setdefault("metrics", "the run ended before its first row of metrics")
    stopped, trends = replay.stopped(directory.diverged), Trends()
    warned = [
        f"step {row.get('step')}: memory {name} {words}" for row in rows for name, words in trends.see(row).items()
    ]
    damaged = [f"metrics.jsonl:{x.number} is damaged ({x.fault}) and left out" for x in found if x.row is None]
    tell_damaged(path, damaged)
    warned += damaged
    past = replay.earlier(directory)
    if stopped is not None and any(row["step"] > stopped.step for row in rows if isinstance(row.get("step"), int)):
        past, stopped = [*past, stopped], None
    warned += [f"step {one.step}: diverged ({one}); the run was resumed and got past it" for one in past]
    spec = program(directory, missing)
    checkpoint, written = "", list[Any]()
    try:
        checkpoint, written = sampled(directory, lock) if samples else ("", [])
    except RunError as error:
        missing["samples"] = str(error)
    if not samples:
        missing["samples"] = f"not asked for: `nlc report {path}` lets the newest checkpoint write"
    return Facts(
        name=path.resolve().name,
        path=str(path),
        rows=rows,
        lock=lock,
        diverged=str(stopped or ""),
        diverged_at=stopped.step if stopped else 0,
        checkpoint=checkpoint,
        samples=written,
        warnings=warned,
        missing=missing,
        **spec,
    )


def tell_damaged(path: Path, rows: Sequence[str]) -> None:
    """On the terminal what the page says of rows that are none, the first few of them by line."""
    for row in rows[:MOST]:
        note(f"warning: {path}/{row}")
    if len(rows) > MOST:
        note(f"warning: {len(rows) - MOST:,} more rows of {path}/metrics.jsonl are damaged and left out")


def program(directory: RunDirectory, missing: dict[str, str]) -> dict[str, Any]:
    """The resolved spec, its graph and what can be said of it; why not, where it cannot be read."""
    from nlc.diagnostics import SpecError
    from nlc.explain import explain
    from nlc.passes import build
    from nlc.spec import load

    try:
        text = directory.resolved.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        missing["spec"] = "the run holds no resolved.yaml"
        return {}
    try:
        spec = load(str(directory.resolved))
        graph = build(spec)
    except SpecError as error:
        missing["spec"] = f"resolved.yaml is not a legal spec: {error.diagnostics[0].message}"
        return {"resolved": text}
    return {"resolved": text, "spec": spec, "graph": graph, "explained": explain(graph)}


def sampled(directory: RunDirectory, lock: dict[str, Any]) -> tuple[str, list[Sample]]:
    """The newest whole checkpoint, and what it writes.  Raises RunError."""
    from nlc.page import Sample
    from runtime.samples import write_samples

    place, prompt, texts = write_samples(directory, lock, WRITTEN, TEMPERATURES, warn=note)
    how = ["greedy" if t == 0 else f"temperature {t:g}" for t in TEMPERATURES]
    return place.name, [Sample(h, prompt.lstrip("\n"), text) for h, text in zip(how, texts, strict=True)]


def distinct(found: list[Facts]) -> list[Facts]:
    """Runs of one name are told apart by their paths."""
    from dataclasses import replace

    names = [run.name for run in found]
    return [replace(run, name=run.path) if names.count(run.name) > 1 else run for run in found]
