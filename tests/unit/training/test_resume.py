"""Interrupted and resumed equals undisturbed: weights, rule states, streams and metrics, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Period, Unit
from runtime import checkpoint, program
from runtime.directory import RunDirectory
from runtime.metrics import read
from runtime.trainer import Run
from runtime.whole import damage

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


def test_what_is_kept_after_a_damaged_checkpoint_is_what_the_run_wrote(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 25)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    with (out / "checkpoints/step-000025/model.safetensors").open("r+b") as file:
        file.write(b"?")
    (folder / "model.py").write_text(stopping(SOURCE, 2), encoding="utf-8")  # after step 22
    (folder / "stopped").unlink()
    assert run(folder, "--resume", out, "--keep", 1, "--allow") == 143
    err = capsys.readouterr().err
    assert "step-000025' is altered: model.safetensors" in err and "is set aside as step-000025.damaged" in err
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"latest", "step-000022", "step-000025.damaged"}
    assert (out / "checkpoints/latest").read_text() == "step-000022\n"
    assert not damage(checkpoint.newest(out / "checkpoints"))


@pytest.mark.parametrize("gone", ["all", "all but latest"])
def test_a_run_that_has_lost_its_checkpoints_is_not_begun_anew(
    package: Package, text: Path, tmp_path: Path, gone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(model=stopping(SOURCE, 12)), tmp_path / "cut"
    assert run(folder, "--out", out, "--data", text) == 143
    for place in checkpoint.steps(out / "checkpoints"):
        shutil.rmtree(place)
    if gone == "all":
        shutil.rmtree(out / "checkpoints")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run(folder, "--resume", out, "--allow") == 4
    err = capsys.readouterr().err
    assert f"checkpoints were written to '{out}/checkpoints', the first of them after step 10, and none is there" in err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_killed_before_its_first_checkpoint_says_that_it_begins_again(
    package: Package, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Killed(BaseException):
        pass

    def killed(*given: object) -> None:
        raise Killed

    folder, out = package(), tmp_path / "cut"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "_save", killed)
        run(folder, "--out", out, "--data", text)
    assert list(read(out / "metrics.jsonl"))
    assert program.load(folder).main(["--resume", str(out)]) == 0
    assert "no checkpoint was written yet: going on from the beginning" in capsys.readouterr().err


def test_checkpoints_come_as_often_as_asked(package: Package, text: Path, tmp_path: Path) -> None:
    def kept(out: Path) -> list[int]:
        return [checkpoint.step_of(place) for place in checkpoint.steps(out / "checkpoints")]

    wait = "        __import__('time').sleep(0.1 * torch.is_grad_enabled())\n"
    slow = SOURCE.replace("        if learn:\n", f"{wait}        if learn:\n", 1)
    folder = package(model=SOURCE)
    assert run(folder, "--out", tmp_path / "a", "--data", text, "--checkpoint-every", 7) == 0
    assert kept(tmp_path / "a") == [7, 14, 21, 28, 30]
    assert run(folder, "--out", tmp_path / "b", "--data", text, "--checkpoint-every", 0) == 0
    assert kept(tmp_path / "b") == [30]
    (folder / "model.py").write_text(slow, encoding="utf-8")
    assert run(folder, "--out", tmp_path / "c", "--data", text, "--checkpoint-every", "1s") == 0
    times = [json.loads((place / "training.json").read_text())["seconds"]
             for place in checkpoint.steps(tmp_path / "c/checkpoints")]  # fmt: skip
    assert len(times) > 2 and all(b - a > 1 for a, b in pairwise(times[:-1]))
    weights = [(tmp_path / x / "checkpoints/step-000030/model.safetensors").read_bytes() for x in "abc"]
    assert weights[0] == weights[1] == weights[2]
    with pytest.raises(SystemExit):
        run(folder, "--out", tmp_path / "d", "--data", text, "--checkpoint-every", "often")


JUDGED = """        if not self.training:
            import os, pathlib, signal
            mark = pathlib.Path(__file__).with_name('judged')
            if len(mark.read_text() if mark.exists() else '') == {times}:
                os.kill(os.getpid(), signal.SIGTERM)
            with mark.open('a') as file:
                file.write('.')
        if learn:
"""


def test_a_signal_in_the_last_validation_is_heard_and_the_validation_comes_at_resume(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = package(), tmp_path / "whole"
    assert run(folder, "--out", out, "--data", text) == 0
    judged = SOURCE.replace("        if learn:\n", JUDGED, 1)
    (folder / "model.py").write_text(judged.replace("{times}", "-1"), encoding="utf-8")
    assert run(folder, "--out", tmp_path / "counted", "--data", text) == 0
    times = len((folder / "judged").read_text())
    (folder / "judged").unlink()
    (folder / "model.py").write_text(judged.replace("{times}", f"{times - 3}"), encoding="utf-8")
    capsys.readouterr()
    assert run(folder, "--out", tmp_path / "cut", "--data", text) == 143
    assert len((folder / "judged").read_text()) == times - 2
    assert "stopped by SIGTERM before the last validation; saved in" in capsys.readouterr().err
    assert run(folder, "--resume", tmp_path / "cut") == 0
    same(out, tmp_path / "cut")


def test_the_last_validation_reads_more_tokens_or_comes_once(package: Package, text: Path, tmp_path: Path) -> None:
    folder, out = package(), tmp_path / "out"
    source = (folder / "train.py").read_text(encoding="utf-8")
    (folder / "train.py").write_text(source.replace("seed=0,", "seed=0, validation_tokens=900,"), encoding="utf-8")
    assert run(folder, "--out", out, "--data", text) == 0
    judged = [row["val/tokens"] for row in read(out / "metrics.jsonl") if row["step"] == 30 and "val/loss" in row]
    assert len(judged) == len(set(judged)), judged


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


def test_a_step_is_handed_a_state_as_it_lies_after_a_resume(package: Package, text: Path, tmp_path: Path) -> None:
    source = STREAM.replace(
        "        if learn:\n",
        "        M = after['blocks.1.titans.key']['M']\n"
        "        after['blocks.1.titans.key']['M'] = M.repeat(1, 2)[:, ::2]\n"
        "        came = None if state is None or not torch.is_grad_enabled() else state['blocks.1.titans.key']['M']\n"
        "        assert came is None or came.is_contiguous()\n"
        "        if learn:\n",
        1,
    )
    graph = two_levels().with_nodes([memory("key", "titans", Period(1, Unit.TOKEN), carry=Carry.STREAM)])
    assert run(package(graph, model=source), "--out", tmp_path / "out", "--data", text, "--steps", 3) == 0
