from __future__ import annotations

from collections.abc import Sequence

import pytest

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
