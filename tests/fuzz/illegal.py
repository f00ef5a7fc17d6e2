"""Legal programs with exactly one thing broken, and what the compiler must say of each.

broken(choose) -> Broken        one legal program, one break, and the lines where its one error may stand
refused(broken)                 raises Disagreement unless there is one located error, there, and exit status 2

A break changes one value, key or equation.  What it means is known from how it is made, not from what the compiler
says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from nlc.diagnostics import SpecError
from nlc.operators import CALLABLE
from nlc.passes import build
from nlc.spec import loads
from nlc.spec.architecture import Fields
from tests.fuzz.agreement import Disagreement
from tests.fuzz.choices import Choose
from tests.fuzz.language import choices
from tests.fuzz.legal import layer, program
from tests.fuzz.written import Path, written

Spec = dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """`lines`: where the error may stand, from 1; `what`: the break, in words."""

    what: str
    text: str
    lines: frozenset[int]


def broken(choose: Choose) -> Broken:
    """A legal program with one thing wrong."""
    while True:
        drawn = (program if choose.chance(75) else layer)(choose)
        breaks = [name for name in BREAKS if next(BREAKS[name](drawn.spec), None) is not None]
        what = choose.among(breaks)
        ways = list(BREAKS[what](drawn.spec))
        spec, paths = choose.among(ways)
        text, lines = written(spec)
        wanted = {lines[p] for p in paths if p in lines}
        return Broken(what, text, frozenset(wanted))


def refused(one: Broken) -> str:
    """The code of the one error."""
    try:
        build(loads(one.text, "broken.yaml"), check=True)
    except SpecError as error:
        found = error.diagnostics
        if len(found) != 1:
            raise Disagreement("several", f"{one.what}: {len(found)} errors of one cause\n{error}") from error
        if found[0].at.line not in one.lines:
            where = sorted(one.lines)
            raise Disagreement("place", f"{one.what}: line {found[0].at.line}, not {where}\n{error}") from error
        return found[0].code
    raise Disagreement("accepted", one.what)


# ---- breaks: spec -> (a spec with it, the paths on whose lines its error may stand)

Way = tuple[Spec, list[Path]]


def _sections(spec: Spec) -> Iterator[tuple[Path, Spec]]:
    """Levels and memories."""
    for i, level in enumerate(spec["levels"]):
        yield ("levels", i), level
        if isinstance(level["memories"], dict):
            for name, memory in level["memories"].items():
                yield ("levels", i, "memories", name), memory


def _said(spec: Spec, *names: str) -> Iterator[tuple[Path, Any]]:
    """Fields of levels and memories."""
    for path, section in _sections(spec):
        for name in names or tuple(k for k in section if k not in ("name", "memories")):
            if name in section:
                yield (*path, name), section[name]


def _put(spec: Spec, path: Path, value: Any) -> Spec:
    changed = deepcopy(spec)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return changed


def _renamed(spec: Spec, path: Path, key: str) -> Spec:
    """The mapping's last key called something else."""
    changed = deepcopy(spec)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    items = [(key if k == path[-1] else k, v) for k, v in at.items()]
    at.clear()
    at.update(items)
    return changed


def _equations(spec: Spec) -> Iterator[tuple[Path, str, int, str]]:
    """(path of a block, its text, which line, the line)."""
    for path in [("block",)] if "block" in spec else [("blocks", kind) for kind in spec["blocks"]]:
        text = spec[path[0]] if len(path) == 1 else spec["blocks"][path[1]]
        for n, line in enumerate(text.strip("\n").split("\n")):
            yield path, text, n, line


def _line(spec: Spec, path: Path, text: str, n: int, line: str) -> Way:
    lines = text.strip("\n").split("\n")
    lines[n] = line
    return _put(spec, path, "\n".join(lines) + "\n"), [(*path, n)]


def _misspelt(word: str) -> str:
    return word[:-1] + ("q" if word[-1] != "q" else "w") if len(word) > 1 else word + "q"


def misspelt_key(spec: Spec) -> Iterator[Way]:
    for path, _ in _said(spec):
        key = _misspelt(str(path[-1]))
        if key not in Fields.model_fields and path[-1] not in ("every", "form"):
            yield _renamed(spec, path, key), [(*path[:-1], key)]


def unknown_key(spec: Spec) -> Iterator[Way]:
    for path, _ in _sections(spec):
        yield _put(spec, (*path, "speed"), 3), [(*path, "speed")]
    for path in (("learning",), ("run", "epochs")):
        if len(path) == 1 or "run" in spec:
            yield _put(spec, path, 3), [path]


