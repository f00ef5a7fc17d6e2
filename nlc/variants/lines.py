"""What a line of a journal must hold to be counted on, when a search goes on and in reports.

checked(record) -> the record, what it may lack filled in; raises ValueError, in words, where it lacks something else
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from nlc.variants.scores import task_of

Number = FiniteFloat | None
Index = Annotated[int, Field(ge=0)]
Costs = dict[str, int]


class Line(BaseModel):
    model_config = ConfigDict(extra="allow")
    at: float = 0.0


class RungAsked(Line):
    tasks: list[str]
    steps: int | None = None
    tokens: int | None = None
    seeds: int = 1
    keep: float | None = None
    rank_by: str


class Asked(Line):
    record: Literal["search"]
    version: Literal[1] = 1
    digest: str = ""
    name: str = "search"
    doc: str = ""
    base: list[str] = []
    axes: dict[str, list[str]] = {}
    tasks: dict[str, dict[str, Any]]
    sizes: dict[str, dict[str, int]] = {}
    rank_by: str
    better: Literal["higher", "lower"] = "higher"
    rungs: Annotated[list[RungAsked], Field(min_length=1)]
    set: dict[str, Any] = {}
    specs: dict[str, str] = {}

    @model_validator(mode="after")
    def _ranked_by_its_tasks(self) -> Asked:
        for name in (self.rank_by, *(rung.rank_by for rung in self.rungs)):
            if task_of(name, self.tasks) is None:
                raise ValueError(f"'{name}' is a score of no task")
        return self


class Edit(BaseModel):
    edit: str
    kind: str = ""


class Trial(Line):
    record: Literal["trial"]
    trial: str
    generation: int = 0
    base: str
    settings: dict[str, str] = {}
    edits: list[Edit] = []
    parents: list[str] = []
    hash: str | None = None
    key: str | None = None
    status: str
    of: str | None = None
    diagnostics: list[dict[str, Any]] = []
    error: str = ""
    rescaled: list[str] = []
    cost: dict[str, Costs] = {}
    file: str = ""
    digest: str = ""

    @model_validator(mode="after")
    def _counted_where_it_runs(self) -> Trial:
        if self.status == "ok" and not self.cost:
            raise ValueError("'cost' is empty, of a variant that runs")
        return self


class Cell(BaseModel):
    at: Any
    accuracy: FiniteFloat
    low: Number = None
    high: Number = None
    answers: int = 1


class Map(BaseModel):
    test: str
    context: int = 0
    learn: str = "on"
    by: str
    cells: list[Cell]


class RunCost(BaseModel):
    """Whole where it is said: what a run took is added up, and a report shows each."""

    model_config = ConfigDict(extra="allow")
    seconds: FiniteFloat
    tokens: int
    peak_memory: int


class Run(Line):
    record: Literal["run"]
    run: str
    trial: str
    task: str
    steps: int
    seed: int
    rung: Index
    purpose: Literal["rates", "score"]
    lr: Number = None
    weight_decay: Number = None
    status: str
    error: str = ""
    scores: dict[str, FiniteFloat] = {}
    intervals: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    curve: dict[str, list[float | None]] = {}
    maps: list[Map] = []
    cost: RunCost = RunCost(seconds=0.0, tokens=0, peak_memory=0)
    retries: int = 0


class Rung(Line):
    record: Literal["rung"]
    rung: Index
    rank_by: str
    scores: dict[str, FiniteFloat]
    kept: list[str]


class End(Line):
    record: Literal["end"]
    trials: int = 0
    runs: int = 0
    seconds: FiniteFloat = 0.0
    winner: str | None = None


LINE = TypeAdapter[Line](Annotated[Asked | Trial | Run | Rung | End, Field(discriminator="record")])


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return LINE.validate_python(record).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}" if where else "no known record"
        ) from None
