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

from nlc.cli import main
from runtime.directory import RunDirectory
from tests.e2e.command import ROOT

SMALL = {
    "sizes.width": "16", "sizes.layers": "1", "sizes.context": "32", "run.batch": "4", "run.warmup": "5",
    "run.precision": "float64", "levels.titans.chunk": "8", "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "16 tokens",
}  # fmt: skip
TEXT = ("--data", ROOT / "README.md")
STREAM = {"levels.titans.carry": "stream"}
STEPS = 40


def words(*arguments: object, **settings: str) -> list[str]:
    return ["train", *map(str, arguments), *(w for key, x in settings.items() for w in ("--set", f"{key}={x}"))]


def command(*arguments: object, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nlc", *words(*arguments, **settings)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/step-{step:06d}/model.safetensors")


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(words("hope", *TEXT, "--out", run, "--steps", STEPS, "--quiet", **SMALL)) == 0
    return run


def same_weights(one: Path, other: Path, step: int) -> None:
    first, second = weights(one, step), weights(other, step)
    assert all((second[name] - x).norm() <= 1e-10 * x.norm() for name, x in first.items())


@pytest.mark.timeout(600)
def test_several_processes_give_the_weights_of_one(whole: Path, tmp_path: Path) -> None:
    """Here four; below two and four of them begin a run, and others go on to the same weights."""
    ended(command("hope", *TEXT, "--out", tmp_path / "run", "--processes", 4, "--steps", STEPS, "--quiet", **SMALL))
    same_weights(whole, tmp_path / "run", STEPS)


@pytest.mark.timeout(600)
def test_lanes_of_a_stream_are_the_same_in_several_processes(tmp_path: Path) -> None:
    # A stream goes on from step to step, and what rounding did with it: it is compared before that has grown.
    steps, one, two = 4, tmp_path / "one", tmp_path / "two"
    asked = ["hope", *TEXT, "--steps", steps, "--quiet"]
    assert main(words(*asked, "--out", one, **SMALL, **STREAM)) == 0
    ended(command(*asked, "--out", two, "--processes", 2, **SMALL, **STREAM))
    same_weights(one, two, steps)
    states = [load_file(run / f"checkpoints/step-{steps:06d}/state.safetensors") for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, x in states[0].items():
        torch.testing.assert_close(states[1][name], x, rtol=1e-9, atol=1e-12)


def begun(run: Path, processes: int, every: int = 2) -> subprocess.Popen[str]:
    """The same run by several processes, after the first of its checkpoints, which are made every so many steps."""
    often = ["--steps", STEPS, "--checkpoint-every", every, "--quiet"]
    process = command("hope", *TEXT, "--out", run, "--processes", processes, *often, **SMALL)
    while not (run / "checkpoints/latest").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


def gone(run: Path) -> bool:
    end = time.monotonic() + 60
    while ranks(run) and time.monotonic() < end:
        time.sleep(0.1)
    return not ranks(run)


def goes_on_to(whole: Path, run: Path, processes: int) -> None:
    """Resumed by so many processes, the run ends with the weights and the rows of one that nothing disturbed."""
    again = ["--resume", run, "--quiet"]
    if processes == 1:
        assert main(words(*again)) == 0
    else:
        ended(command(*again, "--processes", processes))
    same_weights(whole, run, STEPS)
    rows = [[json.loads(line) for line in (x / "metrics.jsonl").read_text().splitlines()] for x in (whole, run)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]


proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")


@proc
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("began", "killed", "ends"), [(2, 0, 1), (4, 1, 2)])
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(
    whole: Path, tmp_path: Path, began: int, killed: int, ends: int
) -> None:
    run = tmp_path / "run"
    process = begun(run, began, every=10)
    os.kill(ranks(run)[killed], signal.SIGKILL)
    then = time.monotonic()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1 and time.monotonic() - then < 60
    last = (run / "checkpoints/latest").read_text().strip()
    assert "error: another process of this run has ended" in err
    assert "Traceback" not in err and "terminate called" not in err
    assert f"the newest checkpoint is {run}/checkpoints/{last}" in err
    assert not ranks(run)
    goes_on_to(whole, run, ends)


@proc
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_all_processes_after_one_save(tmp_path: Path, number: signal.Signals, status: int) -> None:
    run = tmp_path / "run"
    process = begun(run, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert process.returncode == status and not out, err
    last = (run / "checkpoints/latest").read_text().strip()
    step = int(last.removeprefix("step-"))
    name = number.name
    assert err == f"error: stopped by {name} after step {step}; saved in {run}/checkpoints/{last}\n"
    assert not ranks(run)


@proc
@pytest.mark.timeout(600)
def test_a_launcher_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = begun(run, 2)
    process.kill()
    _, err = process.communicate(timeout=90)
    assert gone(run)
    last = (run / "checkpoints/latest").read_text().strip()
    assert "error: what started this process has ended: stopped after step" in err and last in err


@pytest.mark.timeout(300)
def test_a_run_that_another_process_trains_is_refused_once_and_left_alone(whole: Path) -> None:
    making = whole / "checkpoints/.step-000070.1"  # as a process that trains here would have
    making.mkdir()
    handle = RunDirectory(whole).claim()
    process = command("--resume", whole, "--processes", 2, "--quiet")
    _, err = process.communicate(timeout=120)
    os.close(handle)
    assert process.returncode == 2
    assert err == f"error: another process trains in '{whole}'\n"
    assert making.is_dir()
    making.rmdir()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    process = command("hope", *TEXT, "--out", tmp_path / "run", "--processes", 3, "--quiet", **SMALL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert (
        err.count("a batch of 4 sequences cannot be shared out evenly among 3 processes") == 1
        and "Traceback" not in err
    )
