"""A tree to the typed model: pydantic decides, we say it at the right place in our own words.

typed(tree, report, Architecture)    -> the model of an architecture, or None when something was reported
typed(tree, report, TaskFields)      -> the same of a task, or of another kind of file
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nlc.diagnostics import Reporter, suggest
from nlc.source import Mapping, Position, Scalar, Sequence, Tree, plain
from nlc.spec.architecture import Architecture, FormFields, Level, MemoryFields, Run
from nlc.spec.extends import name_of
from nlc.spec.settings import FILE

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping",
    "int_from_float": "a whole number",
}  # fmt: skip
_LIMITS = {
    "less_than": "below {lt}", "less_than_equal": "at most {le}", "greater_than": "above {gt:g}",
    "finite_number": "a finite number",
}  # fmt: skip


_ROUNDS = 4  # leaving a value out may show another fault, e.g. that it is missing
_STAND_INS = {"nlc": 1, "name": "unnamed", "do": "y = x"}


def typed(tree: Mapping, report: Reporter, kind: type[M]) -> M | None:
    """The model of a spec.  Every fault is reported where it stands, and left out of the model, so that the rest can be
    looked at too; None when what is left is no spec."""
    _nothing(tree, "", report)
    data = plain(tree)
    seen: set[tuple[str | int, ...]] = set()
    absent: set[tuple[str | int, ...]] = set()  # something stands in for what is missing: that has no faults
    for _ in range(_ROUNDS):
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=True, include_input=False):
                loc = fault["loc"]
                if loc not in seen and not any(loc[:i] in absent for i in range(1, len(loc))):
                    _report(fault, tree, report, kind)
                seen.add(loc)
                absent |= {loc} if fault["type"] == "missing" else set()
                _leave_out(data, loc, fault["type"])
    return None


def _leave_out(data: Any, loc: SequenceOf[str | int], kind: str) -> None:
    """Take the value at a pydantic location out of plain data, or put something where a value is missing."""
    parents: list[tuple[Any, str | int]] = []
    node = data
    for part in loc:
        there = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if there:
            parents.append((node, part))
            node = node[part]
    if kind == "missing" and isinstance(node, dict):
        node[str(loc[-1])] = _STAND_INS.get(str(loc[-1]), {})
    elif parents:
        container, part = parents[-1]
        del container[part]


def _null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None


def _nothing(tree: Tree, where: str, report: Reporter) -> None:
    """A key with nothing behind it says nothing; refuse it."""
    if isinstance(tree, Mapping):
        for key, entry in tree.entries.items():
            if _null(entry.value):
                hint = "null takes the key away" if entry.at.file == FILE else "write one, or take the key away"
                report.error("NLC0203", entry.at, f"'{key}' has no value", hint)
            _nothing(entry.value, key, report)
    elif isinstance(tree, Sequence):
        for item in tree.items:
            if _null(item):
                report.error(
                    "NLC0203", item.at, f"an item of '{where}' has no value", hint="write one, or take it away"
                )
            _nothing(item, where, report)


def _report(fault: Any, tree: Mapping, report: Reporter, file: type[BaseModel]) -> None:
    kind, loc = str(fault["type"]), tuple(fault["loc"])
    node, key_at, path = _walk(tree, loc)
    subject = _subject(tree, loc)
    last = str(loc[-1]) if loc else ""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    what = f"{subject}an item of '{name}'" if path and isinstance(path[-1], int) else f"{subject}'{name}'"
    if kind == "missing":
        parent, _, _ = _walk(tree, loc[:-1])
        if not (isinstance(parent, Mapping) and last in parent.entries):  # what is there was left out for its own fault
            where = key_at or _top(tree)
            report.error(
                "NLC0203",
                where,
                f"{subject}'{last}' is missing",
                hint='a spec begins with "nlc: 1"' if last == "nlc" else "",
            )
    elif kind == "extra_forbidden":
        fields = (_model(loc[:-1]) if file is Architecture else _section(file, loc[:-1])).model_fields
        word = "" if last in ("true", "false", "null") else last  # no slip of the pen
        report.error("NLC0201", key_at or node.at, f"{subject}unknown key '{last}'", hint=suggest(word, fields, "keys"))
    elif kind == "literal_error":
        _literal(fault, node, name, what, report)
    elif kind in _LIMITS and isinstance(node, Scalar):
        limit = _LIMITS[kind].format(**fault.get("ctx", {}))
        report.error("NLC0205", node.at, f"{what} is {node.text}; {limit} is expected")
    elif kind in ("greater_than_equal", "string_too_short", "too_short"):
        least = fault.get("ctx", {}).get("ge", 1)
        found = node.text if isinstance(node, Scalar) else ""
        if not plain(node) or found:  # a list whose items were left out for their own faults is not empty
            report.error("NLC0205", node.at, f"{what} is {found}; at least {least}" if found else f"{what} is empty")
    else:
        expected = _EXPECTED.get(kind, str(fault["msg"]))
        if isinstance(node, Scalar) and node.value is None:
            return
        report.error(
            "NLC0202", node.at, f"{what} is {_found(node)}; {expected} is expected", hint=_help(node, expected)
        )


def _literal(fault: Any, node: Tree, name: str, what: str, report: Reporter) -> None:
    choices = [c.strip("'\"") for c in str(fault["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
    if name == "nlc":
        report.error(
            "NLC0210", node.at, f"{_found(node)} is another version of the language", hint="this compiler reads nlc: 1"
        )
        return
    word = node.text if isinstance(node, Scalar) else ""
    report.error("NLC0204", node.at, f"{what} is {_found(node)}", hint=suggest(word, choices, "choices"))


def _found(node: Tree) -> str:
    match node:
        case Scalar(value=bool()):
            return f"the truth value {node.text}"
        case Scalar(value=int() | float()):
            return f"the number {node.text}"
        case Scalar():
            return f"the text '{node.text if len(node.text) < 40 else node.text[:37] + '...'}'"
        case Mapping():
            return "a mapping"
    return "a list"


def _help(node: Tree, expected: str) -> str:
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return "put quotes around it" if expected == "text" and isinstance(node, Scalar) else ""
    word = node.text.lower()
    if expected == "true or false" and word in ("no", "off", "yes", "on"):
        return f"write {'false' if word in ('no', 'off') else 'true'}: YAML 1.2 reads '{node.text}' as text"
    return ""


def _walk(tree: Tree, loc: SequenceOf[str | int]) -> tuple[Tree, Position | None, list[str | int]]:
    """The node that a pydantic location means, its key's position, and the parts of the location that are places in the
    tree: not the tags of unions, nor keys that are missing."""
    node, key_at, path = tree, None, list[str | int]()
    for part in loc:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.entries:
            key_at, node = node.entries[part].at, node.entries[part].value
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            name = node.get("name") if isinstance(node, Mapping) else None
            key_at = name.at if name else node.at
        else:
            continue
        path.append(part)
    return node, key_at, path


def _subject(tree: Mapping, loc: SequenceOf[str | int]) -> str:
    """`level 'titans': ` or `memory 'cms.fast': ` in front of a message."""
    levels = tree.get("levels")
    if len(loc) < 3 or loc[0] != "levels" or not isinstance(loc[1], int) or not isinstance(levels, Sequence):
        return ""
    level = name_of(levels.items[loc[1]]) or str(loc[1] + 1)
    if loc[2] == "memories" and len(loc) > 5:
        return f"memory '{level}.{loc[4]}': "
    return f"level '{level}': "


def _model(loc: SequenceOf[str | int]) -> type[BaseModel]:
    match tuple(loc):
        case ("run", *_):
            return Run
        case ("levels", _, "memories", *_):
            return MemoryFields
        case ("levels", *_):
            return Level
        case ("forms", *_):
            return FormFields
    return Architecture


def _section(file: type[BaseModel], loc: SequenceOf[str | int]) -> type[BaseModel]:
    """The model of a mapping inside another kind of file, by the key that it stands under."""
    sections: dict[str, type[BaseModel]] = getattr(file, "SECTIONS", {})
    return sections.get(str(loc[0]), file) if loc else file


def _top(tree: Mapping) -> Position:
    return Position(tree.at.file, tree.at.line, tree.at.column)
