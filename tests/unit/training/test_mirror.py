"""TensorBoard mirrors every row; without the library a run does not begin."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtime import program
from runtime.metrics import read
from runtime.mirror import Mirror

Package = Callable[..., Path]


def run(folder: Path, *arguments: object) -> int:
    return int(program.load(folder).main([str(a) for a in (*arguments, "--quiet")]))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    """Everything that a writer of events is given, in place of the library."""
    found: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None = None) -> None:
            found.append(("purge", math.nan, purge_step or 0))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            found.append((name, value, step))

        def close(self) -> None:
            found.append(("closed", math.nan, 0))

    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return found


def test_every_number_of_every_row_is_mirrored(
    package: Package, text: Path, tmp_path: Path, written: list[tuple[str, float, int]]
) -> None:
    assert run(package(), "--out", tmp_path / "out", "--data", text, "--steps", 12, "--tensorboard") == 0
    rows = list(read(tmp_path / "out/metrics.jsonl"))
    assert written[1:-1] == [(name, row[name], row["tokens"]) for row in rows for name in row if "/" in name]
    assert written[-1][0] == "closed"


def test_nothing_is_mirrored_unasked(package: Package, text: Path, tmp_path: Path, written: list[Any]) -> None:
    assert run(package(), "--out", tmp_path / "out", "--data", text, "--steps", 2) == 0 and written == []


def test_what_is_not_finite_is_mirrored_as_such(tmp_path: Path, written: list[tuple[str, float, int]]) -> None:
    Mirror(tmp_path, tokens=640).write({"step": 1, "tokens": 64, "train/loss": None})
    assert written[0] == ("purge", pytest.approx(math.nan, nan_ok=True), 641)
    assert written[1][0] == "train/loss" and math.isnan(written[1][1])


def test_a_missing_library_is_one_line_and_status_4(
    package: Package, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(package(), "--out", tmp_path / "out", "--data", text, "--tensorboard") == 4
    assert (
        capsys.readouterr().err
        == "error: --tensorboard needs the library tensorboard: pip install 'nlc[tensorboard]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_the_library_itself_reads_what_was_mirrored(package: Package, text: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    assert run(package(), "--out", tmp_path / "out", "--data", text, "--steps", 12, "--tensorboard") == 0
    events = accumulator.EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    losses = [(row["tokens"], row["train/loss"]) for row in read(tmp_path / "out/metrics.jsonl") if "train/loss" in row]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("train/loss")] == losses