def wrong_type(spec: Spec) -> Iterator[Way]:
    wrong = {"chunk": "four", "form": 3, "rule": True, "rate": [0.1], "retain": {"a": 1}, "meta": 1, "read": 2,
             "normalise_hidden": "no", "every": [3], "carry": 1, "start": 0}  # fmt: skip
    for name, value in wrong.items():
        for path, _ in _said(spec, name):
            yield _put(spec, path, value), [path, (*path, 0), (*path, "a")]
    yield _put(spec, ("sizes", "heads"), "two"), [("sizes", "heads")]
    if "tied" in spec:
        yield _put(spec, ("tied",), "no"), [("tied",)]


def wrong_choice(spec: Spec) -> Iterator[Way]:
    for name in Fields.model_fields:
        if choices(name):
            for path, _ in _said(spec, name):
                yield _put(spec, path, "sometimes"), [path]
    for path, _ in _said(spec, "carry"):
        yield _put(spec, path, "for_ever"), [path]


def wrong_unit(spec: Spec) -> Iterator[Way]:
    for path, value in _said(spec, "every"):
        if value != "never":
            count = str(value).split()[0]
            yield _put(spec, path, f"{count} tokns"), [path]
            yield _put(spec, path, count), [path]
            yield _put(spec, path, f"{count} epochs"), [path]


def illegal_period(spec: Spec) -> Iterator[Way]:
    for path, value in _said(spec, "every"):
        if value != "never":
            for text in ("0 tokens", "1.5 tokens", "-2 tokens", "often"):
                yield _put(spec, path, text), [path]


def chunk_beside_period(spec: Spec) -> Iterator[Way]:
    for path, section in _sections(spec):
        every = str(section.get("every", ""))
        if "chunk" in section and "token" in every and int(every.split()[0]) > 1 and len(path) == 4:
            yield _put(spec, (*path, "chunk"), int(every.split()[0]) + 1), [(*path, "chunk")]


def unknown_name(spec: Spec) -> Iterator[Way]:
    for name, word in (("rule", "gdd"), ("form", "matrx"), ("objective", "l3"), ("start", "ones")):
        for path, _ in _said(spec, name):
            yield _put(spec, path, word), [path]


def unknown_value(spec: Spec) -> Iterator[Way]:
    for path, value in _said(spec, "rate", "retain"):
        if str(value).replace(".", "").isdigit():
            yield _put(spec, path, "0.1 * sigmoid(nothing)"), [path]
    for path, text, n, line in _equations(spec):
        target, _, value = line.partition(" = ")
        yield _line(spec, path, text, n, f"{target} = {value} + nothing")


def unknown_operator(spec: Spec) -> Iterator[Way]:
    for path, text, n, line in _equations(spec):
        for match in re.finditer(r"\b(\w+)\(", line):
            if match.group(1) in CALLABLE:
                word = _misspelt(match.group(1))
                if word not in CALLABLE:
                    yield _line(spec, path, text, n, line[: match.start(1)] + word + line[match.end(1) :])


def number_out_of_range(spec: Spec) -> Iterator[Way]:
    for name, number in (("chunk", 0), ("retain", 1.5), ("retain", -0.1), ("rate", -0.1)):
        for path, _ in _said(spec, name):
            yield _put(spec, path, number), [path]
    for size in spec["sizes"]:
        yield _put(spec, ("sizes", size), 0), [("sizes", size)]
    if "run" in spec:
        yield _put(spec, ("run", "batch"), 0), [("run", "batch")]


def parameter(spec: Spec) -> Iterator[Way]:
    """A parameter that the form, rule or objective does not have."""
    for path, value in _said(spec, "form", "rule"):
        text = str(value)
        changed = f"{text[:-1]}, nothing=3)" if text.endswith(")") else f"{text}(nothing=3)"
        yield _put(spec, path, changed), [path]
    for path, value in _said(spec, "objective"):
        if value in ("l2", "dot"):
            yield _put(spec, path, f"{value}(3)"), [path]
            yield _put(spec, path, "lp"), [path]


def two_rates(spec: Spec) -> Iterator[Way]:
    for path, section in _sections(spec):
        if "lr=" in str(section.get("rule", "")):
            yield _put(spec, (*path, "rate"), 0.01), [(*path, "rate"), (*path, "rule")]


def nothing_there(spec: Spec) -> Iterator[Way]:
    for path, _ in _said(spec, "chunk", "rate", "meta", "read", "objective", "tail"):
        yield _put(spec, path, None), [path]


def missing(spec: Spec) -> Iterator[Way]:
    """A form, the period, keys or the block taken away."""
    for path, section in _sections(spec):
        if len(path) == 4 and "form" in section:
            changed = deepcopy(spec)
            del changed["levels"][path[1]]["memories"][path[3]]["form"]
            if changed["levels"][path[1]]["memories"][path[3]] and "attention" not in section["form"]:
                yield changed, [path]
    for key in ("nlc", "name"):
        changed = {k: v for k, v in spec.items() if k != key}
        yield changed, [(next(iter(changed)),)]
    if "inputs" in spec:
        changed = {k: v for k, v in spec.items() if k != "outputs"}
        yield changed, [("inputs",)]
        return
    for size in ("width", "vocab", "context"):
        changed = deepcopy(spec)
        del changed["sizes"][size]
        if size == "width" or not any(re.search(rf"\b{size}\b", line) for *_, line in _equations(spec)):
            yield changed, [("sizes",)]


