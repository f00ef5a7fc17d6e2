from __future__ import annotations

import math

import pytest

from runtime.schedule import constant, cosine


def test_cosine_rises_in_a_line_to_the_peak_and_falls_to_a_tenth_of_it() -> None:
    factors = [cosine(step, 100, 10) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.55)  # half way down
    assert factors == [*factors[:10], *sorted(factors[10:], reverse=True)]
    assert cosine(100, 100, 10) == pytest.approx(0.1)


def test_cosine_is_the_formula() -> None:
    assert cosine(30, 100, 10) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 20 / 90)))


def test_constant_stays_at_the_peak() -> None:
    assert [constant(step, 5, 2) for step in range(5)] == [0.5, 1, 1, 1, 1]


@pytest.mark.parametrize("warmup", [0, 5, 50])
def test_no_warmup_is_too_long_or_too_short(warmup: int) -> None:
    factors = [cosine(step, 5, warmup) for step in range(5)]
    assert all(0 < factor <= 1 for factor in factors)
