"""The small grammars of single fields.  Each takes the text and the Position (or Place) of its first character.

    parse_period("64 tokens", at)                       -> Period(64, Unit.TOKEN)
    parse_bytes("8 GB", at)                             -> 8000000000
    parse_select("select(blocks.*, rank=2)", at)        -> Select(("blocks.*",), 2, ())
    parse_stack(["first", "11 * other"], [at, at])      -> ("first", "other", "other", ...)
    parse_call                                          (nlc.equations) mlp(hidden=4x), adamw(lr=1e-3), learned(0.05)
    bind(call, ("hidden", "depth"), "form")             -> {"hidden": Expr}: positional and named parameters by name

All raise SpecError.  FORMS, OBJECTIVES and STARTS list what the language knows, with parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.equations import Call, Expr
from nlc.period import Period, Unit
from nlc.source import Place, Position, place_from

FORMS: dict[str, tuple[str, ...]] = {
    "matrix": (),
    "mlp": ("hidden", "depth", "act", "residual", "norm", "bias"),
    "swiglu": ("hidden", "residual", "norm", "bias"),
    "vector": (),
    "attention": ("window", "segment", "persistent"),
}
OBJECTIVES: dict[str, tuple[str, ...]] = {"dot": (), "l2": (), "lp": ("p",), "huber": ("d",), "loss": ()}
STARTS: dict[str, tuple[str, ...]] = {
    "learned": ("init",), "zeros": (), "identity": (), "random": (), "from": (),
}  # fmt: skip
LAYERS = 10_000  # in a stack
CARRIES = ("sequence", "stream", "model")

_PERIOD = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kM]?)\s+([A-Za-z]+)\s*")
_SCALES = {"": 1, "k": 1_000, "M": 1_000_000}
_UNITS = {name: unit for unit in Unit if unit is not Unit.NEVER for name in (unit.value, unit.value + "s")}
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B\s*")
_PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SELECT = re.compile(r"\s*select\s*\((.*)\)\s*", re.DOTALL)
_PART = re.compile(r"(?:\s*(\w+)\s*=)?\s*(\[[^\]]*\]|[^,\[\]]*)\s*(?:,|$)")
_PATTERN = re.compile(r"[A-Za-z0-9_.*?]+")
_STACK = re.compile(r"\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)\s*")


def parse_period(text: str, at: Position | Place) -> Period:
    """`never`, or a count with a unit: `1 token`, `64 tokens`, `2 steps`, `4k tokens`."""
    place = _place(text, at)
    if text.strip() == "never":
        return Period(0, Unit.NEVER)
    whole = place(0, max(1, len(text)))
    if re.fullmatch(r"\s*\d+(\.\d+)?[kM]?\s*", text):
        raise _error(
            "NLC0401", whole, f"'{text}' has no unit", f"write '{text.strip()} tokens' or '{text.strip()} steps'"
        )
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise _error(
            "NLC0401", whole, f"'{text}' is not a period", "a count and a unit: 1 token, 64 tokens, 2 steps; or never"
        )
    number, scale, unit = match.groups()
    if unit not in _UNITS:
        word = place(match.start(3), len(unit))
        raise _error("NLC0401", word, f"unknown unit '{unit}'", suggest(unit, _UNITS, "units"))
    count = float(number) * _SCALES[scale]
    if count != int(count) or not 0 < count < 1e15:
        raise _error(
            "NLC0401",
            whole,
            f"'{text}' is not a whole, positive count",
            "never: no update at all" if count == 0 else "",
        )
    return Period(int(count), _UNITS[unit])


@dataclass(frozen=True, slots=True)
class Select:
    """Which parameters a level owns: those whose name one of `patterns` matches and none of `exclude`, of `rank` axes
    when given.  `rest` is Select(("*",)) that takes what is left."""

    patterns: tuple[str, ...]
    rank: int | None = None
    exclude: tuple[str, ...] = ()
    rest: bool = False
    at: Position = field(default=Position("", 0, 0), compare=False)

    def takes(self, name: str, rank: int) -> bool:
        """Whether a parameter of that name and number of axes is selected."""
        if self.rank not in (None, rank) or any(fnmatchcase(name, p) for p in self.exclude):
            return False
        return any(fnmatchcase(name, p) for p in self.patterns)


def parse_bytes(text: str, at: Position | Place) -> int:
    """A size with its unit: `8 GB`, `1.5GB`, `512 MiB`, `0 B`; GB is 10^9 bytes, GiB 2^30."""
    match = _BYTES.fullmatch(text)
    if match is None:
        whole = _place(text, at)(0, max(1, len(text)))
        raise _error("NLC0417", whole, f"'{text}' is not a size", "a number and a unit: 8 GB, 512 MiB")
    number, prefix = match.group(1), (match.group(2) or "").upper()
    return int(float(number) * (1024 if prefix.endswith("I") else 1000) ** _PREFIXES[prefix[:1]])


def parse_select(text: str, at: Position | Place) -> Select:
    """`rest`, or `select(blocks.*, rank=2, except=*.conv)`; several patterns, several exceptions: `except=[a, b]`."""
    place = _place(text, at)
    whole = place(0, max(1, len(text)))
    if text.strip() == "rest":
        return Select(("*",), rest=True, at=whole)
    match = _SELECT.fullmatch(text)
    if match is None:
        hint = "memories: a mapping of memories, rest, or select(blocks.*, rank=2, except=*.conv)"
        raise _error("NLC0407", whole, f"'{text}' is not a selection", hint)
    patterns: list[str] = []
    exclude: list[str] = []
    rank: int | None = None
    parts = list(_PART.finditer(match.group(1)))
    if "".join(part.group() for part in parts) != match.group(1):
        raise _error("NLC0407", whole, f"'{text}' is not a selection", "its brackets do not match")
    for part in parts:
        name, value = part.group(1), part.group(2).strip()
        at_name, at_value = (place(match.start(1) + part.start(i), max(1, len(part.group(i) or ""))) for i in (1, 2))
        if name is None and not value:
            continue
        if name not in (None, "rank", "except"):
            hint = "select(pattern, rank=number, except=pattern)"
            raise _error("NLC0407", at_name, f"a selection has no '{name}'", hint)
        if name == "rank":
            if not value.isdigit():
                raise _error("NLC0407", at_value, f"rank is a number of axes, not '{value}'")
            rank = int(value[:9])
            continue
        words = [w.strip() for w in value.strip("[]").split(",")]
        if not all(_PATTERN.fullmatch(w) for w in words):
            hint = "names of parameters, * for any part: blocks.*.conv"
            raise _error("NLC0407", at_value, f"'{value}' is not a pattern of names", hint)
        (patterns if name is None else exclude).extend(words)
    return Select(tuple(patterns) or ("*",), rank, tuple(exclude), at=whole)


def parse_stack(
    items: Sequence[str], places: Sequence[Position], blocks: Sequence[str], layers: int | None
) -> tuple[str, ...]:
    """The block kind of each layer.  Without counts the list repeats to `layers`; with counts it is the whole stack."""
    report = Reporter()
    stack: list[str] = []
    counted = False
    for text, at in zip(items, places, strict=True):
        match = _STACK.fullmatch(text)
        if match is None:
            report.error("NLC0409", at, f"'{text}' is not a block of the stack", hint="a block's name, or: 11 * name")
            continue
        count, name = match.groups()
        counted |= count is not None
        if name not in blocks:
            report.error(
                "NLC0409", at, f"the stack names an unknown block '{name}'", hint=suggest(name, blocks, "blocks")
            )
        if count is not None and not 0 < int(count[:6]) <= LAYERS:
            report.error("NLC0409", at, f"'{text}': the count is not between 1 and {LAYERS}")
            continue
        if len(stack) + int(count or 1) > LAYERS:
            report.error("NLC0409", at, f"'{text}': the stack has more than {LAYERS} blocks with it")
            break
        stack += [name] * int(count or 1)
    report.check()
    if layers is None or not stack:
        return tuple(stack)
    if counted and len(stack) != layers:
        raise _error(
            "NLC0409",
            places[0],
            f"the stack has {len(stack)} blocks, sizes.layers is {layers}",
            "leave sizes.layers out, or make them equal",
        )
    if layers % len(stack):
        nearest = max(1, round(layers / len(stack))) * len(stack)
        raise _error(
            "NLC0409", places[0], f"{len(stack)} blocks do not repeat to {layers} layers", f"nearest: layers: {nearest}"
        )
    return tuple(stack * (layers // len(stack)))


def bind(call: Call, parameters: Sequence[str], what: str) -> dict[str, Expr]:
    """The call's parameters by name; positional ones in the order of `parameters`.  `what` is said in messages."""
    report = Reporter()
    found: dict[str, Expr] = {}
    takes = f"{call.func} takes: {', '.join(parameters)}" if parameters else f"{call.func} takes none"
    for index, value in enumerate(call.args):
        if index < len(parameters):
            found[parameters[index]] = value
        else:
            report.error("NLC0405", value.at, f"one parameter too many for {what} '{call.func}'", hint=takes)
            break
    for (name, value), at in zip(call.kwargs, call.places, strict=True):
        if name not in parameters:
            hint = suggest(name, parameters, "parameters") if parameters else takes
            report.error("NLC0405", at, f"{what} '{call.func}' has no parameter '{name}'", hint=hint)
        elif name in found:
            report.error("NLC0405", at, f"'{name}' is given twice")
        found[name] = value
    report.check()
    return found


def _place(text: str, at: Position | Place) -> Place:
    return place_from(at, text) if isinstance(at, Position) else at


def _error(code: str, at: Position, message: str, hint: str = "") -> SpecError:
    report = Reporter()
    report.error(code, at, message, hint)
    return SpecError(report.found)