def contradiction(spec: Spec) -> Iterator[Way]:
    for path, section in _sections(spec):
        if len(path) != 4:
            continue
        level = spec["levels"][path[1]]
        both = level | section
        if str(both.get("form")).startswith("attention"):
            yield _put(spec, (*path, "retain"), 0.5), [(*path, "retain")]
            continue
        if both.get("objective") == "loss" and both.get("carry") != "model":
            yield _put(spec, (*path, "keys"), "h"), [(*path, "keys")]
        if both.get("carry") == "model":
            yield _put(spec, (*path, "tail"), "drop"), [(*path, "tail")]
        if section.get("form") in ("matrix", "vector") and both.get("every") != "never":
            yield _put(spec, (*path, "normalise_hidden"), True), [(*path, "normalise_hidden")]
        if "token" in str(both.get("every")) and "retain" not in both:
            yield _put(spec, (*path, "retain_to"), "start"), [(*path, "retain_to")]


def one_name_twice(spec: Spec) -> Iterator[Way]:
    levels = spec["levels"]
    for i in range(1, len(levels)):
        if isinstance(levels[i]["memories"], dict) or i == len(levels) - 1:
            yield _put(spec, ("levels", i, "name"), levels[0]["name"]), [("levels", i), ("levels", i, "name")]
    if "outputs" in spec:
        yield _put(spec, ("outputs",), [*spec["outputs"], spec["outputs"][0]]), [("outputs",)]


def shapes(spec: Spec) -> Iterator[Way]:
    for path, text, n, line in _equations(spec):
        if n == text.strip("\n").count("\n") and line.startswith("x = "):
            yield _line(spec, path, text, n, f"x = concat({line[4:]}, x)")


def cycle(spec: Spec) -> Iterator[Way]:
    for path, text, n, line in _equations(spec):
        target, _, value = line.partition(" = ")
        if target in ("h", "u"):
            yield _line(spec, path, text, n, f"{target} = {value} + {target}")


def syntax(spec: Spec) -> Iterator[Way]:
    for path, text, n, line in _equations(spec):
        target, _, value = line.partition(" = ")
        wrong = (f"{value} +", f"({value}", f"{value}.T", f"{value} ? 1", f"{value} if 1 else 2", f"{value})")
        for changed in (value, *(f"{target} = {w}" for w in wrong)):
            yield _line(spec, path, text, n, changed)


def never_read(spec: Spec) -> Iterator[Way]:
    for path, section in _sections(spec):
        if len(path) == 2 and isinstance(section["memories"], dict):
            changed = deepcopy(spec)
            new = {"form": "matrix", "every": "never", "keys": "h", "values": "h"}
            changed["levels"].insert(0, {"name": "spare", "memories": {"spare_memory": new}})
            yield changed, [("levels", 0, "memories", "spare_memory")]
            return


def unused_input(spec: Spec) -> Iterator[Way]:
    if "inputs" in spec:
        yield _put(spec, ("inputs", "nobody"), ["width"]), [("inputs", "nobody")]


def empty_selection(spec: Spec) -> Iterator[Way]:
    if "inputs" not in spec:
        for text in ("select(nothing.at.all)", "everything", "select(embedding, speed=3)"):
            changed = deepcopy(spec)
            new = {"name": "spare", "every": "1 step", "objective": "loss", "rule": "gd(lr=0.1)", "memories": text}
            changed["levels"].insert(0, new)
            yield changed, [("levels", 0, "memories")]


def stack(spec: Spec) -> Iterator[Way]:
    if "stack" in spec:
        yield _put(spec, ("stack",), ["one", "three", "two"]), [("stack",)]
        yield _put(spec, ("stack",), ["one", "0 * two"]), [("stack",)]


def name_of_a_size(spec: Spec) -> Iterator[Way]:
    for path, text, n, line in _equations(spec):
        if "out=width" in line:
            yield _line(spec, path, text, n, line.replace("out=width", "out=widht", 1))


BREAKS: dict[str, Callable[[Spec], Iterator[Way]]] = {
    f.__name__.replace("_", " "): f
    for f in (
        misspelt_key, unknown_key, wrong_type, wrong_choice, wrong_unit, illegal_period, chunk_beside_period,
        unknown_name, unknown_value, unknown_operator, number_out_of_range, parameter, two_rates, nothing_there,
        missing, contradiction,
        one_name_twice, shapes, cycle, syntax, never_read, unused_input, empty_selection, stack, name_of_a_size,
    )
}  # fmt: skip
