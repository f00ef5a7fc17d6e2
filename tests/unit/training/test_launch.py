"""Several processes end with the status of the one that failed first, whichever of them is gone first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from nlc.launch import launch, status
from tests.e2e.command import ROOT

# Rank 1 finds a mistake and takes its time to go; rank 0 loses it, and ends at once.
MISTAKE = """
import os, pathlib, sys, time
from runtime.summary import keep

found = pathlib.Path(sys.argv[1])
if os.environ["RANK"] == "1":
    keep("a mistake of the user", 2)
    found.touch()
    time.sleep(float(sys.argv[2]))
    sys.exit(2)
while not found.exists():
    time.sleep(0.01)
sys.exit(1)
"""


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


def test_a_users_mistake_is_not_hidden_by_those_it_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MISTAKE)
    assert launch(program, [str(tmp_path / "found"), "30"], 2) == 2


def failed(folder: Path, rank: int, code: int, reason: dict[str, object] | None = None) -> ProcessFailure:
    file = folder / f"{rank}.json"
    if reason is not None:
        file.write_text(json.dumps({"message": "why", "timestamp": 7, **reason}))
    return ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file=str(file))


def test_the_first_that_kept_why_gives_the_status(tmp_path: Path) -> None:
    late, first = {"seconds": 7.9, "status": 143}, {"seconds": 7.2, "status": 4}
    failures = [failed(tmp_path, 0, 1), failed(tmp_path, 1, 143, late), failed(tmp_path, 2, -15, first)]
    assert status(failures) == 4


@pytest.mark.parametrize(("code", "said"), [(3, 3), (-9, 1)])
def test_where_none_kept_why_it_is_how_the_first_ended(tmp_path: Path, code: int, said: int) -> None:
    assert status([failed(tmp_path, 1, code), failed(tmp_path, 0, -15)]) == said
