"""Scales, ticks, names: what makes a picture legible."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nlc.page.chart import MOST, Scale, apart, said, svg, thinned
from nlc.page.curves import Panel, Series

from .markup import read


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2, 0.21), (3.1, 8.9), (-4, 4), (0, 61440), (1e-5, 3e-5), (1e8, 3e9), (0.9999, 1.0001)]
)
@pytest.mark.parametrize("about", [2, 3, 5])
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float, about: int) -> None:
    ticks = Scale(low, high, 0, 100).ticks(about)
    assert 2 <= len(ticks) <= about + 3
    assert all(low - 1e-9 * abs(low) <= t <= high * (1 + 1e-9) for t in ticks) and ticks == sorted(set(ticks))
    assert len({said(t) for t in ticks}) == len(ticks) or high - low < 1e-3


def test_a_log_axis_counts_in_powers_of_ten() -> None:
    scale = Scale(1, 10_000, 100, 0, log=True)
    assert scale.ticks(5) == [1, 10, 100, 1000, 10_000] and scale(100) == pytest.approx(50)
    assert len(Scale(1, 1e12, 0, 1, log=True).ticks(4)) <= 5


def test_names_never_stand_on_one_another() -> None:
    places = apart([50.0, 50.0, 51.0, 10.0, 99.0], 0, 100)
    found = sorted(places)
    assert all(b - a >= 14 - 1e-9 for a, b in pairwise(found))
    assert max(found) <= 100 and places[3] == 10.0


def test_a_curve_is_thinned_by_its_extremes() -> None:
    points = [(float(i), float(i % 7)) for i in range(10_000)]
    points[5_000] = (5_000.0, 99.0)
    found = thinned(points)
    assert len(found) <= MOST + 2 and (5_000.0, 99.0) in found
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    assert thinned(points[:100]) == points[:100]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (2.4676, "2.47"),
        (1000, "1,000"),
        (61440, "61.4k"),
        (1.5e6, "1.5M"),
        (4.03e-4, "4.03e-4"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert said(value) == text


def test_text_of_a_spec_cannot_become_markup() -> None:
    series = Series("<script>alert(1)</script>", [(0, 1.0), (1, 2.0)], 0)
    document = read(svg(Panel('a "title" <b>', "unit & more", (series,)), 300, 200))
    assert not document.all("script") and document.one("svg").attributes["aria-label"].startswith('a "title" <b>')
