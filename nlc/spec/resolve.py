"""A spec with everything filled in, and where each value came from.  For `nlc show --resolved --why PATH`.

    resolved(spec)         plain data: nothing to extend, no default left unsaid; it loads again and means the same
    named(spec, "rule")    the rules, or forms, that it uses; what it defines beside them is left out
    origin(spec, path)     "specs/mine.yaml:14", "--set", "default 1", "levels.titans.rate (specs/mine.yaml:14)"
    to_yaml(data)          plain data as YAML text, programs as | blocks

What a level says stays on the level: an expression is evaluated once there and shared.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from nlc.equations import parse_call
from nlc.source import Position
from nlc.spec.architecture import Architecture, Fields, Level, MemoryFields, Run
from nlc.spec.rulebook import RuleBook
from nlc.spec.settings import FILE
from nlc.spec.view import Spec

DEFAULTS: dict[str, Any] = {
    "chunk": 1, "objective": "l2", "rule": "gd", "retain": "1", "retain_to": "zero", "grad_at": "old", "window": "1",
    "read": "chunk", "carry": "sequence", "start": "learned", "meta": "full", "tail": "carry",
    "normalise_hidden": False,
}  # fmt: skip
FILLED = {  # by what the memory is
    "attention": ("carry",),
    "model": ("carry", "start"),
    "state": ("chunk", "retain_to", "grad_at", "read", "carry", "start", "meta", "tail", "normalise_hidden"),
}


def resolved(spec: Spec) -> dict[str, Any]:
    """The whole spec as plain data."""
    model = spec.model
    data: dict[str, Any] = {"nlc": model.nlc, "name": model.name}
    if model.doc:
        data["doc"] = model.doc
    data["sizes"] = dict(model.sizes)
    data["run"] = model.run.model_dump()
    for section in ("inputs", "streams"):
        if value := getattr(model, section):
            data[section] = {name: [_plain(size) for size in shape] for name, shape in value.items()}
    if own := {name: form.model_dump() for name, form in model.forms.items() if name in named(spec, "form")}:
        data["forms"] = own
    data["levels"] = [_level(level, spec.rules) for level in model.levels]
    if own := {name: rule.written() for name, rule in spec.rules.mine().items() if name in named(spec, "rule")}:
        data["rules"] = own
    for section in ("stack", "block", "blocks", "outputs"):
        if value := getattr(model, section):
            data[section] = value
    if not model.inputs:
        data["tied"] = model.tied
    return data


def origin(spec: Spec, path: str) -> str:
    """Where the value at a path came from.  Raises KeyError for a path that no spec can have."""
    parts = path.split(".")
    if spec.said(path):
        at = spec.at(path)
        inherited = len(parts) > 4 and parts[0] == "levels" and not _own(spec, parts)
        where = FILE if at.file == FILE else f"{at.file}:{at.line}"
        return f"{'.'.join([*parts[:2], *parts[4:]])} ({where})" if inherited else where
    match parts:
        case ["run", name] if name in Run.model_fields:
            return f"default {getattr(spec.model.run, name)}"
        case ["tied"]:
            return "default true"
        case ["sizes", "head"]:
            return "default width / heads"
        case ["sizes", _]:
            return "not said, no default"
        case ["levels", level, *rest] if level in [lv.name for lv in spec.model.levels]:
            if rest[-1:] and rest[-1] in MemoryFields.model_fields and len(rest) in (1, 3):
                default = _default(spec, parts)
                return f"default {str(default).lower()}" if default is not None else "not said, no default"
        case [name] if name in Architecture.model_fields:
            return "not said, no default"
    raise KeyError(path)


def to_yaml(data: Any) -> str:
    """Plain data as YAML.  Texts of several lines become | blocks; what is short stands on one line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import LiteralScalarString

    def prepared(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: prepared(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [prepared(v) for v in value]
        return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 120
    yaml.default_flow_style = False
    out = io.StringIO()
    yaml.dump(prepared(data), out)
    return out.getvalue()


def places(spec: Spec) -> Iterator[tuple[str, Fields]]:
    """Where fields are said: every level, and every memory that has a name."""
    for level in spec.model.levels:
        yield f"levels.{level.name}", level
        for name, memory in level.memories.items() if isinstance(level.memories, dict) else ():
            yield f"levels.{level.name}.memories.{name}", memory


def named(spec: Spec, field: str) -> set[str]:
    """The forms or rules that levels and memories name, or have without being given any."""
    said = [(f"{path}.{field}", str(text)) for path, fields in places(spec) if (text := getattr(fields, field))]
    return {parse_call(text, spec.place(path)).func for path, text in said} | {str(DEFAULTS.get(field))}


def _level(level: Level, rules: RuleBook) -> dict[str, Any]:
    """A level and its memories.  A default stands on the level where all its memories take it, else on each of them."""
    data = {"name": level.name} | level.model_dump(exclude_none=True, exclude={"name", "memories"})
    if not isinstance(level.memories, dict):
        return {"objective": DEFAULTS["objective"], "rule": DEFAULTS["rule"]} | data | {"memories": level.memories}
    memories = {name: memory.model_dump(exclude_none=True) for name, memory in level.memories.items()}
    kinds = {name: _kind({**data, **own}) for name, own in memories.items()}
    if set(kinds.values()) != {"attention"}:  # which no rule writes
        for key in ("objective", "rule", "retain"):
            data.setdefault(key, DEFAULTS[key])
        if (lr := _lr(data["rule"], rules)) is not None:
            data.setdefault("rate", lr)
    if len(set(kinds.values())) == 1:
        _fill(data, data, next(iter(kinds.values())))
    for name, own in memories.items():
        _fill(own, {**data, **own}, kinds[name])
    order = ("name", *Fields.model_fields)
    return {key: data[key] for key in order if key in data} | {
        "memories": {name: {key: own[key] for key in order if key in own} for name, own in memories.items()}
    }


def _fill(data: dict[str, Any], said: dict[str, Any], kind: str) -> None:
    """The defaults of one kind of memory that nothing said overrides."""
    for key in FILLED[kind]:
        if key not in said:
            data[key] = "random" if key == "start" and kind == "model" else DEFAULTS[key]


def _kind(memory: dict[str, Any]) -> str:
    if str(memory.get("form", "")).startswith("attention"):
        return "attention"
    return "model" if memory.get("carry") == "model" else "state"


def _lr(rule: str, rules: RuleBook) -> str | None:
    """The rate of a rule when nobody gives one; None when the rule's text gives it."""
    call = parse_call(rule, _NOWHERE)
    return None if call.keyword("lr") is not None else str(rules.load(call.func).params.get("lr", 1))


def _own(spec: Spec, parts: list[str]) -> bool:
    """Whether a memory says a field itself."""
    memories = spec.model.level(parts[1]).memories
    return isinstance(memories, dict) and getattr(memories[parts[3]], parts[4], None) is not None


def _default(spec: Spec, parts: list[str]) -> Any:
    level = spec.model.level(parts[1])
    memory = level.memories[parts[3]] if len(parts) > 3 and isinstance(level.memories, dict) else level
    if parts[-1] == "rate":
        lr = _lr(memory.rule or level.rule or DEFAULTS["rule"], spec.rules)
        return "none: the rule's lr is given" if lr is None else f"{lr} (the rule's lr)"
    if parts[-1] == "start" and (memory.carry or level.carry) == "model":
        return "random"
    return DEFAULTS.get(parts[-1])


def _plain(size: str) -> str | int:
    return int(size) if size.isdigit() else size


_NOWHERE = Position("", 0, 0)
