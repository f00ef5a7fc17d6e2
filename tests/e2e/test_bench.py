"""`nlc bench`: every row is measured, at sizes that take seconds; what is missing is named; a missed floor is status 3.

Numbers at such sizes mean nothing, and none is asserted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nlc.bench.rows import ROWS, Missing, Reading, Scale, together
from tests.e2e.command import Run

GOALS = [row for row in ROWS if row.goal is not None or row.floor is not None]
DIVIDED = ["--divide", "32"]
NEEDS = ("nested_learning", "titans", "gpu")  # modules that measure what may not be here


@pytest.mark.parametrize("by", [by for by in together(ROWS) if by != "spills:backward"])
def test_every_row_is_measured(by: str, nlc: Run, tmp_path: Path) -> None:
    """By each function once.  Kernels of the backward pass, which take long to compile, are left to tests/kernels."""
    asked = [row.id for row in ROWS if row.by == by]
    divided = ["--divide", "512"] if by.startswith("long") else DIVIDED
    ended = nlc("bench", *(word for id in asked for word in ("--rows", id)), *divided, "--json")
    assert ended.status in (0, 3), ended.err
    record = json.loads(ended.out)
    assert [row["id"] for row in record["rows"]] == asked
    assert record["ok"] is (ended.status == 0)
    assert record["ok"] is not any(row.get("below_floor", False) for row in record["rows"])
    for row in record["rows"]:
        if row["measured"] is None:
            assert row["missing"].startswith("needs ") and by.startswith(NEEDS)
        else:
            assert math.isfinite(row["measured"]) and json.dumps(row["details"])
            assert row["low"] is None or row["low"] <= row["measured"] <= row["high"]


@pytest.mark.parametrize("id", ["sweep-cell", "sweep-layer", "sweep-model"])
def test_a_sweep_has_a_line_for_every_shape(id: str, nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlc.bench import sweep

    monkeypatch.setattr(sweep, "LENGTHS", (256, 512))
    monkeypatch.setattr(sweep, "BATCHES", (1,))
    ended = nlc("bench", "--rows", id, *DIVIDED, "--json")
    assert ended.status == 0
    lines = json.loads(ended.out)["sweeps"][id]
    assert {(line["batch"], line["tokens"]) for line in lines} == {(1, 8), (1, 16)}
    assert all(line["tokens/s"] > 0 and any(name.startswith("times ") for name in line) for line in lines)


# ---- what is made of the numbers


def pretend(
    monkeypatch: pytest.MonkeyPatch, fails: str = "", error: BaseException | None = None, **values: float
) -> None:
    """Every row measured exactly at its goal, but those of `values`; what a GPU measures is missing, one row fails."""
    rows = {row.id: row for row in ROWS}

    def measure(scale: Scale, asked: frozenset[str]) -> dict[str, Reading]:
        if any(id.startswith("gpu-") for id in asked):
            raise Missing("needs a GPU")
        if fails in asked:
            raise error or ArithmeticError("the two differ")
        return {id: Reading(values.get(id.replace("-", "_"), rows[id].goal or 0.0), 1.0, 2.0) for id in asked}

    monkeypatch.setattr("nlc.bench.run.measurement", lambda by: measure)


def test_the_table_has_every_goal(nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    ended = nlc("bench", "--quick")
    assert ended.status == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ended.out.splitlines() if line[:1] == "|"]
    assert lines[0] == ["what", "floor", "goal", "measured", "spread"]
    assert [line[0] for line in lines[2:]] == [row.what for row in GOALS]
    measured = {row.id: line[3] for row, line in zip(GOALS, lines[2:], strict=True)}
    assert measured["cell-loop"] == "48x" and measured["gpu-cell"] == "not measured: needs a GPU"
    assert measured["long"] == "not measured: the full run does"
    assert "No row is below its floor." in ended.out


def test_a_row_below_its_floor_is_status_3_and_named(nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cell_loop=29.9, cell_bytes=8.1, layer_512=0.96)
    ended = nlc("bench", "--quick")
    assert ended.status == 3
    assert "29.9x, below its floor" in ended.out and "Below their floor: cell-loop, cell-bytes." in ended.out


def test_results_are_written_as_json_and_as_a_table(nlc: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, cell_loop=1.0)
    ended = nlc("bench", "--rows", "cell-*", "--out", "made")
    assert ended.status == 3
    record: dict[str, Any] = json.loads((tmp_path / "made" / "bench.json").read_text())
    assert set(record) >= {"ok", "kind", "date", "machine", "versions", "rows", "sweeps", "seconds"}
    assert record["ok"] is False and record["versions"]["torch"] and record["machine"]["processor"]
    row = next(row for row in record["rows"] if row["id"] == "cell-loop")
    assert (row["floor"], row["goal"], row["measured"], row["below_floor"], row["reaches_goal"]) == (
        30,
        48,
        1,
        True,
        False,
    )
    assert (tmp_path / "made" / "bench.md").read_text().startswith("# Measurements\n")


def test_a_row_that_fails_leaves_the_others_their_numbers(nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, fails="cell-loop", cell_bytes=9)
    ended = nlc("bench", "--rows", "cell-*")
    assert ended.status == 1
    assert "failed: ArithmeticError: the two differ" in ended.out
    assert "9 KB, below its floor" in ended.out
    assert "Failed: cell-loop, cell-generic, cell-flops, cell-rows." in ended.out


def test_a_run_that_is_stopped_leaves_what_was_measured(
    nlc: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, fails="layer-512", error=KeyboardInterrupt())
    ended = nlc("bench", "--rows", "cell-loop", "--rows", "layer-512", "--out", "made")
    assert ended.status == 130
    record = json.loads((tmp_path / "made" / "bench.json").read_text())
    assert [row["measured"] for row in record["rows"]] == [48, None]
    assert "not measured: the run was stopped before" in (tmp_path / "made" / "bench.md").read_text()


def test_an_unknown_row_is_refused_with_the_nearest(nlc: Run) -> None:
    ended = nlc("bench", "--rows", "cell-lop")
    assert ended.status == 2
    assert ended.err.startswith("nlc: --rows cell-lop: no such row: did you mean 'cell-loop'?")


def test_rows_are_listed_without_torch(process: Run) -> None:
    code = "import sys; from nlc.cli import main; main(['bench', '--list', '--rows', 'layer-*']); "
    ended = process(python=("-c", code + "print('torch' in sys.modules)"))
    *lines, torch = ended.out.splitlines()
    assert torch == "False" and [line.split()[0] for line in lines] == [
        row.id for row in ROWS if row.id.startswith("layer-")
    ]
