"""What makes a search the same one when it goes on: what was asked, what it reads, and the files that it rests on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlc.cli.common import Status, Stop, note, write_whole

if TYPE_CHECKING:
    from nlc.variants.journal import Journal
    from nlc.variants.search import Search
    from nlc.variants.variant import Lesson

WORD = re.compile(r"[\w-]+")
CHECKPOINT = re.compile(r"checkpoint:([^,)]+)")


def begin(search: Search, taught: Mapping[str, Lesson], journal: Journal, texts: Mapping[str, str]) -> None:
    """The first line of the journal; one that is there must be of the same search.  texts: digests, by task."""
    from nlc.bench.place import place

    said = {**asked(search, taught), "texts": dict(texts), "files": files(search)}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    before = next(journal.of("search"), None)
    if before is not None and "texts" not in before:
        message = f"{journal.folder} holds a search of an older nlc, which does not say what it read"
        raise Stop(Status.USAGE, f"{message}: give another --out")
    if before is not None and before["digest"] != digest:
        changed = [key for key, value in said.items() if before.get(key) != json.loads(json.dumps(value))]
        what = f"other {', '.join(changed)}" if changed else "another version of it"
        raise Stop(Status.USAGE, f"{journal.folder} holds another search ({what}): give another --out")
    where = place()
    versions = {name: where["versions"][name] for name in ("nlc", "torch", "python")}
    if before is not None:
        for name in versions:
            if before.get(name) not in (None, versions[name]):
                note(f"warning: begun with {name} {before[name]}, goes on with {versions[name]}: scores may differ")
    if before is None:
        told = {"version": 1, **versions, "machine": where["machine"], "digest": digest}
        keep(search.text, journal.folder / "search.yaml")
        keep_bases(search, journal.folder)
        journal.add("search", {**told, **said})


def keep_bases(search: Search, folder: Path) -> None:
    """The bases that are files, as the search sets them: a report compares variants with them."""
    from nlc.diagnostics import SpecError
    from nlc.show import yaml_text
    from nlc.spec import load
    from nlc.variants.journal import base_file

    for label, base in search.bases.items():
        if isinstance(base, Path):
            with suppress(SpecError):  # what is legal only with the values of an axis is compared with nothing
                keep(yaml_text(load(base, search.shared).resolved()), folder / base_file(label))


def keep(text: str, path: Path) -> None:
    """The text in a file of a new search's folder.  Raises Stop where another one is in it."""
    if path.is_file() and path.read_text(encoding="utf-8-sig", errors="replace").strip() != text.strip():
        raise Stop(Status.USAGE, f"{path} is there and is not of this search: give another --out")
    write_whole(text, path)


def asked(search: Search, taught: Mapping[str, Lesson]) -> dict[str, Any]:
    """Everything that decides what happens: the first line of the journal, and what its digest is of."""
    from nlc.source import plain
    from nlc.spec import load
    from nlc.variants.course import resolved
    from nlc.variants.scores import less_is_better

    fields, rungs = search.fields, resolved(search, taught)
    rank, tasks = rungs[-1]["rank_by"], {name: lesson.facts for name, lesson in taught.items()}
    specs = {label: json.dumps(load(base).resolved(), sort_keys=True) for label, base in search.bases.items()}
    changes = {
        axis.name: {
            choice.label: {path: plain(entry.value) for path, entry in choice.changes} for choice in axis.choices
        }
        for axis in search.axes
    }
    return {
        "name": search.name, "doc": search.doc, "base": list(search.bases),
        "axes": {axis.name: list(axis.labels) for axis in search.axes},
        "tasks": tasks,
        "sizes": {name: dict(lesson.sizes) for name, lesson in taught.items()},
        "rank_by": rank, "better": fields.better or ("lower" if less_is_better(rank, tasks) else "higher"),
        "budget": fields.budget.model_dump(), "rungs": rungs,
        "tune": fields.tune.model_dump() if fields.tune else None, "sampler": search.sampler.model_dump(),
        "mutate": fields.mutate.model_dump() if fields.mutate else None, "limits": fields.limits.model_dump(),
        "rescale": list(search.rescale), "items": fields.items, "threads": fields.threads, "seed": fields.seed,
        "set": {path: plain(entry.value) for path, entry in search.shared.items()}, "changes": changes,
        "when": {axis.name: [list(pair) for pair in axis.when] for axis in search.axes if axis.when},
        "specs": {label: hashlib.sha256(text.encode()).hexdigest() for label, text in specs.items()},
    }  # fmt: skip


def files(search: Search) -> dict[str, str]:
    """Digests of bases that are files, with their rules, and of the checkpoints that a base, an axis or `set` names."""
    from nlc.diagnostics import SpecError
    from nlc.inherit import folder_of
    from nlc.source import plain, scalars
    from nlc.spec import load
    from nlc.weight_file import Unreadable, found

    said = [entry.value for entry in search.shared.values()]
    said += [entry.value for axis in search.axes for choice in axis.choices for _, entry in choice.changes]
    texts, digests = [text for tree in said for text in scalars(tree, is_prose)], dict[str, str]()
    for label, base in search.bases.items():
        spec = load(base)
        own = [*scalars(spec.tree, is_prose)]
        if isinstance(base, Path):
            beside = {path.stem for path in base.parent.glob("*.yaml")}
            used = beside.intersection(word for text in (*own, *texts) for word in WORD.findall(text.text))
            for name in (*spec.rules.written(), *sorted(used)):
                with suppress(SpecError):
                    spec.rules.load(name)
            rules = {name: None if rule is None else rule.written() for name, rule in spec.rules.found.items()}
            told = json.dumps([plain(spec.tree), rules], sort_keys=True)
            digests[label] = hashlib.sha256(told.encode()).hexdigest()
        texts += own
    for text in texts:
        for path in map(str.strip, CHECKPOINT.findall(text.text)):
            with suppress(Unreadable, OSError), found(folder_of(text.at) / path).open("rb") as file:
                digests[f"{path} of {Path(text.at.file).name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def is_prose(key: str) -> bool:
    """Whether it is what a spec says of itself."""
    return key == "doc" or key.startswith("x-")
