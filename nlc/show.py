"""A loaded spec as text: as written, resolved with the origin of every value, or single values and their origins.

For `nlc show SPEC`, `nlc show SPEC --resolved` and `nlc show SPEC --why PATH`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from nlc.diagnostics import suggest
from nlc.source import line_of, scalars
from nlc.spec import RuleSpec, Spec
from nlc.spec.architecture import Fields
from nlc.spec.resolve import to_yaml

NOTES = 72  # column in which origins stand beside a resolved spec


@dataclass(frozen=True, slots=True)
class Origin:
    """A value of a spec, its path, and where it came from."""

    path: str
    value: Any
    origin: str


def as_written(spec: Spec) -> dict[str, Any]:
    """What the spec says, what it extends and `--set` included, defaults left out."""
    return spec.model.model_dump(exclude_unset=True, exclude={"extends"})


def written_text(spec: Spec) -> str:
    """The file as it stands; where it extends another or is changed by `--set`, the merged spec."""
    if spec.model.extends is not None or any(leaf.at.file != spec.source for leaf in scalars(spec.tree)):
        return yaml_text(as_written(spec)).rstrip("\n")
    lines = (line_of(spec.source, n) for n in count(1))
    return "\n".join(_until_none(lines)).rstrip("\n")


def rule_text(rule: RuleSpec) -> str:
    """A rule's file as it stands."""
    return "\n".join(_until_none(line_of(rule.at.file, n) for n in count(1))).rstrip("\n")


def yaml_text(data: dict[str, Any]) -> str:
    """Plain data as YAML, programs as | blocks."""
    return to_yaml(data)


def resolved_text(spec: Spec) -> str:
    """The spec with every value filled in, as YAML, and beside each value where it came from."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 10_000
    out = io.StringIO()
    yaml.dump(_commented(spec, spec.resolved(), ""), out)
    return out.getvalue().rstrip("\n")


def origins(spec: Spec, path: str) -> list[Origin]:
    """The value at a path, or all values below it.  Empty where there is nothing of that name."""
    values = dict(leaves(spec.resolved()))
    below = [p for p in values if p == path or p.startswith(path + ".")]
    if below:
        return [Origin(p, values[p], _origin(spec, p)) for p in below]
    match path.split("."):
        case ["levels", level, "memories", _, field] if f"levels.{level}.{field}" in values:
            found = _origin(spec, path)
            return [Origin(path, values[f"levels.{level}.{field}"], found)] if found else []
        case ["levels", level, field] if field in Fields.model_fields:  # what a level leaves to its memories
            every = [p for p in values if p.startswith(f"levels.{level}.memories.") and p.endswith(f".{field}")]
            return [Origin(p, values[p], _origin(spec, p)) for p in every]
        case ["sizes", "head"] if (sizes := spec.model.sizes).get("heads"):
            return [Origin(path, sizes["width"] // sizes["heads"], _origin(spec, path))] if "width" in sizes else []
    return []


def aligned(found: list[Origin]) -> str:
    """`path: value   origin`, in columns; a program is shown below its path."""
    rows = [(f"{o.path}: {_flow(o.value)}", o.origin) for o in found]
    width = max((len(left) for left, _ in rows if "\n" not in left and len(left) < 100), default=0)
    return "\n".join(f"{left.ljust(width)}   {origin}".rstrip() for left, origin in rows)


def nearest(spec: Spec, path: str) -> str:
    """A hint for a path that is not there."""
    known: set[str] = set()
    for leaf, _ in leaves(spec.resolved()):
        parts = leaf.split(".")
        known |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    near = suggest(path, known, "").split("?")[0]
    return f": {near}?" if near.startswith("did you mean") else ""


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything that is not a mapping; levels are found by name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif path == "levels":
        for level in value:
            yield from leaves({k: v for k, v in level.items() if k != "name"}, f"levels.{level['name']}")
    else:
        yield path, value


def _commented(spec: Spec, value: Any, path: str) -> Any:
    """The same data for ruamel.yaml, with origins as comments."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, dict) and value:
        made = CommentedMap()
        for key, inner in value.items():
            below = f"{path}.{key}" if path else key
            made[key] = _commented(spec, inner, below)
            plain = not isinstance(inner, dict) and below != "levels" and "\n" not in str(inner)
            if plain and (origin := _origin(spec, below)):
                made.yaml_add_eol_comment(origin, key, column=NOTES)
        return made
    if path == "levels":
        return [_commented(spec, level, f"levels.{level['name']}") for level in value]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_commented(spec, item, f"{path}.{i}") for i, item in enumerate(value)]
    if isinstance(value, list):
        flow = CommentedSeq(value)
        flow.fa.set_flow_style()
        return flow
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value


def _origin(spec: Spec, path: str) -> str:
    try:
        return spec.origin(path)
    except KeyError:
        return ""


def _flow(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return "|\n" + "\n".join(f"    {line}" for line in value.rstrip("\n").splitlines()) + "\n "
    return str(value).lower() if isinstance(value, bool) else str(value)


def _until_none(lines: Iterator[str | None]) -> Iterator[str]:
    for line in lines:
        if line is None:
            return
        yield line
