"""Means, intervals and the table."""

from __future__ import annotations

import pytest

from nlc.spec import load_task, tasks
from nlc.variants.scores import LESS, less_is_better, scores
from nlc.variants.standings import mean
from nlc.variants.table import markdown, said, short


def test_the_interval_of_a_mean_is_students() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5 and found.n == 4
    assert found.high - found.mean == pytest.approx(3.182 * 1.2909944 / 2, 1e-6)


def test_one_run_has_the_interval_of_its_answers_and_a_share_stays_one() -> None:
    assert mean([0.9], (0.8, 0.95)).low == 0.8 and mean([0.9]).low is None
    assert mean([0.99, 1.0], share=True).high == 1.0


def test_less_loss_is_better() -> None:
    learned = {"a": {"items": "parity"}, "texts": {"items": "domains"}, "classes": {"items": "topics"}}
    better = {"a.bits_per_byte", "a[b].off.loss", "texts.final", "texts.average", "texts.off.learning"}
    better |= {"texts.forgetting", "classes.forgetting"}
    more = {"a.accuracy", "texts.accuracy", "texts.forward_transfer", "classes.final", "classes.backward_transfer"}
    assert {name for name in better | more if less_is_better(name, learned)} == better


def test_every_metric_of_which_less_is_better_is_one_of_a_task() -> None:
    every = scores({name: load_task(name) for name in tasks()})
    assert set(LESS) <= {name.rsplit(".", 1)[-1] for name in every}


def test_an_axis_is_called_by_the_end_of_its_path_that_no_other_has() -> None:
    axes = (
        "levels.cms.memories.fast.every",
        "levels.cms.memories.mid.every",
        "levels.titans.rule",
        "sizes.width",
        "width",
    )
    assert [short(axis, axes) for axis in axes] == ["fast.every", "mid.every", "rule", "sizes.width", "width"]
    assert short("levels.titans.rule", axes[2:3]) == "rule" and short("xevery", ("xevery", "a.every")) == "xevery"


def test_a_table_in_markdown_has_no_bars_in_its_cells() -> None:
    assert markdown([("a", "b"), ("1|2", "")]).splitlines() == ["| a | b |", "|---|---|", "| 1\\|2 |  |"]
    assert said(mean([0.5, 0.7]), "a.accuracy").startswith("60.0 % (")
