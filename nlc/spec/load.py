"""A spec argument to a Spec: find, read, extend, set, type, check.

load("hope", set={"sizes.width": 64, "levels.titans.rate": "0.1"}) -> Spec       raises SpecError with every diagnostic
loads(text, file="mine.yaml")                                     -> Spec       the same for a text
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from pathlib import Path

from nlc.diagnostics import Reporter
from nlc.source import Mapping
from nlc.spec.architecture import Architecture
from nlc.spec.extends import find, whole, without_notes
from nlc.spec.rulebook import RuleBook
from nlc.spec.settings import apply
from nlc.spec.text import parse
from nlc.spec.types import typed
from nlc.spec.view import Spec


def load(argument: str | Path, set: MappingOf[str, object] | None = None) -> Spec:
    """A spec from a path, a shipped name or `-` (standard input), with single values changed by `set`."""
    report = Reporter()
    found = find(argument, report)
    tree = whole(found, report) if found else None
    if tree is None or found is None:
        report.check()
        raise AssertionError("nothing was read and nothing reported")
    beside = str(Path(found.shown).parent) if found.path else "."
    return _finish(tree, found.shown, set, report, found.root, "" if beside == "." else f"{beside}/")


def loads(text: str, file: str = "<text>", set: MappingOf[str, object] | None = None) -> Spec:
    """A spec from text.  It cannot extend a file; `file` is its name in messages."""
    report = Reporter()
    tree = parse(text, file, report)
    if not isinstance(tree, Mapping):
        if tree is not None:
            report.error("NLC0202", tree.at, "a spec is a mapping of keys to values", hint="it begins with nlc: 1")
        report.check()
        raise AssertionError("nothing was read and nothing reported")
    if "extends" in tree.entries:
        report.error("NLC0207", tree.entries["extends"].at, "a text on its own cannot extend a file")
        report.check()
    return _finish(without_notes(tree), file, set, report)


def _finish(
    tree: Mapping,
    shown: str,
    set: MappingOf[str, object] | None,
    report: Reporter,
    folder: Path | None = None,
    beside: str = "",
) -> Spec:
    from nlc.spec.check import check
    from nlc.spec.numbers import numbers

    taken = {"rule": "check, show, explain and verify", "search": "check and search", "task": "check and tasks"}
    for kind, commands in taken.items():
        if kind in tree.entries:
            hint = f"nlc {commands} take one"
            report.error("NLC0210", tree.entries[kind].at, f"this file is a {kind}, not an architecture", hint)
            report.check()
    tree = apply(tree, set or {}, report)
    model = typed(tree, report, Architecture)
    if model is None:
        report.check()
        raise AssertionError("no model and nothing reported")
    spec = Spec(model, shown, tree, RuleBook(tree.get("rules"), folder, beside))
    check(spec, report)
    numbers(spec, report)
    report.check()
    return spec
