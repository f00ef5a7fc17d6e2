"""Rows and turns of `nlc bench`: what is below a floor, what is a goal, how rivals are timed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlc.bench.elsewhere import elsewhere
from nlc.bench.rows import ROWS, Missing, Row, Scale, measurement, named, together
from nlc.bench.timing import Seconds, turns


def test_below_its_floor_is_less_where_more_is_better_and_more_where_less_is() -> None:
    fast = Row("fast", "", 30, 48, "x", "")
    small = Row("small", "", 8, 5.5, "KB", "", more=False)
    assert [fast.below(x) for x in (29.9, 30, 60)] == [True, False, False]
    assert [small.below(x) for x in (8.1, 8, 5)] == [True, False, False]
    assert fast.reaches(48) and not fast.reaches(47) and small.reaches(5.5) and not small.reaches(6)
    assert not Row("told", "", None, None, "x", "").below(0.0)


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("x", 31.26, "31.3x"),
        ("x", 0.95, "0.95x"),
        ("x", 4, "4x"),
        ("x", 148.2, "148x"),
        ("tokens/s", 12345.6, "12,346 tokens/s"),
        ("KB", 4.64, "4.6 KB"),
    ],
)
def test_a_number_has_its_unit(unit: str, value: float, shown: str) -> None:
    assert Row("", "", None, None, unit, "").show(value) == shown


def test_every_row_has_a_function_of_its_own_name() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    for by in together(ROWS):
        assert callable(measurement(by))


def test_a_goal_is_at_least_as_far_as_its_floor() -> None:
    for row in ROWS:
        if row.floor is not None and row.goal is not None:
            assert not row.below(row.goal)


def test_patterns_choose_rows_and_one_that_matches_nothing_is_named() -> None:
    rows, sweeps = named(["layer-4*", "sweep-*"])
    assert [row.id for row in rows] == ["layer-4096"] and len(sweeps) == 3
    with pytest.raises(LookupError, match="nothing-like-it"):
        named(["cell-*", "nothing-like-it"])


def test_rivals_take_turns_and_a_ratio_is_the_median_turn() -> None:
    order, slow = list[str](), iter([9.0, 2.0, 4.0, 3.0])  # the first warms up

    def run(name: str, seconds: float) -> Seconds:
        order.append(name)
        return Seconds(seconds)

    took = turns({"slow": lambda: run("slow", next(slow)), "fast": lambda: run("fast", 1.0)}, 3)
    assert order == ["slow", "fast"] * 4
    ratio = took.ratio("slow", "fast")
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 2.5, 3.5)
    assert took.rate("fast", 512).value == 512


def test_no_turn_begins_after_the_seconds_given_and_one_is_always_taken() -> None:
    assert len(turns({"slow": lambda: Seconds(1.0)}, 4, warm=(), within=0.0).seconds["slow"]) == 1
    assert len(turns({"quick": lambda: Seconds(1.0)}, 4, warm=(), within=60.0).seconds["quick"]) == 4


def test_what_fails_in_a_process_of_its_own_says_why() -> None:
    with elsewhere("math:sqrt", Scale(), threads=1) as run, pytest.raises(RuntimeError, match="math:sqrt: TypeError: "):
        run.ready()


RIVALS = """
import os, signal
def loud(scale): return lambda: os.write(1, b"hi\\n")
def ends(scale): return lambda: os._exit(7)
def killed(scale): return lambda: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_rival_prints_is_no_answer_and_what_ends_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rivals.py").write_text(RIVALS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with elsewhere("rivals:loud", Scale(), threads=1) as run:
        assert run() >= 0 and run() >= 0
    with elsewhere("rivals:ends", Scale(), threads=1) as run:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="rivals:ends: ended with status 7"):
                run()
    with elsewhere("rivals:killed", Scale(), threads=1) as run, pytest.raises(Missing, match="needs more memory"):
        run()
