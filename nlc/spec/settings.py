"""`--set a.b.c=value`: typed changes of a spec's tree.  Levels and memories are addressed by name.

    apply(tree, {"sizes.width": "64", "levels.titans.rate": 0.1}, report) -> Mapping

A value that is text is read as YAML, so that 64 is a number and `false` a truth value; others are taken as they are.
`null` takes a key, or an item of a list that has a name, away.
What is set gets positions in the pseudo-file `--set`, one line each; an Entry (of another file: a search's axes) keeps
its own, and where it is a mapping or a list at the top of the spec it is laid over it, as what extends a spec is.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from typing import Any

from nlc.diagnostics import Reporter, suggest
from nlc.source import Entry, Mapping, Position, Scalar, Sequence, Tree, remember
from nlc.spec.extends import NOT_INHERITED, is_null, merge, name_of
from nlc.spec.text import parse_value

FILE = "--set"
SIZES = ("width", "heads", "head", "layers", "vocab", "context")


def apply(tree: Mapping, settings: MappingOf[str, object], report: Reporter) -> Mapping:
    """The tree with every setting made.  A path to something the spec does not have is reported."""
    lines = ["" if isinstance(value, Entry) else f"{key}={value}" for key, value in settings.items()]
    remember(FILE, "\n".join(line.replace("\n", " ") for line in lines))
    for number, (key, value) in enumerate(settings.items(), 1):
        at = Position(FILE, number, 1, len(key))
        begin = Position(FILE, number, len(key) + 2, max(1, len(str(value))))
        new: Tree | None
        if isinstance(value, Entry):
            at, new = value.at, value.value
            if "." not in key and isinstance(new, Mapping | Sequence) and key in tree.entries:
                tree = merge(tree, Mapping({key: value}, at))
                continue
        else:
            new = parse_value(value, begin, report) if isinstance(value, str) else tree_of(value, begin)
        if new is not None:
            changed = _set(tree, key.split("."), 0, new, at, report)
            assert isinstance(changed, Mapping)
            tree = changed
    return tree


def tree_of(value: Any, at: Position) -> Tree:
    """A Python value as a tree, all of it at one place."""
    if isinstance(value, MappingOf):
        return Mapping({str(k): Entry(at, tree_of(v, at)) for k, v in value.items()}, at)
    if isinstance(value, (list, tuple)):
        return Sequence(tuple(tree_of(v, at) for v in value), at)
    if value is None or isinstance(value, (bool, int, float, str)):
        return Scalar(value, "null" if value is None else str(value), at)
    return Scalar(str(value), str(value), at)


def _set(node: Tree, path: list[str], index: int, new: Tree, at: Position, report: Reporter) -> Tree:
    """The node with the value at path[index:] replaced; the node itself when that is not there."""
    key, last = path[index], index == len(path) - 1
    offset = sum(len(p) + 1 for p in path[:index])
    here = Position(at.file, at.line, at.column + offset, max(1, len(key)))
    where = ".".join(path[:index]) or "the spec"
    match node:
        case Mapping(entries, mapping_at):
            choices = _choices(path[:index], node)
            may_be_made = (last or _section(path[: index + 1])) and (choices is None or key in choices)
            if index == 0 and key in NOT_INHERITED:
                hint = "give the spec to extend in place of this one, or write a file that extends it"
                report.error("NLC0209", here, f"'{key}' cannot be set", hint)
                return node
            if key not in entries and not may_be_made:
                known = choices is not None and key in choices
                hint = _whole(path[: index + 1], path[index + 1 :]) if known else suggest(key, choices or entries)
                report.error("NLC0209", here, f"{where} has no '{key}'", hint)
                return node
            if last:
                if is_null(new):
                    return Mapping({k: e for k, e in entries.items() if k != key}, mapping_at)
                return Mapping({**entries, key: Entry(here, new)}, mapping_at)
            inner = entries[key].value if key in entries else Mapping({}, here)
            entry = Entry(entries[key].at if key in entries else here, _set(inner, path, index + 1, new, at, report))
            return Mapping({**entries, key: entry}, mapping_at)
        case Sequence(items, sequence_at):
            names = [name_of(item) or str(i) for i, item in enumerate(items)]
            if key not in names:
                report.error("NLC0209", here, f"{where} has no '{key}'", hint=suggest(key, names))
                return node
            i = names.index(key)
            if last and is_null(new):
                return Sequence((*items[:i], *items[i + 1 :]), sequence_at)
            item = new if last else _set(items[i], path, index + 1, new, at, report)
            return Sequence((*items[:i], item, *items[i + 1 :]), sequence_at)
    report.error("NLC0209", here, f"{where} is a single value and has no '{key}'", hint=f"set {where} itself")
    return node


def _whole(path: list[str], inside: list[str]) -> str:
    """How to set a mapping that is not there yet, with a key in it."""
    opened = "".join(f"{{{key}: " for key in inside)
    return f"set the whole of it: --set '{'.'.join(path)}={opened}...{'}' * len(inside)}'"


def _section(path: list[str]) -> bool:
    """Mappings that may be made by setting something in them."""
    return path in (["run"], ["sizes"])


def _choices(path: list[str], node: Mapping) -> tuple[str, ...] | None:
    """The keys that may be set in a mapping: None where the models decide."""
    from nlc.spec.architecture import Architecture, Level, MemoryFields, Run

    match path:
        case []:
            return tuple(Architecture.model_fields)
        case ["run"]:
            return tuple(Run.model_fields)
        case ["sizes"]:
            return tuple(dict.fromkeys((*node.entries, *SIZES)))
        case ["levels", _]:
            return tuple(Level.model_fields)
        case ["levels", _, "memories", _]:
            return tuple(MemoryFields.model_fields)
        case ["levels", _, "memories"] | ["blocks"] | ["inputs"] | ["forms"] | ["streams"]:
            return tuple(node.entries)
    return None
