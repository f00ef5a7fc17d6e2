"""Update rules as data: specs/rules/<name>.yaml to a RuleSpec.

load_rule("adamw", at)     -> RuleSpec(name, doc, params, levels); SpecError NLC0402 at `at` when there is no such rule
rules()                    -> the names of the shipped rules

RuleSpec.params            {"lr": 0.001, "betas": (0.9, 0.999), ...}, in the order of the file; lr is the level's rate
RuleSpec.ranges            {"lr": Interval.read("[0, inf)"), ...}: what a number given for a parameter may be
RuleSpec.levels            programs in the order they run: RuleProgram(every, state, do)
RuleProgram.every          updates between two runs: a whole number, or the name of a parameter
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Assign, Name, names, parse_block, to_text
from nlc.operator_shapes import Shape, show
from nlc.operators import CALLABLE
from nlc.rule_shapes import SEEN, Misfit, shape_of, worded
from nlc.source import Mapping, Position, Scalar, Sequence, Tree, plain
from nlc.spec.remembered import Remembered, remembered
from nlc.spec.rule_sense import sense
from nlc.spec.text import parse, read

SHIPPED = Path(__file__).resolve().parents[2] / "specs"
GIVEN = ("grad", "weight", "start", "lr", "retain", "k", "v", "x", "error", "gram", "count", "rows", "cols")
TAKEN = frozenset(GIVEN) - {"k", "v", "x", "error", "gram"} | {"delta"}  # names that no state may have

Parameter = int | float | bool | str | tuple[int | float, ...]  # the only text is KEY
KEY = "k"  # a parameter that is the pair's key unless another vector as wide is given

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WRITTEN = re.compile(r"([\[(])\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?|inf)\s*([\])])")


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers from `low` to `high`, each end in it or not; in words: `0 or more`, `from 0 to below 1`."""

    low: float
    high: float
    low_in: bool
    high_in: bool

    @classmethod
    def read(cls, text: str) -> Interval | None:
        """An interval as mathematics writes it: `[0, 1)` holds 0 and not 1, `[0, inf)` has no end."""
        match = _WRITTEN.fullmatch(text.strip())
        return None if match is None else cls(float(match[2]), float(match[3]), match[1] == "[", match[4] == "]")

    def holds(self, number: float) -> bool:
        above = number >= self.low if self.low_in else number > self.low
        return above and (number <= self.high if self.high_in else number < self.high)

    def __str__(self) -> str:
        if self.high == inf:
            return f"{self.low:g} or more" if self.low_in else f"above {self.low:g}"
        begin = "from" if self.low_in else "above"
        return f"{begin} {self.low:g} to {'' if self.high_in else 'below '}{self.high:g}"


