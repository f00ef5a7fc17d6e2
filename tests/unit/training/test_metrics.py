from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from runtime.errors import RunError
from runtime.metrics import Metrics, lines, norms, read


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


@pytest.mark.parametrize(
    ("damaged", "fault"),
    [
        (b'{"step": 2, "tok', "not JSON"), (b"\xff\xfe", "not UTF-8"), (b"5", "not an object"), (b"", "not JSON"),
        (b'{"step": 2}', "its tokens is not a number"), (b'{"step": 2, "tokens": NaN}', "not JSON"),
        (b'{"step": 2, "tokens": 128, "train/loss": "x"}', "its train/loss is not a number"),
    ],
)  # fmt: skip
def test_a_damaged_row_in_the_middle_is_named_and_hides_none_after_it(
    tmp_path: Path, damaged: bytes, fault: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "tokens": 64}\n' + damaged + b'\n{"step": 3, "tokens": 192}\n')
    found = lines(path)
    assert [line.row and line.row["step"] for line in found] == [1, None, 3]
    assert (found[1].number, found[1].fault) == (2, fault)
    with pytest.raises(RunError, match=re.escape(f"{path}:2: not a row of metrics: {fault}")):
        read(path)
    with pytest.raises(RunError, match="--allow goes on without it"):
        Metrics(path, rows=3)
    assert [row["step"] for row in Metrics(path, rows=3, lenient=True).rows] == [1, 3]
    path.write_bytes(b'{"step": 1, "tokens": 64}\n' + damaged + b"\n")
    assert [row["step"] for row in Metrics(path, rows=1).rows] == [1]  # what no checkpoint counts goes


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
