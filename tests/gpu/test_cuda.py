"""On a GPU: the same numbers as on the processor, bfloat16, checkpoints that go from one to the other, NCCL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nlc
from nlc.cli import main
from nlc.verify.small import small_settings
from runtime import checkpoint
from runtime.cuda_graphs import WARM, CudaGraphs
from runtime.device import moved
from runtime.finite import Guard
from runtime.level import Level, Weights
from runtime.metrics import read
from runtime.precision import autocast
from runtime.processes import Processes
from tests.e2e.command import ROOT

SPECS = ("hope", "hope_attention", "titans_lmm", "transformer")
DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module", params=SPECS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Compiled for the GPU, on the processor, in float64."""
    small = nlc.load(request.param, set=small_settings(nlc.load(request.param)))
    found = nlc.compile(small, target=DEVICE).model(seed=0)
    with torch.no_grad():
        for p in found.parameters():  # off the zeros: every path carries a gradient
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return found.double()


def batch(device: str) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.randint(0, 48, (4, 97), generator=torch.Generator().manual_seed(1))
    starts = torch.zeros(4, 96, dtype=torch.bool)
    starts[:, 0] = starts[0, 40] = starts[2, 7] = True
    return tokens[:, :-1].to(device), tokens[:, 1:].to(device), starts


def gradient(model: nn.Module, device: str, dtype: torch.dtype, documents: bool, precision: str = "float32") -> Tensor:
    """Loss and gradients as one vector, float64, on the processor."""
    there = type(model)().to(device, dtype)
    there.load_state_dict(model.state_dict())
    x, y, starts = batch(device)
    with autocast(precision, device):
        loss, state = there.loss(x, y, starts=starts if documents else None)
    loss.backward()
    numbers = [t for place, r in state.items() for t in r.values() if place != "clock" and t.is_floating_point()]
    assert {(t.device.type, t.dtype) for t in numbers} <= {(device, dtype)}
    return torch.cat([loss.detach().flatten(), *(p.grad.flatten() for p in there.parameters())]).double().cpu()


def gone(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / x.norm())


@pytest.mark.parametrize("documents", [False, True], ids=["whole", "documents"])
def test_gradients_are_those_of_the_processor(model: nn.Module, documents: bool) -> None:
    exact = gradient(model, "cpu", torch.float64, documents)
    assert gone(exact, gradient(model, DEVICE, torch.float64, documents)) < 1e-9
    assert gone(exact, gradient(model, DEVICE, torch.float32, documents)) < 1e-4


def test_bfloat16_is_float32_but_for_rounding(model: nn.Module) -> None:
    exact = gradient(model, DEVICE, torch.float32, False)
    assert gone(exact, gradient(model, DEVICE, torch.float32, False, "bfloat16")) < 0.05  # see test_precision


def test_any_cut_gives_what_the_whole_gives(model: nn.Module) -> None:
    there = type(model)().to(DEVICE, torch.float64)
    there.load_state_dict(model.state_dict())
    x, _, _ = batch(DEVICE)
    with torch.no_grad():
        whole, _ = there(x)
        first, state = there(x[:, :37])
        state = moved(moved(state, "cpu"), DEVICE)  # saved and loaded
        rest, _ = there(x[:, 37:], state)
    assert gone(whole.cpu(), torch.cat((first, rest), 1).cpu()) < 1e-12


def test_a_step_that_is_not_finite_is_seen(model: nn.Module) -> None:
    there = type(model)().to(DEVICE)
    guard, levels = Guard("skip", Processes()), [Level("train", Weights(there).take("*"))]
    x, y, _ = batch(DEVICE)
    for factor, bad in ((1.0, False), (float("nan"), True)):
        loss, _ = there.loss(x, y, final=True)
        guard.backward(loss * factor, levels)
        assert guard.bad is bad
    assert guard.count == 1


# ---- runs ------------------------------------------------------------------------------------------------------------


def given(spec: str, out: Path, *more: str, **settings: object) -> list[str]:
    """A run of 12 steps, with checkpoints after 10 and 12."""
    small = small_settings(nlc.load(spec)) | {"sizes.vocab": 256, "sizes.context": 64, "run.batch": 16}
    small |= {"run.steps": 12, "run.warmup": 2} | settings
    told = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    return [spec, "-o", str(out), "--data", str(ROOT / "README.md"), "--quiet", "--device", DEVICE, *told, *more]


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read(run / "metrics.jsonl") if "train/loss" in row]


