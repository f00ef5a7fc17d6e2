"""`nlc report` on the folder of a search: its journal and variants as facts, then HTML, Markdown or data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlc.cli.common import Status, Stop, note, say_json, say_or_write, write_whole

if TYPE_CHECKING:
    from nlc.page.search import SearchFacts
    from nlc.spec import Spec

JOURNAL = "journal.jsonl"
MOST = 5  # damaged lines that are named


def is_search(path: Path) -> bool:
    return (path / JOURNAL).is_file()


def report_search(folder: Path, out: Path | None, markdown: bool, json_: bool) -> None:
    """Raises Stop where the folder holds no search that can be told of."""
    from nlc.page import search

    found = facts(folder)
    if json_:
        say_json(search.as_data(found))
    elif markdown:
        say_or_write(search.markdown(found), out)
    else:
        say_or_write(search.page(found), out or folder / "report.html")


def write_search_page(folder: Path) -> Path:
    """The page of a search that has just ended."""
    from nlc.page.search import page

    place = folder / "report.html"
    write_whole(page(facts(folder)), place)
    return place


def facts(folder: Path) -> SearchFacts:
    from nlc.page.search import SearchFacts, finalists, task_ranked_by

    records, notices = journal(folder)
    for line in notices:
        note(f"warning: {folder}/{line}")
    bare = SearchFacts(folder.resolve().name, str(folder), records, notices)
    chosen = finalists(bare)
    rung = max((row.rung for row in chosen), default=0)
    sizes = bare.head["sizes"].get(task_ranked_by(bare.head, rung), {})
    specs, bases = dict[str, Any](), dict[str, Any]()
    for row in chosen:
        file = bare.trials[row.trial]["file"]
        specs[row.trial] = variant(folder / file, sizes, notices, bare.trials[row.trial])
        if row.base not in bases:
            bases[row.base] = base(folder, row.base, bare.head, sizes, notices)
    kept = {name: spec for name, spec in specs.items() if spec is not None}
    return SearchFacts(
        bare.name, bare.path, records, notices, kept, {name: spec for name, spec in bases.items() if spec is not None}
    )


def journal(folder: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The lines that can be counted on, and what is wrong with the others.  Raises Stop without the first one."""
    from nlc.variants.journal import salvaged
    from nlc.variants.lines import checked

    found, faults = list[Mapping[str, Any]](), list[str]()
    salvage = salvaged(folder)
    for number, line in salvage.lines:
        try:
            found.append(checked(line if line is not None else {}))
        except ValueError as error:
            faults.append(f"{JOURNAL}:{number} is damaged ({'not JSON' if line is None else error})")
    if salvage.cut:
        faults.append(f"{JOURNAL} ends within a line")
    if not found or found[0]["record"] != "search":
        why = f"{JOURNAL}:1 is not the first of a search" if found else f"{JOURNAL} has no line"
        raise Stop(Status.USAGE, f"'{folder}' cannot be reported: {faults[0] if faults else why}")
    if len(faults) > MOST:
        faults = [*faults[:MOST], f"{JOURNAL}: {len(faults) - MOST:,} more lines are damaged"]
    return found, [f"{fault}, and left out" for fault in faults]


def variant(
    path: Path, sizes: Mapping[str, int], notices: list[str], trial: Mapping[str, Any] | None = None
) -> Spec | None:
    """A spec of the folder, that of a trial by its line; None, and why in `notices`, where it is none."""
    from nlc.diagnostics import SpecError
    from nlc.passes import build
    from nlc.spec import loads
    from nlc.variants.journal import JournalError, variant_text

    name = f"{path.parent.name}/{path.name}"
    try:
        spec = loads(variant_text(path, trial or {}), str(path), dict(sizes))
        build(spec)
        return spec
    except JournalError:
        notices.append(f"{name} is not the variant that the search made")
    except (OSError, UnicodeDecodeError) as error:
        notices.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
    except SpecError as error:
        notices.append(f"{name} is not a legal spec: {error.diagnostics[0].message}")
    return None


def base(
    folder: Path, label: str, head: Mapping[str, Any], sizes: Mapping[str, int], notices: list[str]
) -> Spec | None:
    """What variants begin from, as the search sets it: a file that the folder keeps, or a shipped spec."""
    from nlc.diagnostics import SpecError
    from nlc.passes import build
    from nlc.spec import load, shipped
    from nlc.variants.journal import base_file

    if label not in shipped():
        return variant(folder / base_file(label), sizes, notices)
    digest = sha256(json.dumps(load(label).resolved(), sort_keys=True).encode()).hexdigest()
    if head["specs"].get(label, digest) != digest:
        notices.append(f"base '{label}' is another one now than the search began with: the diffs are against today's")
    try:
        spec = load(label, {**head["set"], **sizes})
        build(spec)
        return spec
    except SpecError as error:
        notices.append(f"base '{label}' is not legal at the sizes of the search: {error.diagnostics[0].message}")
        return None


def only_one(paths: Sequence[Path]) -> None:
    """Raises Stop where a search stands among several folders."""
    if len(paths) > 1 and (found := next((path for path in paths if is_search(path)), None)):
        raise Stop(
            Status.USAGE, f"'{found}' is the folder of a search, which is reported by itself: nlc report {found}"
        )
