"""What a run does about a step that is not finite, and what replaying it says."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nlc.cli import main
from nlc.cli.reporting import facts
from nlc.graph.nodes import Carry, Period, Unit
from nlc.page import page
from runtime import checkpoint, program
from runtime.errors import Diverged
from runtime.finite import PATIENCE, Guard
from runtime.level import Level, Weights
from runtime.metrics import read
from runtime.processes import Processes

from . import tiny
from .graphs import memory, two_levels

Package = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(tiny.__file__).read_text(encoding="utf-8")


def broken(condition: str, value: str = "nats * float('nan')") -> str:
    """The tiny model, its losses `value` where `condition` holds; `self.calls` counts training steps from 1."""
    return SOURCE.replace(
        '        return F.cross_entropy(logits_BTV.mT, targets, reduction="none"), after',
        "        nats = F.cross_entropy(logits_BTV.mT, targets, reduction='none')\n"
        "        self.calls = getattr(self, 'calls', 0) + torch.is_grad_enabled()\n"
        f"        return ({value} if torch.is_grad_enabled() and {condition} else nats), after",
    )


def run(folder: Path, out: Path, *arguments: object) -> int:
    return int(program.load(folder).main(["--out", str(out), "--quiet", *map(str, arguments)]))


# ---- the guard -------------------------------------------------------------------------------------------------------


def two_weights() -> tuple[nn.Module, list[Level]]:
    model = nn.Module()
    model.fast, model.slow = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    weights = Weights(model)
    return model, [Level("fast", weights.take("fast")), Level("slow", weights.take("slow"))]


def test_skip_gives_no_level_anything_of_the_step_and_keeps_what_a_period_has_gathered() -> None:
    model, levels = two_weights()
    guard = Guard("skip", Processes())
    guard.backward((model.fast * 2 + model.slow * 3).sum(), levels)
    model.fast.grad = None  # it fires at every step
    guard.backward((model.fast * float("inf") + model.slow * 3).sum(), levels)
    assert guard.bad and guard.count == 1
    assert model.fast.grad is None and model.slow.grad.tolist() == [3, 3, 3]
    assert levels[0].gathered() == [] and levels[0].count == 0
    guard.backward((model.fast + model.slow * 3).sum(), levels)
    assert not guard.bad and model.slow.grad.tolist() == [6, 6, 6]


def test_clip_takes_what_is_not_finite_as_zero() -> None:
    model, levels = two_weights()
    guard = Guard("clip", Processes())
    guard.backward((model.fast * torch.tensor([2.0, float("nan"), float("-inf")]) + model.slow).sum(), levels)
    assert guard.bad and model.fast.grad.tolist() == [2, 0, 0] and model.slow.grad.tolist() == [1, 1, 1]


def test_stop_leaves_the_gradients_that_were_there() -> None:
    model, levels = two_weights()
    guard = Guard("stop", Processes())
    guard.backward((model.fast + model.slow).sum(), levels)
    with pytest.raises(Diverged, match=r"level slow: the gradient of 'slow' is not finite"):
        guard.backward((model.fast + model.slow * float("nan")).sum(), levels)
    assert model.slow.grad.tolist() == [1, 1, 1] and model.fast.grad.tolist() == [1, 1, 1]


def test_large_numbers_whose_squares_overflow_are_finite() -> None:
    model, levels = two_weights()
    guard = Guard("stop", Processes())
    guard.backward((model.fast * 1e30 + model.slow).sum(), levels)
    assert not guard.bad


def test_a_state_that_is_not_finite_is_not_taken_over() -> None:
    model, levels = two_weights()
    guard = Guard("skip", Processes())
    guard.backward(model.fast.sum(), levels, {"blocks.0.m": {"M": torch.tensor([float("nan")])}})
    assert guard.bad and guard.lost
    guard.backward(model.fast.sum() * float("nan"), levels, {"blocks.0.m": {"M": torch.ones(1)}})
    assert guard.bad and not guard.lost


def test_ten_in_a_row_end_the_run_whatever_it_was_told() -> None:
    model, levels = two_weights()
    guard = Guard("skip", Processes())
    for _ in range(PATIENCE - 1):
        guard.backward((model.fast * float("nan")).sum(), levels)
    with pytest.raises(Diverged, match="10 steps in a row"):
        guard.backward((model.fast * float("nan")).sum(), levels)


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["skip", "clip"])
def test_a_run_goes_on_and_counts_it(package: Package, text: Path, tmp_path: Path, policy: str) -> None:
    folder = package(model=broken("self.calls == 3"))
    assert run(folder, tmp_path / "out", "--data", text, "--on-nan", policy) == 0
    rows = [row for row in read(tmp_path / "out/metrics.jsonl") if "train/loss" in row]
    assert f"train/{policy}ped" not in rows[0] and rows[-1][f"train/{policy}ped"] == 1
    kept = checkpoint.read(checkpoint.newest(tmp_path / "out/checkpoints"))
    assert kept.scalars["not_finite"] == 1 and all(x.isfinite().all() for x in kept.weights.values())
    assert kept.scalars["updates"] == {"train": 29 if policy == "skip" else 30, "cms.slow": 15}


def test_a_step_that_does_not_log_stops_before_its_update(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is kept is what the step before left, to the bit; 11 is neither logged nor saved."""
    folder = package(model=broken("self.calls >= 11"))
    assert run(folder, tmp_path / "out", "--data", text) == 1
    assert "error: step 11: level train: the gradient of 'embedding' is not finite" in capsys.readouterr().err
    kept, last = (checkpoint.read(tmp_path / "out" / name) for name in ("diverged", "checkpoints/step-000010"))
    for one, other in ((kept.weights, last.weights), (kept.optimiser, last.optimiser)):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_page_says_at_which_step_and_where_a_run_diverged(package: Package, text: Path, tmp_path: Path) -> None:
    assert run(package(model=PLANTED), tmp_path / "out", "--data", text) == 1
    found = facts(tmp_path / "out", samples=False)
    assert found.ended == "diverged at step 1" and "first not finite: 'titans.key' of layer 1, at" in found.diverged
    assert found.diverged.endswith("level titans") and found.diverged in html.unescape(page([found]))


