"""The rates of a variant: learning rate and weight decay of the levels that own the network's weights.

rated(spec, Rates(lr=1e-3, weight_decay=0.1))     what sets them: {"levels.train.rule": "adamw(lr=0.001, ...)"}
trained(spec, facts, sizes, rates, steps)         what sets all that a run of the variant is trained with
grid(spec, tune)                                  the rates that a variant tries; (Rates(),) where it has none to set

A level that gives its rate as a number is given another number; one whose rate is learned or computed keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from nlc.equations import Call, parse_call, to_text
from nlc.source import Position
from nlc.spec import Level, Spec
from nlc.spec.resolve import DEFAULTS
from nlc.trees import Number
from nlc.variants.fields import TuneFields
from nlc.variants.scores import ordered

NOWHERE = Position("", 1, 1)
WARMUP = 10  # the rate rises over at most one of so many steps


@dataclass(frozen=True, slots=True, order=True)
class Rates:
    """None: as the variant says."""

    lr: float | None = None
    weight_decay: float | None = None

    def __str__(self) -> str:
        said = [f"lr {self.lr:g}"] if self.lr is not None else []
        said += [f"weight decay {self.weight_decay:g}"] if self.weight_decay is not None else []
        return ", ".join(said) or "its own rates"


def grid(spec: Spec, tune: TuneFields | None) -> tuple[Rates, ...]:
    """Every pair once; a weight decay only where a rule has one."""
    takes = {name for level in _outer(spec) for name in _takes(spec, level)}
    lrs: Sequence[float | None] = tune.lr if tune is not None and "lr" in takes else [None]
    decays: Sequence[float | None] = tune.weight_decay if tune is not None and "weight_decay" in takes else []
    return tuple(dict.fromkeys(Rates(lr, decay) for lr, decay in product(lrs, decays or [None])))


def rated(spec: Spec, rates: Rates) -> dict[str, object]:
    """What sets these rates, path by path."""
    wanted = {name: getattr(rates, name) for name in ("lr", "weight_decay") if getattr(rates, name) is not None}
    found: dict[str, object] = {}
    for level in _outer(spec):
        takes = _takes(spec, level)
        mine = {name: value for name, value in wanted.items() if name in takes}
        if "lr" in mine and level.rate is not None:
            found[f"levels.{level.name}.rate"] = mine.pop("lr")
        if mine:
            found[f"levels.{level.name}.rule"] = to_text(_with(_call(level), mine))
    return found


def trained(spec: Spec, facts: Mapping[str, Any], sizes: Mapping[str, int], rates: Rates, steps: int) -> dict[str, Any]:
    """What is set of a variant that learns a task for so many steps; of tasks in order none has a lower rate."""
    run = {"run.steps": steps, "run.warmup": min(spec.model.run.warmup, steps // WARMUP)}
    return {**sizes, **rated(spec, rates), **run, **({"run.schedule": "constant"} if ordered(facts) else {})}


def _outer(spec: Spec) -> Iterator[Level]:
    """The levels that own what is no memory of their own: rest, select(...)."""
    return (level for level in spec.model.levels if not isinstance(level.memories, dict))


def _call(level: Level) -> Call:
    return parse_call(level.rule or str(DEFAULTS["rule"]), NOWHERE)


def _takes(spec: Spec, level: Level) -> set[str]:
    """Which rates can be set: not one that is an expression."""
    takes = {"lr", "weight_decay"} & set(spec.rules.load(_call(level).func).params)
    return takes if level.rate is None or _number(level.rate) else takes - {"lr"}


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with(call: Call, values: dict[str, float]) -> Call:
    """The call with keywords replaced, or added."""
    given = {**dict(call.kwargs), **{name: Number(value, NOWHERE) for name, value in values.items()}}
    return replace(call, kwargs=tuple(given.items()), places=tuple(NOWHERE for _ in given))
