"""A candidate to a variant: an architecture that compiles, within the budget, or the reason why there is none.

make(candidate, search, lessons) -> Variant

Nothing is trained here and torch is not imported: only the compiler's front decides what is legal, at the sizes that
each task gives its sequences.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlc.diagnostics import CompilerBug, Diagnostic, SpecError
from nlc.graph.graph import Graph
from nlc.graph.hash import graph_hash
from nlc.passes import build
from nlc.show import yaml_text
from nlc.source import Entry
from nlc.spec import Spec, load, loads
from nlc.variants.axes import BASE, settings
from nlc.variants.budget import Cost, Fitted, fit
from nlc.variants.rates import Rates, grid, rated
from nlc.variants.scores import in_order
from nlc.variants.search import Search

LIMITS = ("params", "state_bytes", "flops")


@dataclass(frozen=True, slots=True)
class Lesson:
    """A task as variants learn it.  facts: as the runtime takes it; sizes: of its sequences."""

    name: str
    facts: Mapping[str, Any]
    sizes: Mapping[str, int]
    metric: str  # its main one

    @property
    def main(self) -> str:
        return f"{self.name}.{self.metric}"


@dataclass(frozen=True)
class Candidate:
    """What may become a variant.  load: the spec with some more values set; raises SpecError.

    edits: of a mutant, those of its first parent before its own.  text: the spec, where it is not made of axes.
    """

    base: str
    settings: Mapping[str, str]
    load: Callable[[Mapping[str, object]], Spec] = field(repr=False)
    edits: tuple[Mapping[str, str], ...] = ()
    parents: tuple[str, ...] = ()
    generation: int = 0
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class Variant:
    """text: the resolved spec; of a rejected one, what could be made of it.  key: equal for what is one trial."""

    status: str
    text: str
    hash: str | None = None
    key: str | None = None
    fitted: Fitted | None = None
    rates: tuple[Rates, ...] = (Rates(),)
    diagnostics: tuple[Mapping[str, object], ...] = ()
    error: str = ""


def chosen(search: Search, labels: Mapping[str, str]) -> Candidate:
    """The candidate that a choice of axes means."""
    base = labels.get(BASE, next(iter(search.bases)))
    changes: dict[str, Entry] = {**search.shared, **settings(search.axes, labels)}

    def made(more: Mapping[str, object]) -> Spec:
        return load(search.bases[base], {**changes, **more})

    return Candidate(base, {name: label for name, label in labels.items() if name != BASE}, made)


def written(text: str, file: str) -> Callable[[Mapping[str, object]], Spec]:
    """The same of a spec as text."""
    return lambda more: loads(text, file, more)


def make(candidate: Candidate, search: Search, lessons: Sequence[Lesson]) -> Variant:
    try:
        return _legal(candidate, search, lessons)
    except SpecError as error:
        told = tuple(d.as_dict() for d in error.diagnostics)
        return Variant("rejected", _attempted(candidate), diagnostics=told, error=str(error))
    except (CompilerBug, AssertionError, KeyError, IndexError, RecursionError, TypeError, ValueError) as bug:
        where = "".join(traceback.format_exception(bug)[-2:])
        return Variant("crashed", _attempted(candidate), error=f"the compiler failed: {where}")


def _legal(candidate: Candidate, search: Search, lessons: Sequence[Lesson]) -> Variant:
    def measure(sizes: Mapping[str, int]) -> dict[str, Cost]:
        return {one.name: cost_of(build(candidate.load({**sizes, **one.sizes}))) for one in lessons}

    spec = candidate.load({})
    if spec.model.inputs:
        message = f"'{spec.model.name}' is a bare program, without a loss of its own to train on"
        raise SpecError([Diagnostic("NLC0210", spec.at("inputs"), message)])
    _whole_step(spec, search, lessons)
    budget = search.fields.budget
    limits = {name: limit for name in LIMITS if (limit := getattr(budget, name)) is not None}
    fitted = fit(measure, limits, spec, search.rescale, search.at)
    spec = candidate.load(fitted.sizes)
    rates = grid(spec, search.tune)
    first = candidate.load({**fitted.sizes, **lessons[0].sizes, **rated(spec, rates[0])})
    digest = graph_hash(build(first))
    said = {"batch", "seed"} if search.own_steps else {"batch", "seed", "steps"}  # by the graph, by the search
    how = first.model.run.model_dump(exclude=said)
    key = hashlib.sha256(json.dumps([digest, how], sort_keys=True).encode()).hexdigest()
    return Variant("ok", yaml_text(spec.resolved()), digest, key, fitted, rates)


def _whole_step(spec: Spec, search: Search, lessons: Sequence[Lesson]) -> None:
    """A run learns from whole steps: where one is more than its tokens, there is none.  Raises SpecError."""
    for rung in search.rungs:
        tokens = rung.tokens or (None if rung.steps else search.fields.budget.tokens)
        for lesson in lessons:
            own = in_order(search.tasks[lesson.name])  # as many steps as it has
            if tokens is None or own or lesson.name not in (rung.tasks or search.tasks):
                continue
            context = lesson.sizes["sizes.context"]
            if (step := spec.model.run.batch * context) > tokens:
                message = f"one step of task '{lesson.name}' learns from {step:,} tokens, and a run may from {tokens:,}"
                hint = "more tokens, or a smaller run.batch"
                raise SpecError([Diagnostic("NLC1206", search.rungs_at if rung.tokens else search.at, message, hint)])


def cost_of(graph: Graph) -> dict[str, int]:
    assert graph.cost is not None
    return {
        "params": graph.cost.parameters, "state_bytes": graph.cost.state_bytes, "flops": graph.cost.flops,
    }  # fmt: skip


def _attempted(candidate: Candidate) -> str:
    """What can be shown of a variant that is none: its text, its resolved spec where it loads, or its choices."""
    if candidate.text:
        return candidate.text
    try:
        return yaml_text(candidate.load({}).resolved())
    except SpecError:
        return yaml_text({"x-base": candidate.base, "x-settings": dict(candidate.settings)})
