"""What a search file may say: one pydantic model per mapping; the strings below fields are their descriptions.

Values of axes are kept as trees with their places (nlc.variants.search): here they may be anything.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from nlc.spec.architecture import Count, Section

Amount = Annotated[int, Field(ge=1)]  # of numbers, bytes, operations, tokens: as many as there may be
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Natural = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "mapping" if isinstance(value, dict) else "word"


def _of_axis(value: Any) -> str:
    return "list" if isinstance(value, list) else "mapping"


def _of_sampler(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "word"


class AxisFields(Section):
    """One way in which variants differ: the values of a path, or changes that have names."""

    values: list[Any] = Field(default=[])
    """What the path is set to, one after another; null takes the key away."""
    choices: dict[str, dict[str, Any]] = Field(default={})
    """By name, several changes at once: a path with dots is set, a key of the spec is laid over it as by `extends`."""
    when: dict[str, Any] = Field(default={})
    """The axis applies only where other axes, said before it, have this value, or one of these."""


class BudgetFields(Section):
    """What every variant may cost, and how much of them there is."""

    params: Amount | None = None
    """Most parameters; sizes are changed until no larger one would keep every limit."""
    state_bytes: Amount | None = None
    """Most bytes of state of a sequence, as `nlc explain` counts them."""
    flops: Amount | None = None
    """Most FLOPs of a token forward, as `nlc explain` counts them."""
    tokens: Amount | None = None
    """Tokens that each run learns from, where a rung says nothing else; whole steps."""
    steps: Count | None = None
    """Steps of each run, where a rung says nothing else; run.steps of the spec otherwise."""
    trials: Count | None = None
    """Most variants that are made, mutants, rejected and equal ones included; all otherwise."""


class TuneFields(Section):
    """A grid of rates that every variant tries on every task, with a seed that no score has."""

    lr: Annotated[list[Positive], Field(min_length=1)]
    """Learning rates of the levels that own the network's weights."""
    weight_decay: list[Natural] = Field(default=[])
    """Weight decays of their rules, where these have one."""
    steps: Count | None = None
    """Steps of each of these runs; those of the first rung that learns the task otherwise."""


class RungFields(Section):
    """One round of successive halving: what is learned, how long, how often, and how many go on."""

    tasks: Names | None = None
    """Of the search's tasks; all otherwise."""
    steps: Count | None = None
    """Steps of each run."""
    tokens: Amount | None = None
    """Tokens of each run, in place of steps."""
    seeds: Count | None = None
    """Runs of each variant on each task."""
    keep: Positive | None = None
    """How many variants go on to the next rung; below 1 which share of those that have a score, rounded up."""
    rank_by: str | None = None
    """The score that decides here: the search's where it is one of these tasks, the first task's main one otherwise."""


class MutateFields(Section):
    """Variants that are edits of the best so far."""

    generations: Count
    """How often mutants are made of what is best by then."""
    population: Count
    """Mutants of each generation."""
    parents: Count = 4
    """So many of the best may have some."""
    cross: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the mutants that have two parents."""


class SamplerFields(Section):
    """How values of axes are put together."""

    name: Literal["grid", "random", "tpe", "gp", "nsga2"]
    """grid, random; or one of optuna's, which look at the scores so far."""
    batch: Count = 4
    """Variants that are asked for at once: the sampler sees the scores of whole batches, however many run at a time."""


class LimitFields(Section):
    """What a run may take before it is ended, and that recorded."""

    seconds: Positive = 3600.0
    """Of its process."""
    memory_mib: Positive = 8192.0
    """Resident memory of its process."""


class SearchFields(Section):
    """A search: which variants of a spec, on which tasks, at what cost."""

    SECTIONS: ClassVar[dict[str, type[BaseModel]]] = {}

    nlc: Literal[1]
    """Version of the language."""
    search: Annotated[str, Field(min_length=1)]
    """The search's name."""
    doc: str = ""
    """What it asks."""
    base: Annotated[
        Annotated[str, Tag("word")] | Annotated[Names, Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list) else "word"),
    ]
    """A shipped spec's name, or a file in this folder or below it; several are an axis called base."""
    set: dict[str, Any] = Field(default={})
    """Changes to the base that all variants share, as in a choice."""
    axes: dict[
        str,
        Annotated[
            Annotated[Annotated[list[Any], Field(min_length=1)], Tag("list")] | Annotated[AxisFields, Tag("mapping")],
            Discriminator(_of_axis),
        ],
    ] = Field(default={})
    """How variants differ: values by path, levels and memories by name; or choices, conditions."""
    sampler: Annotated[
        Annotated[Literal["grid", "random", "tpe", "gp", "nsga2"], Tag("word")]
        | Annotated[SamplerFields, Tag("mapping")],
        Discriminator(_of_sampler),
    ] = "grid"
    """How values are put together: grid (all of them; a seeded draw where the budget has fewer trials), random, or one
    of optuna's samplers."""
    mutate: MutateFields | None = None
    """Edits of the best variants, generation after generation."""
    tasks: Annotated[
        Annotated[Names, Tag("list")]
        | Annotated[Annotated[dict[str, str], Field(min_length=1)], Tag("mapping")]
        | Annotated[str, Tag("word")],
        Discriminator(_kind),
    ]
    """What variants learn: names, with knobs in brackets, files, or text; or by names of their own."""
    data: str | None = None
    """A file or folder, from that of the search: the text that is learned, or hides needles; Python's own otherwise."""
    budget: BudgetFields = BudgetFields()
    """What every variant may cost, and how much of them there is."""
    rescale: Annotated[
        Annotated[str, Tag("word")] | Annotated[Names, Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list) else "word"),
    ] = "sizes.width"
    """The size, or sizes one after another, that are changed to meet the budget."""
    tune: TuneFields | None = None
    """Rates that every variant tries, so that none wins by a lucky one."""
    rungs: Annotated[list[RungFields], Field(min_length=1)] = Field(default=[RungFields()])
    """Successive halving, cheap tasks first; one rung with everything otherwise."""
    seeds: Count = 1
    """Runs of each variant on each task, where a rung says nothing else."""
    rank_by: str | None = None
    """The score by which variants are ranked, mqar.accuracy; the main one of the first task otherwise."""
    better: Literal["higher", "lower"] | None = None
    """Which scores win; known of the shipped tasks' own."""
    limits: LimitFields = LimitFields()
    """What a run may take before it is ended."""
    items: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Items of each test set of a task."""
    threads: Count = 1
    """Threads of each run: results depend on them, in the last digits."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the sampler, of mutants, and of the first run of each variant."""


SearchFields.SECTIONS.update(
    axes=AxisFields, budget=BudgetFields, tune=TuneFields, rungs=RungFields, mutate=MutateFields,
    sampler=SamplerFields, limits=LimitFields,
)  # fmt: skip