@pytest.mark.parametrize("spec", ["hope", "transformer"])
def test_a_run_in_bfloat16_learns(spec: str, tmp_path: Path) -> None:
    assert main(["train", *given(spec, tmp_path / "out", "--set", "run.precision=bfloat16")]) == 0
    first, *_, last = losses(tmp_path / "out")
    assert last < first


@pytest.mark.parametrize("spec", SPECS)
def test_a_run_learns_and_goes_on_anywhere(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["train", *given(spec, out)]) == 0
    first, *_, last = losses(out)
    assert last < first
    assert json.loads((out / "lock.json").read_text())["device"].startswith("cuda:0 ")
    assert ("Gates(" in (out / "code/model.py").read_text()) is (spec == "hope"), "not compiled for its device"
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "checkpoints/step-000012")
    assert main(["train", "--resume", str(again), "--device", "cpu", "--quiet"]) == 0
    assert losses(again)[-1] == pytest.approx(last, rel=1e-3)
    seen = {}
    for device in ("cpu", DEVICE):
        capsys.readouterr()
        assert main(["replay", str(out), "--step", "10", "--device", device, "--dtype", "float32", "--json"]) == 0
        seen[device] = json.loads(capsys.readouterr().out)
        assert seen[device]["finite"] and seen[device]["step"] == 11
    assert seen[DEVICE]["loss"] == pytest.approx(seen["cpu"]["loss"], rel=1e-4)


IN_SPANS = {"run.memory": "0 B", "levels.titans.chunk": 16, "levels.cms.memories.mid.every": "16 tokens"}


@pytest.mark.parametrize(
    ("spec", "settings"), [*((spec, {}) for spec in SPECS), ("hope", IN_SPANS)], ids=[*SPECS, "hope in spans"]
)
def test_recorded_steps_make_the_same_run(
    spec: str, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole steps; in spans, each of them and its gradient."""
    replay, replays = torch.cuda.CUDAGraph.replay, []
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(replay(graph)))
    monkeypatch.setattr(CudaGraphs, "once", lambda graphs, message: print(message, graphs.trace))
    assert main(["train", *given(spec, tmp_path / "always", **settings)]) == 0
    assert main(["train", *given(spec, tmp_path / "recorded", "--cuda-graphs", **settings)]) == 0
    assert len(replays) == 12 - 3 - WARM or (settings and len(replays) > 12)  # steps 1, 10 and 12 log
    assert losses(tmp_path / "recorded") == pytest.approx(losses(tmp_path / "always"), rel=1e-4)
    one, other = (checkpoint.read(tmp_path / n / "checkpoints/step-000012").weights for n in ("always", "recorded"))
    assert max(gone(one[name].double(), other[name].double()) for name in one if one[name].norm()) < 1e-2


def test_a_stream_goes_on_on_another_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *given("hope", tmp_path / "out")]) == 0
    (tmp_path / "text").write_bytes((ROOT / "README.md").read_bytes()[:700])
    bits = {}
    for one, other in (("cpu", "cpu"), ("cpu", DEVICE), (DEVICE, "cpu")):
        text, run, state = ["--text", str(tmp_path / "text")], str(tmp_path / "out"), str(tmp_path / f"{one}-{other}")
        assert main(["state", "save", run, *text, "-o", state, "--device", one]) == 0
        capsys.readouterr()
        assert main(["state", "load", state, run, *text, "--device", other, "--json"]) == 0
        bits[one, other] = json.loads(capsys.readouterr().out)["bits_per_token"]
    assert list(bits.values()) == pytest.approx([bits["cpu", "cpu"]] * 3, rel=1e-3)
    capsys.readouterr()
    drawn = ["generate", str(tmp_path / "out"), "x", "--tokens", "70", "--json", "--device", DEVICE]
    assert main(drawn) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["device"] == "cuda:0" and len(made["tokens"]) == 70


def test_one_process_over_nccl_is_the_run_alone(tmp_path: Path) -> None:
    assert main(["train", *given("hope", tmp_path / "alone")]) == 0
    program = tmp_path / "alone/code/train.py"
    where = ["--out", str(tmp_path / "nccl"), "--data", str(ROOT / "README.md"), "--quiet", "--device", DEVICE]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", str(program), *where],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "nccl") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    one, other = (checkpoint.read(tmp_path / name / "checkpoints/step-000012").weights for name in ("alone", "nccl"))
    assert max(gone(one[name].double(), other[name].double()) for name in one if one[name].norm()) < 1e-2
