from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from runtime.metrics import Metrics, norms, read


def test_a_row_is_a_line_of_json_on_disk_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write(10, 640, 1.23456, {"train/loss": 2.0000004, "level/titans/fires": 640})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row == {"step": 10, "tokens": 640, "seconds": 1.235, "train/loss": 2.0, "level/titans/fires": 640}


def test_what_is_not_finite_is_null_so_that_every_line_is_json(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write(1, 64, 0.0, {"train/loss": math.nan, "grad/train/norm": math.inf})
    assert metrics.rows[0]["train/loss"] is None and metrics.rows[0]["grad/train/norm"] is None


def test_rows_come_back_without_the_one_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "tokens": 64}\n{"step": 2, "tok')
    assert list(read(path)) == [{"step": 1, "tokens": 64}]


def test_norm_of_a_memory_is_over_its_parts_and_the_mean_square_over_sequences_and_layers() -> None:
    state = {
        "clock": {"sequence": torch.tensor([3, 3])},
        "blocks.0.titans.key": {"M": torch.full((2, 3, 3), 1.0), "held.M": torch.full((2, 3, 3), 9.0)},
        "blocks.1.titans.key": {"M": torch.full((2, 3, 3), 3.0)},
        "blocks.0.cms.fast": {
            "W_in": torch.full((2, 2, 2), 1.0),
            "b_in": torch.full((2, 5), 1.0),
            "sum.W_in": torch.ones(2, 2),
        },
        "blocks.0.h.conv": {"past": torch.ones(2, 3, 3)},
    }
    found = norms(state)
    assert set(found) == {"titans.key", "cms.fast"}
    assert math.isclose(found["titans.key"], math.sqrt((9 + 81) / 2))
    assert math.isclose(found["cms.fast"], 3.0)
