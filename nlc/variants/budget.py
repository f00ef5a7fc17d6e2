"""Sizes at which a variant costs no more than a search allows, and nearly as much.

fit(measure, limits, spec, rescale) -> Fitted        raises SpecError where no size keeps the limits

One size after another is changed to the largest value that keeps every limit, up or down; so variants of one budget
cost alike, as near as the size can be set.  `width` stays a multiple of twice the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import lcm

from nlc.diagnostics import Diagnostic, SpecError
from nlc.source import Position
from nlc.spec import Spec

MOST = 16  # times its own value a size may become

Cost = Mapping[str, int]  # params, state_bytes, flops
Measure = Callable[[Mapping[str, int]], Mapping[str, Cost]]  # sizes by path -> the cost by task; raises SpecError


@dataclass(frozen=True, slots=True)
class Fitted:
    """sizes: by path, those that were changed; lines: how, in words; costs: by task."""

    costs: Mapping[str, Cost]
    sizes: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def fit(measure: Measure, limits: Mapping[str, int], spec: Spec, rescale: Sequence[str], at: Position) -> Fitted:
    """Change sizes until nothing larger keeps the limits.  `at`: where the budget is written."""
    known = spec.model.known_sizes()
    sizes, costs = _begin(measure, known, rescale if limits else ())
    if not limits:
        return Fitted(costs)
    lines: list[str] = []
    for path in rescale:
        name = path.removeprefix("sizes.")
        if name not in known:
            continue
        now, step = sizes.pop(path, known[name]), _step(name, known | _by_name(sizes))
        best = _largest(partial(_kept, measure, dict(sizes), limits, path), now, step)
        value, costs = best or (now, costs)
        if value != known[name]:
            sizes[path] = value
            lines.append(f"{path} {known[name]} -> {value}: {said(costs, limits)}")
    if _over(costs, limits):
        message = f"no {' or '.join(rescale)} keeps the budget: {said(costs, limits)} as it stands"
        raise SpecError([Diagnostic("NLC1206", at, message)])
    return Fitted(costs, sizes, tuple(lines))


def _begin(
    measure: Measure, known: Mapping[str, int], rescale: Sequence[str]
) -> tuple[dict[str, int], Mapping[str, Cost]]:
    """The spec's own sizes, or where it does not compile at them one of a few beside them, and the costs there."""
    try:
        return {}, measure({})
    except SpecError:
        for path in rescale:
            name = path.removeprefix("sizes.")
            if name not in known:
                continue
            step = _step(name, known)
            below, above = -(-known[name] // step) - 1, known[name] // step + 1
            for times in (below, above, below - 1, above + 1):
                if times > 0:
                    with suppress(SpecError):
                        return {path: times * step}, measure({path: times * step})
        raise


def worst(costs: Mapping[str, Cost], name: str) -> int:
    """Of all tasks: a vocabulary or a longer context costs more."""
    return max(cost[name] for cost in costs.values())


def said(costs: Mapping[str, Cost], limits: Mapping[str, int]) -> str:
    """412,160 of 420,000 params (98 %)"""
    return ", ".join(
        f"{worst(costs, name):,} of {limit:,} {name} ({100 * worst(costs, name) / limit:.1f} %)"
        for name, limit in limits.items()
    )


def _over(costs: Mapping[str, Cost], limits: Mapping[str, int]) -> bool:
    return any(worst(costs, name) > limit for name, limit in limits.items())


def _kept(
    measure: Measure, sizes: Mapping[str, int], limits: Mapping[str, int], path: str, value: int
) -> Mapping[str, Cost] | None:
    """The costs at these sizes and one more; None where they are not legal, or over the budget."""
    try:
        costs = measure({**sizes, path: value})
    except SpecError:
        return None
    return None if _over(costs, limits) else costs


def _by_name(sizes: Mapping[str, int]) -> dict[str, int]:
    return {path.removeprefix("sizes."): size for path, size in sizes.items()}


def _step(name: str, known: Mapping[str, int]) -> int:
    return lcm(2, 2 * known.get("heads", 1)) if name == "width" else 1


def _largest(
    costs: Callable[[int], Mapping[str, Cost] | None], now: int, step: int
) -> tuple[int, Mapping[str, Cost]] | None:
    """The largest multiple of the step that keeps the limits, by halving: costs grow with a size.

    A size that is not legal counts as too large; the value that the spec has is tried first, whatever the step.
    """
    own = costs(now)
    low, high = (now // step, MOST * now // step + 1) if own is not None else (0, max(1, -(-now // step)))
    best = (now, own) if own is not None else None
    stride = 1
    while best is not None and low + stride < high:  # up from what is known to be within it, in growing strides
        found = costs((low + stride) * step)
        if found is None:
            high = low + stride
            break
        low, best, stride = low + stride, ((low + stride) * step, found), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        found = costs(middle * step)
        if found is None:
            high = middle
        else:
            low, best = middle, (middle * step, found)
    return best
