"""The command that searches: variants are made, trained in processes of their own, ranked; the best, as a spec."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from nlc.cli import completion
from nlc.cli.begun import begin
from nlc.cli.common import (
    JsonOption,
    Status,
    Stop,
    calm_threads,
    cores,
    device_there,
    note,
    say,
    say_json,
    say_or_write,
    write_whole,
)

if TYPE_CHECKING:
    from nlc.variants.course import Course, Workers
    from nlc.variants.search import Search
    from nlc.variants.standings import Standings
    from nlc.variants.variant import Lesson
    from runtime.exercise import Exercise

BEST = "best"


class On(StrEnum):
    local = "local"
    ray = "ray"


def register(app: typer.Typer) -> None:
    app.command()(search)


def search(
    search: Annotated[
        str,
        typer.Argument(
            metavar="SEARCH|best",
            help="A path, a shipped name (which-rule); or best.",
            autocompletion=completion.searches,
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="With best: the folder of a search.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="PATH", help="The folder of the search (searches/NAME); with best a file."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Runs at a time; as many as cores, by threads.", show_default=False),
    ] = None,
    on: Annotated[On, typer.Option("--on", help="Where runs go: this machine, or a Ray cluster.")] = On.local,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Of the cluster; one is begun here otherwise.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N, of every run.")
    ] = "auto",
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep the folder of every run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only make the first variants, and say what they are.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    json_: JsonOption = False,
) -> int:
    """Search for architectures: make variants of a spec, train them on tasks, rank them.

    `nlc search best DIR -o winner.yaml` writes the best of a search as a spec.

    Example: nlc search which-rule --out searches/first
    """
    from nlc.variants.journal import JournalError
    from nlc.variants.search import load_search

    try:
        if search == BEST and not Path(BEST).is_file():
            return best(folder, out, json_)
        if folder is not None:
            raise Stop(Status.USAGE, f"{folder}: a search has one argument; its folder is --out")
        found = load_search(search)
        check_there(found)
        if dry_run:
            return plan(found, json_)
        place = out or Path("searches") / found.name
        return run(found, place, jobs, on, address, device, keep_runs, quiet, json_)
    except JournalError as error:
        raise Stop(Status.USAGE, str(error)) from None


def run(
    search: Search, folder: Path, jobs: int | None, on: On, address: str | None, device: str, keep: bool, quiet: bool,
    json_: bool,
) -> int:  # fmt: skip
    from nlc.cli.searching import watch
    from nlc.variants.course import Course
    from nlc.variants.journal import Journal
    from nlc.variants.runs import Unable

    if on is On.local and address is not None:
        raise Stop(Status.USAGE, "--address is for --on ray")
    taught = lessons(search)
    read = materials(search)
    texts = {name: made.digest for name, of in read.items() if (made := of.hay or of.lessons)}
    at_once = jobs or max(1, cores() // search.fields.threads)
    with Journal.open(folder) as journal, stopping(folder):
        begin(search, taught, journal, texts)
        workers = workers_on(on, at_once, search.fields.threads, folder, address)
        shown = watch(at_once, quiet)
        place = device_there(device) if on is On.local else device
        data = None if search.data is None else str(search.data)
        lengths = {name: length(of) for name, of in read.items() if of.lessons}
        course = Course(search, taught, journal, workers, shown, place, data, keep, lengths)
        if course.runs and not quiet:
            note(f"going on: {len(course.runs)} runs are in {journal.path}")
        try:
            with shown:
                board = course.run()
        except Unable as error:
            raise Stop(Status.MISSING, f"stopped: {error}; mend that, and the same command goes on") from None
        finally:
            workers.close()
            with suppress(OSError):  # those of runs that are kept
                (folder / "runs").rmdir()
        end(course, board)
        write_page(folder, quiet)
        return told(board, taught, folder, json_)


def check_there(search: Search) -> None:
    """Raises Stop where the search needs what is not here, or has what nothing needs."""
    from nlc.cli.tasks import runnable

    if search.sampler.name not in ("grid", "random") and find_spec("optuna") is None:
        raise Stop(Status.MISSING, f"sampler {search.sampler.name} is optuna's: pip install 'nlc[search]'")
    if search.data is None:
        return
    if not any(runnable(task).reads for task in search.tasks.values()):
        raise Stop(Status.USAGE, f"{search.source}: data is for tasks that read it, and none of these does")
    if not search.data.exists():
        raise Stop(Status.MISSING, f"{search.source}: there is no {search.data}")


def materials(search: Search) -> dict[str, Exercise]:
    """By task, what every run of one that reads will read.  Raises Stop where it cannot be."""
    from nlc.cli.tasks import runnable
    from runtime import exercise
    from runtime.errors import RunError

    found = {}
    for name, task in search.tasks.items():
        of = runnable(task)
        try:
            if of.hides or of.ordered:
                found[name] = exercise.load(of, search.data if of.reads else None)
        except RunError as error:
            raise Stop(error.status, f"task {name}: {error}") from None
    return found


def length(of: Exercise) -> Callable[[int], int]:
    """Of tasks that are learned in order: batch -> steps."""

    @cache
    def steps(batch: int) -> int:
        course = of.course(batch)
        assert course is not None
        return course.steps

    return steps


def workers_on(on: On, jobs: int, threads: int, folder: Path, address: str | None) -> Workers:
    if on is On.local:
        from nlc.variants.local import Local

        return Local(jobs, folder / "runs")
    try:
        from nlc.variants.on_ray import NoCluster, OnRay
    except ModuleNotFoundError:
        raise Stop(Status.MISSING, "ray is not installed: pip install 'nlc[search]'") from None
    try:
        return OnRay(jobs, threads, address)
    except NoCluster as error:
        raise Stop(Status.MISSING, f"no Ray cluster: {error}") from None


@contextmanager
def stopping(folder: Path) -> Iterator[None]:
    """A signal ends the runs that are going on; the same command goes on with the rest."""

    def stop(number: int, frame: object) -> None:
        raise Stop(128 + number, f"stopped; what has ended is in {folder}, and the same command goes on")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lessons(search: Search) -> dict[str, Lesson]:
    """The tasks as variants learn them: what their sequences are, and which score is the main one."""
    calm_threads()
    from nlc.cli.tasks import runnable
    from nlc.variants.scores import TEXT
    from nlc.variants.variant import Lesson

    found = {}
    for name, task in search.tasks.items():
        kind = runnable(task).kind()
        sizes = {"sizes.context": kind.context, "sizes.vocab": kind.vocab}
        found[name] = Lesson(name, task.as_dict(), sizes, "bits_per_byte" if task.items == TEXT else "accuracy")
    return found


def end(course: Course, board: Standings) -> None:
    """The last line of the journal, and the table in files."""
    journal, runs = course.journal, course.runs.values()
    if not any(True for _ in journal.of("end")):
        seconds = round(sum(run["cost"]["seconds"] for run in runs), 3)
        winner = board.winner.trial if board.winner else None
        journal.add("end", {"trials": len(course.trials), "runs": len(runs), "seconds": seconds, "winner": winner})
    from nlc.variants.table import markdown, rows

    write_whole(json.dumps(board.as_dict(), indent=1), journal.folder / "leaderboard.json")
    write_whole(markdown(rows(board, columns(board, course.lessons))), journal.folder / "leaderboard.md")


def write_page(folder: Path, quiet: bool) -> None:
    """The page of a search that is done; without it the search is done, too."""
    from nlc.cli.searched import write_search_page

    try:
        place = write_search_page(folder)
    except (Stop, OSError) as error:
        note(f"no report.html: {error}")
    else:
        if not quiet:
            note(f"{place}: open it in a browser")


def columns(board: Standings, taught: Mapping[str, Lesson]) -> list[str]:
    """The score that ranks, and the main one of every other task."""
    from nlc.variants.scores import task_of

    own = task_of(board.rank_by, taught)
    return [board.rank_by, *(lesson.main for name, lesson in taught.items() if name != own)]


def told(board: Standings, taught: Mapping[str, Lesson], folder: Path, json_: bool) -> int:
    """The table; the status says whether anything has a score."""
    from nlc.variants.journal import JOURNAL
    from nlc.variants.table import rows, text

    if json_:
        say_json({"ok": board.winner is not None, "folder": str(folder), **board.as_dict()})
    else:
        say(text(rows(board, columns(board, taught))))
    if board.winner is not None:
        return Status.DONE
    refused = all(row.status == "rejected" for row in board.rows)
    note(board.rows[0].error if refused and board.rows else f"no variant has a score; {folder / JOURNAL} says why")
    return Status.USAGE if refused else Status.FAILED


def plan(search: Search, json_: bool) -> int:
    """The first variants, as the compiler sees them; nothing is trained and nothing kept."""
    from nlc.cli.searching import Quiet
    from nlc.variants.course import Course
    from nlc.variants.journal import Journal
    from nlc.variants.local import Local
    from nlc.variants.proposals import proposals
    from nlc.variants.standings import standings
    from nlc.variants.table import rows, text

    taught = lessons(search)
    with TemporaryDirectory() as place, Journal.open(Path(place)) as journal:
        begin(search, taught, journal, {})
        course = Course(search, taught, journal, Local(1, Path(place)), Quiet())
        for candidate in next(proposals(search), []):
            course.plan(candidate)
        board = standings(journal.records)
    if json_:
        say_json(board.as_dict())
    else:
        say(text(rows(board, [])))
        for row in board.rows:
            for line in row.rescaled:
                note(f"{row.trial}: {line}")
    return Status.DONE if any(row.status == "ok" for row in board.rows) else Status.USAGE


def best(folder: Path | None, out: Path | None, json_: bool) -> int:
    """The winner's spec, with the rates that it was ranked with."""
    from nlc.variants.journal import read
    from nlc.variants.standings import standings, unfinished
    from nlc.variants.winner import winner

    if folder is None:
        raise Stop(Status.USAGE, "the folder of a search is missing: nlc search best DIR")
    records = read(folder)
    first = standings(records).winner
    if first is None:
        raise Stop(Status.FAILED, f"no variant of {folder} has a score")
    if state := unfinished(records):
        note(f"the search in {folder} is {state}; {first.trial} is the best of them")
    text = winner(folder, records, first, out.name if out else "winner.yaml")
    if json_ and out is None:
        say_json({"trial": first.trial, "spec": text})
    else:
        say_or_write(text, out)
    return Status.DONE
