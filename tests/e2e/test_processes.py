"""One run in several processes: the same weights; a process that dies ends the run cleanly; resumed by any number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.e2e.command import ROOT

SMALL = {
    "sizes.width": "16", "sizes.layers": "2", "sizes.context": "32", "run.batch": "4", "run.warmup": "5",
    "run.precision": "float64", "levels.titans.chunk": "8", "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "16 tokens",
}  # fmt: skip
STREAM = {"levels.titans.carry": "stream"}


def command(*arguments: object, **settings: str) -> subprocess.Popen[str]:
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "nlc", "train", *map(str, arguments), *given],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/step-{step:06d}/model.safetensors")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", [{}, STREAM], ids=["crops", "lanes"])
def test_any_number_of_processes_gives_the_same_weights(tmp_path: Path, text: Path, more: dict[str, str]) -> None:
    # A stream goes on from step to step, and what rounding did with it: it is compared before that has grown.
    steps, counts = (4, (1, 2)) if more else (50, (1, 2, 4))
    for n in counts:
        place = ["--data", text, "--out", tmp_path / f"by-{n}", "--processes", n, "--steps", steps, "--quiet"]
        ended(command("hope", *place, **SMALL, **more))
    one = weights(tmp_path / "by-1", steps)
    for n in counts[1:]:
        other = weights(tmp_path / f"by-{n}", steps)
        assert all((other[name] - x).norm() <= 1e-10 * x.norm() for name, x in one.items())
        if more:
            states = [load_file(tmp_path / f"by-{m}/checkpoints/step-{steps:06d}/state.safetensors") for m in (1, n)]
            assert states[0].keys() == states[1].keys()
            for name, x in states[0].items():
                torch.testing.assert_close(states[1][name], x, rtol=1e-9, atol=1e-12)


def ranks(run: Path) -> dict[int, int]:
    """rank -> process, of the processes that train this run."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
            values = dict(v.split("=", 1) for v in (place / "environ").read_text().split("\0") if "=" in v)
        except OSError:
            continue
        if str(run) in words and "RANK" in values:
            found[int(values["RANK"])] = int(place.name)
    return found


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize(("began", "ends"), [(2, 1), (4, 2)])
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(
    tmp_path: Path, text: Path, began: int, ends: int
) -> None:
    run, steps = tmp_path / "run", 240
    process = command("hope", "--data", text, "--out", run, "--processes", began, "--steps", steps, "--quiet", **SMALL)
    while not (run / "checkpoints/latest").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.kill(ranks(run)[began - 1], signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1 and time.monotonic() - began < 60
    assert "error: another process of this run has ended" in err and "the newest checkpoint is" in err
    assert "Traceback" not in err
    assert not ranks(run)
    ended(command("--resume", run, "--processes", ends, "--quiet"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [row["step"] for row in rows if "train/loss" in row]
    assert logged == sorted(set(logged)) and logged[-1] == steps


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, text: Path) -> None:
    process = command("hope", "--data", text, "--out", tmp_path / "run", "--processes", 3, "--quiet", **SMALL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert (
        err.count("a batch of 4 sequences cannot be shared out evenly among 3 processes") == 1
        and "Traceback" not in err
    )
