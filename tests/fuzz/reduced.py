"""A smaller spec that fails in the same way: greedy, by leaving out or simplifying one thing at a time.

smaller(spec, fails, seconds)     fails(spec) says whether it still does
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from time import monotonic
from typing import Any

Spec = dict[str, Any]
SIMPLE = {"every": "1 token", "rate": 0.1, "retain": 0.9, "form": "matrix", "rule": "gd", "objective": "l2", "chunk": 1}


def smaller(spec: Spec, fails: Callable[[Spec], bool], seconds: float = 120) -> Spec:
    """The smallest found in that time."""
    until = monotonic() + seconds
    shrunk = True
    while shrunk and monotonic() < until:
        shrunk = False
        for candidate in _candidates(spec):
            if monotonic() > until:
                break
            if fails(candidate):
                spec, shrunk = candidate, True
                break
    return spec


def _candidates(spec: Spec) -> Iterator[Spec]:
    """Specs with less in them, the largest steps first."""
    for i, level in enumerate(spec["levels"]):
        if isinstance(level["memories"], dict):
            yield _without(spec, ("levels", i), list(level["memories"]))
            for name in level["memories"]:
                if len(level["memories"]) > 1:
                    yield _without(spec, ("levels", i, "memories", name), [name])
    for path in _programs(spec):
        lines = _get(spec, path).strip("\n").split("\n")
        for n in range(len(lines) - 1, -1, -1):
            yield from _without_line(spec, path, lines, n)
    if spec.get("stack"):
        for kind in spec["blocks"]:
            changed = {k: v for k, v in spec.items() if k not in ("blocks", "stack")} | {"block": spec["blocks"][kind]}
            yield changed
    for path in _fields(spec):
        yield _without(spec, path, [])
    for path in _fields(spec):
        simple = SIMPLE.get(str(path[-1]))
        if simple is not None and _get(spec, path) != simple:
            yield _put(spec, path, simple)
    for path in _programs(spec):
        yield from _shorter_lines(spec, path)
    for key, value in (("layers", 1), ("heads", 2)):
        if spec["sizes"].get(key, value) > value:
            yield _put(spec, ("sizes", key), value)


def _programs(spec: Spec) -> list[tuple[str, ...]]:
    return [("block",)] if "block" in spec else [("blocks", kind) for kind in spec["blocks"]]


def _fields(spec: Spec) -> Iterator[tuple[Any, ...]]:
    yield from ((key,) for key in spec if key in ("tied", "run"))
    for i, level in enumerate(spec["levels"]):
        yield from (("levels", i, key) for key in level if key not in ("name", "memories"))
        if isinstance(level["memories"], dict):
            for name, memory in level["memories"].items():
                yield from (("levels", i, "memories", name, key) for key in memory)


def _without_line(spec: Spec, path: tuple[str, ...], lines: list[str], n: int) -> Iterator[Spec]:
    """Without one line; what it assigned is another value wherever it is named."""
    targets = [t.strip() for t in lines[n].split(" = ")[0].split(",")]
    if targets == ["x"]:
        yield _put(spec, path, "\n".join(lines[:n] + lines[n + 1 :]) + "\n")
        return
    others = [line.split(" = ")[0] for line in lines[:n] if "," not in line.split(" = ")[0]]
    rest = "\n".join(lines[:n] + lines[n + 1 :]) + "\n"
    for other in [None, *dict.fromkeys(["h", "u", *others[-3:]])]:
        if other in targets or any(t in ("h",) for t in targets):
            continue
        text = rest
        for target in targets:
            if other is None:  # its terms in sums go
                text = re.sub(rf" \+ [^+\n]*\b{target}\b[^+\n]*", "", text)
            else:
                text = re.sub(rf"\b{target}\b", other, text)
        changed = _put(spec, path, text)
        if other is not None:
            for target in targets:
                changed = _renamed(changed, target, other)
        yield changed


def _renamed(spec: Spec, name: str, other: str) -> Spec:
    """The fields of memories with a name replaced."""
    changed = deepcopy(spec)
    for path in [p for p in _fields(changed) if p[0] == "levels"]:
        value = _get(changed, path)
        if isinstance(value, str):
            _get(changed, path[:-1])[path[-1]] = re.sub(rf"\b{name}\b", other, value)
    return changed


def _shorter_lines(spec: Spec, path: tuple[str, ...]) -> Iterator[Spec]:
    """Calls replaced by their first argument, sums by one side."""
    text = _get(spec, path)
    for match in re.finditer(r"\b(\w+)\(([^()]*)\)", text):
        first = match.group(2).split(",")[0]
        if first and "=" not in first:
            yield _put(spec, path, text[: match.start()] + first + text[match.end() :])
    for match in re.finditer(r" [+*] [\w.]+", text):
        yield _put(spec, path, text[: match.start()] + text[match.end() :])


def _get(spec: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        spec = spec[part]
    return spec


def _put(spec: Spec, path: tuple[Any, ...], value: Any) -> Spec:
    changed = deepcopy(spec)
    _get(changed, path[:-1])[path[-1]] = value
    return changed


def _without(spec: Spec, path: tuple[Any, ...], memories: list[str]) -> Spec:
    """Without what is there; calls of these memories become what they are called with."""
    changed = deepcopy(spec)
    del _get(changed, path[:-1])[path[-1]]
    for program in _programs(changed):
        text = _get(changed, program)
        for name in memories:
            text = re.sub(rf"\b{name}\((.*?)(, read=\w+)?\)(?=\n|$)", r"\1", text)
        _get(changed, program[:-1])[program[-1]] = text
    return changed
