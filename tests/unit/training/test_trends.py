from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from runtime.level import Level, Weights
from runtime.metrics import Metrics
from runtime.processes import Processes
from runtime.record import Record, start
from runtime.trends import Trends


def said(norms: Sequence[float | None]) -> list[tuple[int, str]]:
    trends = Trends()
    rows = [{"step": i, "memory/titans.key/norm": norm, "grad/train/norm": 1e9} for i, norm in enumerate(norms)]
    return [(row["step"], words) for row in rows for words in trends.see(row).values()]


@pytest.mark.parametrize(
    "norms", [[], [1.0] * 30, [1, 2, 4, 6, 7, 7], [0.0, 0.0, 1.0, 1.5], [3.0, None, 3.0], [1.0, 0.11]]
)
def test_a_memory_that_settles_is_quiet(norms: list[float | None]) -> None:
    assert said(norms) == []


def test_a_memory_is_named_once_when_it_vanishes() -> None:
    assert said([5.0, 2.0, 0.4, 0.1, 0.01]) == [(2, "is about to vanish: its norm is 0.08 times its first")]


def test_a_memory_is_named_when_it_is_far_above_its_first_norm() -> None:
    assert said([1.0, 9.0, 11.0, 99.0]) == [(2, "is about to explode: its norm is 11 times its first")]


def test_growth_within_a_few_rows_is_named_after_the_beginning() -> None:
    early = [1.0, 1.5, 2.0, 2.5, 3.0]
    assert said([*early, *[3.0] * 10, 4.0, 7.0]) == [
        (16, "is about to explode: its norm grew 2.33 times within 5 rows")
    ]


def test_memories_do_not_mix() -> None:
    trends = Trends()
    trends.see({"step": 1, "memory/a/norm": 1.0, "memory/b/norm": 100.0})
    assert list(trends.see({"step": 2, "memory/a/norm": 1.0, "memory/b/norm": 1.0})) == ["b"]


def trained(*starts: float) -> list[Level]:
    """Levels `slow` and `train`, the second with the starts of a memory of so many layers, of these norms each."""
    blocks = [nn.ParameterDict({"start": torch.tensor([0.6, 0.8]) * norm}) for norm in starts]
    model = nn.Module()
    model.blocks = nn.ModuleList(nn.ModuleDict({"titans": nn.ModuleDict({"key": block})}) for block in blocks)
    model.other = nn.Parameter(torch.full((1,), 1e6))
    weights = Weights(model)
    return [Level("slow", weights.take("other")), Level("train", weights.take("*"))]


def test_a_start_is_as_long_as_its_layers_are_on_average() -> None:
    owner, norm = start("titans.key", trained(3.0, 4.0))
    assert owner == "train" and norm == pytest.approx(12.5**0.5)
    assert start("titans.memory", trained(3.0)) == ("", 0.0)


@pytest.mark.parametrize(
    ("norms", "at_start", "cause"),
    [
        ((1.0, 11.0), 10.0, "the rate of level train, which trains its start"),
        ((1.0, 11.0), 1.0, "its rate and retention"),
        ((1.0, 0.05), 0.05, "the rate of level train, which trains its start"),
        ((1.0, 0.05), 1.0, "its rate and retention"),
    ],
    ids=["its start explodes", "its writes explode", "its start vanishes", "it forgets its start"],
)
def test_a_warning_points_at_what_moved_the_memory(
    norms: tuple[float, ...], at_start: float, cause: str, tmp_path: Path
) -> None:
    record = Record(1, Processes())
    record.metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for step, norm in enumerate(norms):
        record.metrics.write(step, step, 0.0, {"memory/titans.key/norm": norm})
        said = record.warnings(trained(at_start, at_start))
    assert len(said) == 1 and said[0].startswith("memory titans.key is about to ")
    assert said[0].endswith(f"; look at {cause}")
