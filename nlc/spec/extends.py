"""`extends`: a spec's tree laid over the one it extends.

    find("hope", report)                  where a spec argument lives -> Found, or None when reported
    whole(found, report)                  its tree with everything it extends merged in -> Mapping
    merge(base, over)                     mappings merge, lists of levels merge by name, the rest replaces; null removes

A spec may extend a shipped spec by name, or a file in the folder of the spec that is loaded; nothing else on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nlc.diagnostics import Reporter, suggest
from nlc.source import Entry, Mapping, Position, Scalar, Sequence, Tree
from nlc.spec.rule import SHIPPED, rules
from nlc.spec.text import LARGEST, decode, parse, place_of, read, standard_input

NOT_INHERITED = ("extends",)


@dataclass(frozen=True, slots=True)
class Found:
    """A file: where it is (None: standard input), how messages name it, and the folder its `extends` may not leave."""

    path: Path | None
    shown: str
    root: Path


def shipped() -> tuple[str, ...]:
    """The shipped architectures, by name."""
    return tuple(sorted(path.stem for path in (SHIPPED / "architectures").glob("*.yaml")))


def find(argument: str | Path, report: Reporter) -> Found | None:
    """A path, a shipped name, or `-`."""
    text = str(argument)
    if text == "-":
        return Found(None, "<stdin>", Path.cwd())
    path = Path(argument)
    known = text in shipped() and not path.is_file()  # a folder of that name does not hide the spec
    if (path.exists() and not known) or isinstance(argument, Path) or "/" in text or path.suffix in (".yaml", ".yml"):
        return Found(path, text, place_of(path).parent)
    if known:
        return _shipped(text)
    report.error(
        "NLC0101",
        Position(text, 0, 0),
        f"no file and no shipped spec '{text}'",
        hint=suggest(text, shipped(), "shipped specs"),
    )
    return None


def _shipped(name: str) -> Found:
    return Found(
        SHIPPED / "architectures" / f"{name}.yaml", f"specs/architectures/{name}.yaml", SHIPPED / "architectures"
    )


def whole(found: Found, report: Reporter) -> Mapping | None:
    """The tree of a spec over the trees of what it extends."""
    return _whole(found, report, ())


def _whole(found: Found, report: Reporter, above: tuple[tuple[Path, str], ...]) -> Mapping | None:
    if found.path is None:
        text = decode(standard_input(LARGEST + 1), found.shown, report)
    else:
        text = read(found.path, found.shown, report)
    tree = parse(text, found.shown, report) if text is not None else None
    if tree is None:
        return None
    if not isinstance(tree, Mapping):
        report.error("NLC0202", tree.at, "a spec is a mapping of keys to values", hint="it begins with nlc: 1")
        return None
    tree = without_notes(tree)
    if (extends := tree.get("extends")) is None:
        return tree
    if not isinstance(extends, Scalar) or not isinstance(extends.value, str):
        report.error("NLC0202", extends.at, "extends: is the name of a shipped spec or a file")
        return None
    here = (place_of(found.path), found.shown) if found.path else (Path("-"), found.shown)
    target = _target(extends, found, report)
    if target is None:
        return None
    chain = (*above, here)
    assert target.path is not None
    if place_of(target.path) in [path for path, _ in chain]:
        names = [shown for path, shown in chain] + [target.shown]
        report.error(
            "NLC0206", extends.at, f"a loop of extends: {' -> '.join(names[-4:])}", hint="one of these must stand alone"
        )
        return None
    base = _whole(target, report, chain)
    if base is None:
        return None
    over = Mapping({k: e for k, e in tree.entries.items() if k not in NOT_INHERITED}, tree.at)
    return merge(base, over)


def _target(extends: Scalar, found: Found, report: Reporter) -> Found | None:
    """The file that `extends: text` means: a shipped name, or a path relative to the file that says it."""
    text = extends.text
    if "/" not in text and "\\" not in text and not text.endswith((".yaml", ".yml")):
        if text in shipped():
            return _shipped(text)
        rule = f"'{text}' is an update rule, which a level names" if text in rules() else ""
        hint = rule or suggest(text, shipped(), "shipped specs")
        report.error("NLC0208", extends.at, f"no shipped spec '{text}' to extend", hint=hint)
        return None
    folder = place_of(found.path).parent if found.path else found.root
    path = place_of(folder / text)
    if not path.is_relative_to(found.root):
        hint = "a file in the folder of this spec or below it, or a shipped spec's name"
        report.error("NLC0207", extends.at, f"'{text}' is outside the spec's folder", hint=hint)
        return None
    if path.is_dir():
        report.error("NLC0208", extends.at, f"'{text}' is a folder", hint="a file, or a shipped spec's name")
        return None
    if not path.is_file():
        near = [str(p.relative_to(folder)) for p in sorted(folder.glob("*.yaml"))[:50] if p.is_file()]
        report.error("NLC0208", extends.at, f"no file '{text}' to extend", hint=suggest(text, near))
        return None
    shown = Path(found.shown).parent if found.path else Path()
    return Found(path, str(shown / text), found.root)


def without_notes(tree: Mapping) -> Mapping:
    """The tree without `x-` keys, at any depth."""

    def strip(node: Tree) -> Tree:
        match node:
            case Mapping(entries, at):
                return Mapping(
                    {k: Entry(e.at, strip(e.value)) for k, e in entries.items() if not k.startswith("x-")}, at
                )
            case Sequence(items, at):
                return Sequence(tuple(strip(i) for i in items), at)
        return node

    stripped = strip(tree)
    assert isinstance(stripped, Mapping)
    return stripped


def merge(base: Tree, over: Tree) -> Mapping:
    """`over` laid on `base`."""
    merged = _merge(base, over)
    assert isinstance(merged, Mapping)
    return merged


def _merge(base: Tree, over: Tree) -> Tree:
    match base, over:
        case Mapping(old, _), Mapping(new, at):
            entries = dict(old)
            for key, entry in new.items():
                if is_null(entry.value) and key in old:
                    del entries[key]
                elif key in old:
                    entries[key] = Entry(entry.at, _merge(old[key].value, entry.value))
                else:
                    entries[key] = entry
            return Mapping(entries, at)
        case Sequence(old_items, _), Sequence(new_items, at) if _named(old_items) and _named(new_items):
            by_name = {name_of(item): item for item in old_items}
            for item in new_items:
                known = by_name.get(name_of(item))
                by_name[name_of(item)] = item if known is None else _merge(known, item)
            return Sequence(tuple(by_name.values()), at)
    return over


def is_null(tree: Tree) -> bool:
    """`null` or `~`, which takes a key away.  A key with nothing behind it is a mistake."""
    return isinstance(tree, Scalar) and tree.value is None and tree.text != ""


def _named(items: tuple[Tree, ...]) -> bool:
    return bool(items) and all(name_of(item) for item in items)


def name_of(item: Tree) -> str:
    """The `name:` of an item of a list, "" when it has none."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name.text if isinstance(name, Scalar) else ""