@dataclass(frozen=True, slots=True)
class RuleProgram:
    """One level of a rule: it runs every `every` updates, its states start at zero."""

    every: int | str
    state: tuple[str, ...]
    do: tuple[Assign, ...]
    at: Position
    memories: tuple[Remembered, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """An update rule: what its parameters are without the spec saying, and its program."""

    name: str
    doc: str
    params: MappingOf[str, Parameter]
    ranges: MappingOf[str, Interval]
    levels: tuple[RuleProgram, ...]
    at: Position
    tree: Mapping | None = field(default=None, compare=False, repr=False)  # as it is written

    def written(self) -> dict[str, Any]:
        """The rule as plain data, as a spec has it under `rules:`."""
        written: dict[str, Any] = {} if self.tree is None else plain(self.tree)
        return {key: value for key, value in written.items() if key in ("doc", "params", "ranges", "levels")}


def rules() -> tuple[str, ...]:
    """The shipped rules, by name."""
    return tuple(sorted(path.stem for path in (SHIPPED / "rules").glob("*.yaml")))


def load_rule(name: str, at: Position | None = None) -> RuleSpec:
    """The rule of that name.  `at` is where the name is written."""
    if name not in rules():
        report = Reporter()
        report.error(
            "NLC0402", at or Position(name, 0, 0), f"unknown update rule '{name}'", hint=suggest(name, rules(), "rules")
        )
        raise SpecError(report.found)
    return _load(name)


@lru_cache
def _load(name: str) -> RuleSpec:
    shown = f"specs/rules/{name}.yaml"
    report = Reporter()
    text = read(SHIPPED / "rules" / f"{name}.yaml", shown, report)
    tree = parse(text, shown, report) if text is not None else None
    report.check()
    assert tree is not None
    return rule_from(tree)


def rule_from(tree: Tree, called: str = "") -> RuleSpec:
    """A rule's tree as a RuleSpec.  Raises SpecError with everything that is wrong with it.

    `called`: the name it goes by in a spec, which it need not repeat."""
    report = Reporter()
    if not isinstance(tree, Mapping):
        report.error("NLC0202", tree.at, "a rule is a mapping")
        raise SpecError(report.found)
    _keys(tree, ("nlc", "rule", "doc", "params", "ranges", "levels"), "a rule", report)
    version = tree.get("nlc")
    if version is None and "rule" in tree.entries:
        report.error("NLC0203", tree.at, "'nlc' is missing", 'a rule file begins with "nlc: 1"')
    elif version is not None and not (isinstance(version, Scalar) and version.text == "1"):
        report.error("NLC0210", version.at, "another version of the language", "this compiler reads nlc: 1")
    name = _text(tree, "rule", report, called or None)
    if called and name != called:
        at = tree.entries["rule"].value.at
        report.error("NLC0410", at, f"this rule is called '{name}', and a level says '{called}'", "one name for both")
    if not _NAME.fullmatch(name or "x"):
        report.error("NLC0212", tree.at, f"'{name}' is not a name", "letters, digits and _, not a digit first")
    params = _params(tree.get("params"), report)
    ranges = _ranges(tree.get("ranges"), params, report)
    listed = tree.get("levels")
    programs: list[RuleProgram] = []
    if isinstance(listed, Sequence) and listed.items:
        programs = [p for item in listed.items if (p := _program(item, params, report)) is not None]
    else:
        report.error("NLC0203", (listed or tree).at, "a rule has levels:, a list")
    if not report.found:
        _meaning(programs, params, tree.at, report)
    if not report.found:
        sense(programs, tree, params, report)
    report.check()
    doc = _text(tree, "doc", report, "")
    return RuleSpec(name, doc, MappingProxyType(params), MappingProxyType(ranges), tuple(programs), tree.at, tree)


def _program(item: Tree, params: MappingOf[str, Parameter], report: Reporter) -> RuleProgram | None:
    if not isinstance(item, Mapping):
        report.error("NLC0202", item.at, "a level of a rule is a mapping")
        return None
    _keys(item, ("every", "state", "do", "memories"), "a level of a rule", report)
    memories = remembered(item.get("memories"), report)
    written = item.get("every")
    every: int | str = 1
    match = re.fullmatch(r"(\w+)\s+updates?", _text(item, "every", report))
    if match is None or not (match[1].isdigit() or match[1] in params):
        report.error(
            "NLC0401", (written or item).at, "a rule's period counts updates", hint="1 update, or: period updates"
        )
    else:
        every = int(match[1]) if match[1].isdigit() else match[1]
        count = params[every] if isinstance(every, str) else every
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            report.error("NLC0205", (written or item).at, f"a period of {count} updates", "a whole number, at least 1")
    state = item.get("state")
    states: tuple[str, ...] = ()
    if isinstance(state, Mapping):
        states = tuple(state.entries)
        for name, entry in state.entries.items():
            if name in TAKEN:
                report.error("NLC0410", entry.at, f"a state called '{name}', which every rule has already", "rename it")
            if not (isinstance(entry.value, Scalar) and entry.value.text == "zeros"):
                report.error("NLC0204", entry.value.at, "a rule's state starts at zeros")
    elif state is not None:
        report.error("NLC0202", state.at, "state: is a mapping, e.g. {m: zeros}")
    do = item.get("do")
    if not isinstance(do, Scalar):
        report.error("NLC0203", (do or item).at, "a level of a rule has do:, its program")
        return None
    try:
        return RuleProgram(every, states, parse_block(do.text, do.place), item.at, memories)
    except SpecError as error:
        report.take(error)
    return None


def _meaning(programs: list[RuleProgram], params: MappingOf[str, Parameter], at: Position, report: Reporter) -> None:
    """Every name read is known, every shape fits, every state has one writer, and something is done."""
    shapes: dict[str, Shape] = dict(SEEN)
    shapes |= {
        name: SEEN["k"] if value == KEY else () for name, value in params.items() if not isinstance(value, tuple)
    }
    shapes |= {name: SEEN["grad"] for program in programs for name in program.state}
    assigned = {target for program in programs for assign in program.do for target in assign.targets}
    for program in programs:
        for memory in program.memories:
            if memory.name in {*shapes, *params, *assigned} or memory.name in CALLABLE:
                report.error("NLC0410", memory.at, f"a memory called '{memory.name}', which is something else here")
    given, done = {*shapes, *params} - {"delta"}, set[str]()
    for program in programs:
        own = given | (done & {"delta"})
        _remembered(program, shapes, report)
        elsewhere = {name for other in programs for name in other.state} - set(program.state)
        here = dict(shapes)
        for assign in program.do:
            _reads(assign, own, done, params, report)
            if program.every != 1 and "gram" in names(assign.value):
                report.error("NLC1001", assign.at, "a slower level of a rule cannot read gram yet", "every: 1 update")
            for target, place in zip(assign.targets, assign.places, strict=True):
                if target in elsewhere:
                    report.error("NLC0410", place, f"the state '{target}' is written by another level of the rule")
                if target in params or target in set(GIVEN) - {"weight", *program.state}:
                    report.error("NLC0410", place, f"'{target}' is given to the rule and cannot be written")
            own |= set(assign.targets)
            done |= set(assign.targets)
            if not report.found:
                here |= _shapes(assign, here, {*program.state, "delta", "weight"}, params, report)
    if not done & {"delta", "weight"}:
        report.error("NLC0410", at, "the rule sets neither delta nor weight")


def _remembered(program: RuleProgram, shapes: dict[str, Shape], report: Reporter) -> None:
    """The memories of a level, each with the widths of its map, [out, in], under `name()`."""
    for memory in program.memories:
        try:
            found = []
            for tree in (memory.keys, memory.values):
                for name in names(tree):
                    if name not in shapes or name in ("delta", "gram", "k", "v", "x", "error", "start", "count"):
                        raise Misfit(tree.at, f"the memory '{memory.name}' reads '{name}'", "grad, weight, or a state")
                found.append(shape_of(tree, shapes))
                if len(found[-1]) != 2:
                    raise Misfit(tree.at, f"this is {worded(show(found[-1]))}", "pairs are the columns of a matrix")
            (inner, pairs), (outer, targets) = found
            if pairs != targets:
                seen = f"{worded(str(pairs))} keys and {worded(str(targets))} values"
                raise Misfit(
                    memory.values.at, f"the memory '{memory.name}' has {seen}", "a column of each makes a pair"
                )
            shapes[f"{memory.name}()"] = (outer, inner)
        except Misfit as error:
            report.error("NLC0410", error.at, error.message, error.hint)
            shapes[f"{memory.name}()"] = (SEEN["grad"][0], SEEN["grad"][0])


def _reads(assign: Assign, own: set[str], done: set[str], params: MappingOf[str, Parameter], report: Reporter) -> None:
    for name in names(assign.value):
        if name in own:
            continue
        if name in done:
            hint = "make it a state of that level, which the others may read"
            report.error("NLC0410", assign.at, f"'{name}' is a value of another level of the rule", hint=hint)
        else:
            report.error("NLC0410", assign.at, f"the rule reads an unknown '{name}'", hint=suggest(name, own))


def _shapes(
    assign: Assign, shapes: dict[str, Shape], lasting: set[str], params: MappingOf[str, Parameter], report: Reporter
) -> dict[str, Shape]:
    """The shapes of what a statement assigns; what lasts is a matrix, or fills one."""
    if len(assign.targets) > 1:
        listed = params.get(assign.value.id) if isinstance(assign.value, Name) else None
        if not isinstance(listed, tuple) or len(listed) != len(assign.targets):
            count, text = len(assign.targets), to_text(assign.value)
            hint = "a parameter that is a list of so many numbers: beta1, beta2 = betas"
            report.error("NLC0410", assign.at, f"'{text}' is no list of {count} numbers", hint=hint)
        return dict.fromkeys(assign.targets, ())
    (target,) = assign.targets
    try:
        shape = shape_of(assign.value, shapes)
        if target in lasting and SEEN["grad"][: len(shape)] != shape:
            found = worded(show(shape))
            raise Misfit(assign.at, f"'{target}' is [rows, cols], and this is {found}", "transpose it?")
    except Misfit as error:
        report.error("NLC0410", error.at, error.message, error.hint)
        return {target: SEEN["grad"]}
    return {target: SEEN["grad"] if target in lasting else shape}


def _params(tree: Tree | None, report: Reporter) -> dict[str, Parameter]:
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        report.error("NLC0202", tree.at, "params: is a mapping of names to values")
        return {}
    found: dict[str, Parameter] = {}
    for name, entry in tree.entries.items():
        if name in {*GIVEN, "delta"} - {"lr"}:
            report.error("NLC0410", entry.at, f"a parameter called '{name}', which every rule has already", "rename it")
        if endless := [item for item in _items(entry.value) if not isfinite(_number(item) or 0)]:
            message = f"params.{name} is {endless[0].text}; a finite number is expected"
            report.error("NLC0205", endless[0].at, message)
            continue
        match entry.value:
            case Scalar(value=(int() | float()) as number):
                found[name] = number
            case Sequence(items, _) if all(_number(item) is not None for item in items):
                found[name] = tuple(n for item in items if (n := _number(item)) is not None)
            case Scalar(value="k"):
                found[name] = KEY
            case value:
                expected = "a number, true or false, a list of numbers, or k: a vector as wide as the key"
                report.error("NLC0202", value.at, f"params.{name}: {expected}")
    return found


def _ranges(tree: Tree | None, params: MappingOf[str, Parameter], report: Reporter) -> dict[str, Interval]:
    """Ranges of parameters; what a parameter is without being given lies in its own."""
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        report.error("NLC0202", tree.at, "ranges: is a mapping of parameters to intervals, such as '[0, 1)'")
        return {}
    found: dict[str, Interval] = {}
    for name, entry in tree.entries.items():
        if name not in params:
            report.error("NLC0410", entry.at, f"a range of an unknown '{name}'", hint=suggest(name, params, "params"))
            continue
        interval = Interval.read(entry.value.text) if isinstance(entry.value, Scalar) else None
        if interval is None:
            report.error("NLC0202", entry.value.at, f"ranges.{name}: an interval such as '[0, 1)'")
            continue
        found[name], default = interval, params[name]
        if isinstance(default, str):
            report.error("NLC0410", entry.at, f"a range of '{name}', which is a vector")
        elif not all(interval.holds(n) for n in (default if isinstance(default, tuple) else (default,))):
            report.error("NLC0205", entry.value.at, f"params.{name} is {default}, which is not {interval}")
    return found


def _items(tree: Tree) -> list[Scalar]:
    """The words of a value: itself, or those of a list."""
    return [item for item in (tree.items if isinstance(tree, Sequence) else (tree,)) if isinstance(item, Scalar)]


def _number(tree: Tree) -> int | float | None:
    return tree.value if isinstance(tree, Scalar) and isinstance(tree.value, (int, float)) else None


def _keys(tree: Mapping, allowed: tuple[str, ...], what: str, report: Reporter) -> None:
    for key, entry in tree.entries.items():
        if key not in allowed and not key.startswith("x-"):
            report.error("NLC0201", entry.at, f"{what} has no key '{key}'", hint=suggest(key, allowed, "keys"))


def _text(tree: Mapping, key: str, report: Reporter, default: str | None = None) -> str:
    value = tree.get(key)
    if isinstance(value, Scalar) and isinstance(value.value, str):
        return value.text
    if value is not None:
        report.error("NLC0202", value.at, f"'{key}' is text")
    elif default is None:
        report.error("NLC0203", tree.at, f"'{key}' is missing")
    return default or ""
