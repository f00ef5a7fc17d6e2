"""Interrupted and resumed equals undisturbed: weights, rule states, streams and metrics, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Period, Unit
from runtime import checkpoint, program
from runtime.directory import RunDirectory
from runtime.metrics import read

from . import tiny
from .graphs import memory, two_levels
from .test_checkpoint import FILES

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(tiny.__file__).read_text(encoding="utf-8")
STREAM = SOURCE.replace("streams: tuple[str, ...] = ()", 'streams: tuple[str, ...] = ("titans.key",)')
Package = Callable[..., Path]


def run(folder: Path, *arguments: object) -> int:
    return int(program.load(folder).main([str(a) for a in (*arguments, "--quiet")]))


def rows(out: Path) -> list[dict[str, Any]]:
    """Metrics, but for what a clock says."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "perf/tokens_per_s")}
        for row in read(out / "metrics.jsonl")
    ]


def kept(out: Path) -> dict[str, bytes]:
    """Every tensor of the last checkpoint, as written."""
    place = checkpoint.newest(out / "checkpoints")
    return {path.name: path.read_bytes() for path in place.glob("*.safetensors")}


def same(a: Path, b: Path) -> None:
    assert kept(a) == kept(b)
    assert rows(a) == rows(b)
    scalars = [json.loads((checkpoint.newest(x / "checkpoints") / "training.json").read_text()) for x in (a, b)]
    for s in scalars:
        del s["seconds"], s["training"]
    assert scalars[0] == scalars[1]


def stopping(source: str, step: int) -> str:
    """The model, but a signal comes once, while it learns for the so-manieth time."""
    return source.replace(
        "        if learn:\n",
        "        if torch.is_grad_enabled():\n"
        "            import os, pathlib, signal\n"
        "            self.calls = getattr(self, 'calls', 0) + 1\n"
        "            mark = pathlib.Path(__file__).with_name('stopped')\n"
        f"            if self.calls == {step} and not mark.exists():\n"
        "                mark.touch()\n"
        "                os.kill(os.getpid(), signal.SIGTERM)\n"
        "        if learn:\n",
        1,
    )


def streaming() -> Graph:
    return two_levels().with_nodes([memory("key", "titans", Period(1, Unit.TOKEN), carry=Carry.STREAM)])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("step", [1, 4, 5, 10, 29])