def test_a_resumed_run_that_gets_past_the_step_sets_it_aside(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "out", package(model=broken("self.calls >= 11"))
    assert run(folder, out, "--data", text) == 1
    assert facts(out, samples=False).ended == "diverged at step 11"
    program_ = out / "code/model.py"
    program_.write_text(program_.read_text().replace("self.calls >= 11", "False"))
    assert int(program.load(out / "code").main(["--resume", str(out), "--allow", "--quiet"])) == 0
    assert not (out / "diverged").exists() and (out / "diverged-step-000011/manifest.json").is_file()
    after = facts(out, samples=False)
    assert after.ended.startswith("finished") and not after.diverged
    assert any(line.startswith("step 11: diverged (") for line in after.warnings)
    capsys.readouterr()
    assert main(["replay", str(out)]) == 0 and "checkpoints/step-" in capsys.readouterr().out


def test_no_checkpoint_is_made_of_weights_that_are_not_finite(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = package()
    source = (folder / "train.py").read_text()
    spoilt = source.replace("    return delta, {", "    delta = delta + 1e39 * (count == 20)\n    return delta, {")
    (folder / "train.py").write_text(spoilt)
    assert run(folder, tmp_path / "out", "--data", text) == 1
    assert "is not finite after step 20, and no checkpoint of it is made" in capsys.readouterr().err
    assert [p.name for p in checkpoint.steps(tmp_path / "out/checkpoints")] == ["step-000010"]


PLANTED = SOURCE.replace(
    "        if learn:\n",
    "        bad = (tokens == ord('f')).cumsum(1).bool()[..., None]\n"
    "        M = after['blocks.1.titans.key']['M']\n"
    "        after['blocks.1.titans.key']['M'] = M.masked_fill(bad.any(1), float('inf'))\n"
    "        x_BTD = x_BTD.masked_fill(bad.roll(1, 1) & bad, float('nan'))  # what is read after it was written\n"
    "        if learn:\n",
)


class TestAReplay:
    @pytest.fixture
    def stopped(self, package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
        assert run(package(model=PLANTED), tmp_path / "out", "--data", text) == 1
        self.said = capsys.readouterr().err
        return tmp_path / "out"

    def test_says_what_the_run_said(self, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["replay", str(stopped)]) == 0
        out = capsys.readouterr().out
        (place,) = [line for line in self.said.splitlines() if line.startswith("first not finite")]
        assert place in out and "'titans.key' of layer 1, at token" in place
        assert "gradient norms  train nan" in out and f"step 1 in float32, from {stopped / 'diverged'}" in out

    def test_in_float64_tells_whether_precision_is_the_cause(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        assert main(["replay", str(stopped / "diverged"), "--dtype", "float64", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["dtype"] == "float64" and not found["finite"] and found["loss"] is None
        assert found["found"]["memory"] == "titans.key" and found["found"]["layer"] == 1

    @pytest.mark.parametrize("stream", [False, True], ids=["crops", "lanes"])
    def test_of_a_checkpoint_is_the_step_after_it(
        self, package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stream: bool
    ) -> None:
        """Steps 10 and 11 are logged, so the row of step 11 is its own loss."""
        source = SOURCE.replace("streams: tuple[str, ...] = ()", 'streams: tuple[str, ...] = ("titans.key",)')
        graph = two_levels().with_nodes([memory("key", "titans", Period(1, Unit.TOKEN), carry=Carry.STREAM)])
        folder = package(graph, model=source) if stream else package()
        assert run(folder, tmp_path / "out", "--data", text, "--steps", 11) == 0
        capsys.readouterr()
        assert main(["replay", str(tmp_path / "out"), "--step", "10", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        losses = {row["step"]: row["train/loss"] for row in read(tmp_path / "out/metrics.jsonl") if "train/loss" in row}
        assert found["finite"] and found["step"] == 11 and found["loss"] == pytest.approx(losses[11], rel=1e-5)
        assert set(found["gradient_norms"]) == {"train", "cms.slow"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "no such run directory: 'nowhere'"),
            (["out", "--step", "7"], "no checkpoint after step 7 in 'out'; there are: none"),
            (["out/diverged", "--step", "7"], "--step is for a run, and 'out/diverged' is one checkpoint"),
        ],
        ids=["nowhere", "no such step", "one checkpoint"],
    )
    def test_of_nothing_is_a_message(
        self, stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        arguments: list[str], message: str,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(stopped.parent)
        capsys.readouterr()
        assert main(["replay", *arguments]) == 2
        assert capsys.readouterr().err == f"nlc: {message}\n"


def test_the_process_that_saw_it_says_where_and_all_end(package: Package, text: Path, tmp_path: Path) -> None:
    """Two processes, one sequence each; only the second one's is broken, and only at steps that do not log."""
    hit = (
        "        import os\n"
        "        self.steps = getattr(self, 'steps', 0) + torch.is_grad_enabled()\n"
        "        hit = os.environ['RANK'] == '1' and self.steps != 1\n"
    )
    source = PLANTED.replace("        bad = ", hit + "        bad = hit & ", 1)
    folder = package(model=source)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(folder / "train.py")]
    done = subprocess.run(
        [*command, "--data", str(text), "--out", str(tmp_path / "out"), "--quiet"], capture_output=True, text=True,
        timeout=240, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("error: step 2: level train") == 1
    assert "first not finite: 'titans.key' of layer 1, at token" in done.stderr
    assert checkpoint.read(tmp_path / "out/diverged").state["batch"]["tokens"].shape == (1, 16)
