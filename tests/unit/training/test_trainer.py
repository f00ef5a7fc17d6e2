"""The generated train.py run as a user runs it, and inside this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime import checkpoint, program
from runtime.data import Text
from runtime.directory import fresh
from runtime.errors import RunError
from runtime.evaluate import evaluate, evaluate_run
from runtime.metrics import read
from runtime.numerics import flushes
from runtime.trainer import Run

from . import tiny

ROOT = Path(__file__).resolve().parents[3]
Package = Callable[..., Path]


def run(folder: Path, out: Path, *arguments: object) -> int:
    return int(program.load(folder).main(["--out", str(out), *map(str, arguments)]))


def command(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """python train.py, with only torch and the runtime in reach."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(folder / "train.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder.parent,
    )  # fmt: skip


class TestARun:
    @pytest.fixture
    def out(self, package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
        assert run(package(), tmp_path / "out", "--data", text, "--json") == 0
        self.result = json.loads(capsys.readouterr().out)
        return tmp_path / "out"

    def test_leaves_the_run_directory_of_the_conventions(self, out: Path) -> None:
        names = {path.relative_to(out).as_posix() for path in out.rglob("*")}
        assert names == {
            "spec.yaml", "resolved.yaml", "lock.json", "metrics.jsonl", "code", "code/model.py", "code/train.py",
            "code/spec.lock.yaml", "loss.png", "checkpoints", "checkpoints/latest",
            *(f"checkpoints/step-{step:06d}{name}" for step in (10, 20, 30) for name in (
                "", "/model.safetensors", "/optimiser.safetensors", "/training.json", "/manifest.json")),
        }  # fmt: skip

    def test_counts_subnormal_numbers_as_zero_while_it_lasts(
        self, package: Package, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not torch.set_flush_denormal(False):
            pytest.skip("this processor cannot")
        seen: list[bool] = []
        report = Run.report
        monkeypatch.setattr(Run, "report", lambda *given: (seen.append(flushes()), report(*given)))
        assert not flushes()
        run(package(), tmp_path / "out", "--data", text, "--quiet")
        assert seen and all(seen)
        assert not flushes()

    def test_learns_and_says_so_as_json(self, out: Path) -> None:
        assert self.result["steps"] == 30 and self.result["tokens"] == 30 * 2 * 16
        assert self.result["fires"] == {"titans": 30 * 16, "train": 30, "cms.slow": 15}
        rows = list(read(out / "metrics.jsonl"))
        losses = [row["train/loss"] for row in rows if "train/loss" in row]
        assert losses[-1] < losses[0] and self.result["val_loss"] < losses[0]

    def test_metrics_have_the_names_of_the_conventions(self, out: Path) -> None:
        rows = list(read(out / "metrics.jsonl"))
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
        assert all(row["tokens"] == row["step"] * 2 * 16 for row in rows)
        assert {name for row in rows for name in row} == {
            "step", "tokens", "seconds", "perf/tokens_per_s",
            "train/loss", "val/loss", "val/bits_per_byte", "val/tokens",
            "level/titans/fires", "level/train/fires", "level/cms.slow/fires", "grad/train/norm", "grad/cms.slow/norm",
            "level/titans/update", "level/train/update", "level/cms.slow/update", "level/train/rate",
            "level/cms.slow/rate",
            "memory/titans.key/norm",
        }  # fmt: skip

    def test_lock_says_what_could_change_the_result(self, out: Path, text: Path) -> None:
        lock = json.loads((out / "lock.json").read_text())
        assert lock["graph"] == "3f2a91c0" and lock["seed"] == 0 and lock["data"]["path"] == str(text)
        assert len(lock["data"]["sha256"]) == 64 and set(lock["code"]) == {"model.py", "train.py", "spec.lock.yaml"}
        assert lock["environment"]["libraries"]["torch"] == torch.__version__

    def test_checkpoint_holds_what_going_on_needs(self, out: Path) -> None:
        found = checkpoint.read(checkpoint.newest(out / "checkpoints"))
        assert found.scalars["step"] == 30 and found.scalars["updates"] == {"train": 30, "cms.slow": 15}
        assert {"train/m/embedding", "cms.slow/v2/blocks.1.cms.slow.W_in"} <= set(found.optimiser)
        assert set(found.weights) == {name for name, _ in tiny.Tiny().named_parameters()}

    def test_is_evaluated_from_its_directory(self, out: Path) -> None:
        whole = evaluate_run(out)
        assert whole.bits_per_byte == pytest.approx(self.result["val_bits_per_byte"], abs=0.05)
        assert whole.fires["titans"] > 0 and evaluate_run(out, learn=False).fires["titans"] == 0
        assert evaluate_run(out / "checkpoints" / "step-000010").loss > whole.loss

    def test_does_not_write_into_a_directory_that_holds_a_run(
        self, out: Path, text: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(out / "code", out, "--data", text) == 2
        assert "already holds a run" in capsys.readouterr().err


def test_same_seed_same_weights_other_seed_others(package: Package, text: Path, tmp_path: Path) -> None:
    folder = package()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(folder, tmp_path / name, "--data", text, "--steps", 5, "--seed", seed, "--quiet") == 0
    a, b, c = ((tmp_path / name / "checkpoints/step-000005/model.safetensors").read_bytes() for name in "abc")
    assert a == b and a != c


def test_runs_alone_with_plain_lines_on_stderr(package: Package, text: Path, tmp_path: Path) -> None:
    process = command(package(), "--steps", 3, "--data", text)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "validation " in out and "levels fired  titans 48  train 3  cms.slow 1" in out
    assert "step 3/3  loss" in err and "\x1b" not in err
    assert (tmp_path / "runs/tiny/loss.png").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_then_stops(package: Package, text: Path, tmp_path: Path, number: int, status: int) -> None:
    process = command(package(), "--steps", 1_000_000, "--data", text, "--out", tmp_path / "out")
    metrics = tmp_path / "out/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and out == ""
    assert f"stopped by {signal.Signals(number).name} after step" in err and "Traceback" not in err
    step = checkpoint.read(checkpoint.newest(tmp_path / "out/checkpoints")).scalars["step"]
    assert f"after step {step};" in err
    assert (tmp_path / "out/loss.png").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "nothing.txt"], 4, "no such file or folder: 'nothing.txt'"),
        (["--steps", "0"], 2, "at least 1 is needed"),
        (["--stepz", "3"], 2, "unrecognized arguments: --stepz"),
    ],
    ids=["no data", "no step", "unknown option"],
)
def test_wrong_use_is_a_message(package: Package, arguments: list[str], status: int, message: str) -> None:
    folder = package()
    process = command(folder, *arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and message in err and "Traceback" not in err
    assert not (folder.parent / "runs").exists()  # where the command ran


SOURCE = Path(tiny.__file__).read_text(encoding="utf-8")


def test_a_loss_that_is_not_finite_stops_before_the_weights_and_names_the_memory(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The memory of layer 1 meets a bad byte, 'f', for the first time at step 3."""
    broken = SOURCE.replace(
        "        if learn:\n",
        "        self.calls = getattr(self, 'calls', 0) + (tokens.shape[1] == 16 and torch.is_grad_enabled())\n"
        "        if self.calls >= 3:\n"
        "            bad = (tokens == ord('f')).any(1)[:, None]\n"
        "            M = after['blocks.1.titans.key']['M'].masked_fill(bad, float('inf'))\n"
        "            after['blocks.1.titans.key']['M'] = M\n"
        "            x_BTD = x_BTD + (M * 0)[:, None]\n"
        "        if learn:\n",
    )
    folder = package(model=broken)
    assert run(folder, tmp_path / "out", "--data", text) == 1
    err = capsys.readouterr().err
    assert "error: step 3: level train: the gradient of" in err
    assert "first not finite: 'titans.key' of layer 1, at token" in err
    rows = list(read(tmp_path / "out/metrics.jsonl"))
    assert rows[0]["step"] == 1
    kept = checkpoint.read(tmp_path / "out/diverged")
    assert all(weight.isfinite().all() for weight in kept.weights.values())
    x_BT = kept.state["batch"]["tokens"]
    first = min(row.tolist().index(ord("f")) for row in x_BT if ord("f") in row.tolist())
    assert f"at token {first} " in err


def test_a_weight_that_is_not_finite_is_named(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = SOURCE.replace("torch.zeros(D)", "torch.full((D,), float('nan'))")
    assert run(package(model=broken), tmp_path / "out", "--data", text) == 1
    assert "first not finite: weight 'blocks.0.cms.slow.b_in'" in capsys.readouterr().err


def test_evaluation_reads_the_same_sequences_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model, text = tiny.Tiny(), Text(torch.arange(200, dtype=torch.uint8))
    one = evaluate(model, text, batch=2, context=16, tokens=100)
    torch.manual_seed(1)
    other = evaluate(model, text, batch=4, context=16, tokens=100)
    assert one.tokens == 96 and one.loss == pytest.approx(other.loss, rel=1e-6)
    assert model.fires == {"titans": 0} and model.training
    assert one.as_dict()["bits_per_byte"] == one.loss / 0.6931471805599453


def test_a_directory_without_a_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory") as caught:
        evaluate_run(tmp_path)
    assert caught.value.status == 2


def test_the_next_free_run_directory_is_found(tmp_path: Path) -> None:
    assert fresh("hope", tmp_path) == tmp_path / "hope"
    (tmp_path / "hope/code").mkdir(parents=True)  # compiled, not run
    assert fresh("hope", tmp_path) == tmp_path / "hope"
    (tmp_path / "hope/lock.json").touch()
    assert fresh("hope", tmp_path) == tmp_path / "hope-2"


def test_two_packages_load_side_by_side(package: Package, tmp_path: Path) -> None:
    one = program.load(package())
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.py", "train.py"):
        (other / name).write_text((tmp_path / "package" / name).read_text().replace("Tiny", "Other"))
    two = program.load(other)
    assert type(one.build(0)).__name__ == "Tiny" and type(two.build(0)).__name__ == "Other"
    assert "model" not in sys.modules and str(other) not in sys.path