def test_stopped_by_a_signal_and_resumed(
    package: Package, text: Path, tmp_path: Path, step: int, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Level cms.slow is updated every second step: after an odd one its period is half full."""
    folder = package(streaming() if stream else None, model=stopping(STREAM if stream else SOURCE, step))
    assert run(folder, "--out", tmp_path / "cut", "--data", text) == 143
    assert f"stopped by SIGTERM after step {step}; saved in" in capsys.readouterr().err
    assert run(folder, "--resume", tmp_path / "cut") == 0
    (folder / "model.py").write_text(STREAM if stream else SOURCE, encoding="utf-8")
    assert run(folder, "--out", tmp_path / "whole", "--data", text) == 0
    whole, cut = kept(tmp_path / "whole"), kept(tmp_path / "cut")
    assert ("state.safetensors" in whole) == stream
    assert whole == cut and rows(tmp_path / "whole") == rows(tmp_path / "cut")


KILLER = """
import json, os, random, shutil, signal, sys
from pathlib import Path
from runtime import checkpoint, program, trainer, whole

folder, cut, text = sys.argv[1:]
left, doomed = 0, ""

def dying(owner, name, when, torn=lambda *arguments, **options: None):
    function = getattr(owner, name)
    def counted(*arguments, **options):
        global left
        left -= when == doomed
        if left == 0 and when == doomed:
            torn(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(owner, name, counted)

write = Path.write_text
dying(trainer.Run, "report", "step")
dying(whole, "save_file", "write", lambda tensors, path: Path(path).write_bytes(b"torn"))
dying(Path, "write_text", "write", lambda path, text, **more: write(path, text[: len(text) // 2], **more))
for owner, name in ((os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree")):
    dying(owner, name, "write")

draw, statuses = random.Random(0), []
while not statuses or statuses[-1] == -9:
    killed = len(statuses)
    doomed, left = ("write", draw.randint(1, 30)) if killed % 2 else ("step", draw.randint(1, 4))
    doomed = doomed if killed < 20 else ""  # then it is left alone
    place = ["--resume", cut] if Path(cut, "lock.json").exists() else ["--out", cut, "--data", text]
    if (process := os.fork()) == 0:
        os._exit(program.load(folder).main([*place, "--keep", "2", "--quiet"]))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print(json.dumps(statuses))
"""


@pytest.mark.timeout(600)
def test_killed_twenty_times_and_resumed_each_time(package: Package, text: Path, tmp_path: Path) -> None:
    """kill -9 at the end of a step and, as often, at any write, some of them half done: of files, to the disk, of
    names, when an old checkpoint is removed."""
    folder = package(streaming(), model=STREAM)
    source = (folder / "train.py").read_text(encoding="utf-8")
    (folder / "train.py").write_text(source.replace("checkpoint_every=10", "checkpoint_every=3"), encoding="utf-8")
    assert run(folder, "--out", tmp_path / "whole", "--data", text) == 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, str(folder), str(tmp_path / "cut"), str(text)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == json.dumps([-9] * 20 + [0]), done.stderr
    same(tmp_path / "whole", tmp_path / "cut")
    assert len(checkpoint.steps(tmp_path / "cut/checkpoints")) == 2
    assert not list((tmp_path / "cut/checkpoints").glob(".*"))


def test_a_run_is_not_resumed_as_another(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 12)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = tmp_path / "other.txt"
    other.write_bytes(text.read_bytes()[::-1])
    capsys.readouterr()
    assert run(folder, "--resume", out, "--data", other, "--steps", 40) == 2
    said = capsys.readouterr().err
    assert "steps: 30 -> 40" in said and "data.sha256: " in said and "--allow goes on" in said
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run(folder, "--resume", out, "--data", other, "--steps", 40, "--allow") == 0
    lock = json.loads((out / "lock.json").read_text(encoding="utf-8"))
    assert lock["steps"] == 40 and lock["resumed"][0]["step"] == 12 and lock["resumed"][0]["before"]["steps"] == 30
    assert [row["step"] for row in rows(out)][-1] == 40


def test_weights_that_do_not_fit_are_named(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 12)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    (folder / "model.py").write_text(SOURCE.replace("D = 8", "D = 10"), encoding="utf-8")
    assert run(folder, "--resume", out, "--allow") == 2
    assert "weight embedding: (256, 8) -> (256, 10)" in capsys.readouterr().err


def test_time_limit(package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The limit is looked at after each step: a slow step is finished, saved, and the status is 75."""
    slow = SOURCE.replace("        if learn:\n", "        import time; time.sleep(0.2)\n        if learn:\n", 1)
    folder, out = package(model=slow), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text, "--time-limit", "1s") == 75
    assert "the time limit is over after step" in capsys.readouterr().err
    assert checkpoint.read(checkpoint.newest(out / "checkpoints")).scalars["step"] >= 1
    with pytest.raises(SystemExit):
        run(folder, "--out", tmp_path / "no", "--time-limit", "soon")


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    package: Package, text: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(streaming(), model=stopping(STREAM, 25)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    path = out / "checkpoints/step-000025" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert program.load(folder).main(["--resume", str(out)]) == 0
    err = capsys.readouterr().err
    assert "step-000025' is " in err and "passed over" in err and "going on after step 20" in err
    assert f"altered: {file}" in err or file == "manifest.json"  # which names the file that it lies about
    (folder / "model.py").write_text(STREAM, encoding="utf-8")
    assert run(folder, "--out", tmp_path / "whole", "--data", text) == 0
    assert kept(tmp_path / "whole") == kept(out) and rows(tmp_path / "whole") == rows(out)


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 5)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    (out / "checkpoints/step-000005/manifest.json").unlink()
    assert run(folder, "--resume", out) == 4
    err = capsys.readouterr().err
    assert "step-000005' is torn: manifest.json is missing" in err and "no whole checkpoint in" in err
    assert run(folder, "--resume", tmp_path / "nothing") == 2
    assert "is not a run directory: it has no lock.json" in capsys.readouterr().err


def test_lost_rows_of_metrics_are_said(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 12)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    whole = (out / "metrics.jsonl").read_text(encoding="utf-8")
    (out / "metrics.jsonl").write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert run(folder, "--resume", out) == 2
    assert "has lost rows: " in capsys.readouterr().err
    assert run(folder, "--resume", out, "--allow") == 0
    assert [row["step"] for row in rows(out)][-1] == 30


def test_one_process_at_a_time_trains_in_a_folder(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 5)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    handle = RunDirectory(out).claim()  # as another process would: flock tells open files apart
    assert run(folder, "--resume", out) == 2
    assert f"another process trains in '{out}'" in capsys.readouterr().err
    os.close(handle)
    assert run(folder, "--resume", out) == 0
