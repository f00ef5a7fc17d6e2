"""Steps that are recorded and replayed: the run that they make, and those that run as always.

There is no GPU here: what stands for a CUDA graph runs the step again in the places of the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nlc.bench.training import Steps, loaded, through
from nlc.compile import compile
from nlc.spec import load
from runtime.cuda_graphs import WARM, CudaGraphs, Recorded
from runtime.ops.inputs import summed
from runtime.program import load as load_program
from runtime.recordings import Made

SMALL = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 16, "run.batch": 2}
PERIODS = {f"levels.cms.memories.{name}.every": f"{n} tokens" for name, n in (("fast", 4), ("mid", 8))}
COUNT = WARM + 4  # steps


class Recorder:
    """`recorded` without a GPU: a replay computes into the tensors that the recording gave.  `error`: it fails."""

    def __init__(self, error: RuntimeError | None = None) -> None:
        self.model: Any = None
        self.error, self.recorded, self.replays = error, 0, 0

    def __call__(self, run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        self.recorded += 1
        made = run()
        if self.error:
            raise self.error
        for x in made:
            if x is not None:
                x.zero_()  # a recording computes nothing

        def replay() -> None:
            self.replays += 1
            counted = dict(self.model.fires)
            for there, now in zip(made, run(), strict=True):
                if there is not None and now is not None:
                    there.copy_(now)
            self.model.fires = counted

        return made, replay


class Kept(Steps):
    """Keeps the model and the losses."""

    def __init__(self, *given: Any, recorder: Recorder | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self.recorder, self.losses = recorder, []

    def steps(self, model: Any, levels: Any) -> Any:
        self.model, model.span = model, model.span and 8
        if self.recorder:
            self.recorder.model = model
        return super().steps(model, levels)

    def report(self, loss: Tensor, state: Any = None) -> None:
        self.losses.append(loss.detach())


@pytest.fixture(scope="module")
def hope() -> ModuleType:
    return loaded(compile(load("hope", SMALL | PERIODS | {"levels.titans.chunk": 8})))


@pytest.fixture(scope="module")
def spans() -> ModuleType:
    """A sequence is run in six spans, and its memories go on in the next step."""
    more = {"sizes.context": 48, "run.memory": "0 B", "levels.titans.carry": "stream", "run.precision": "bfloat16"}
    return loaded(compile(load("hope", SMALL | PERIODS | {"levels.titans.chunk": 8} | more)))


def run(module: ModuleType, recorder: Recorder | None = None, say: Callable[[str], None] = print) -> Kept:
    graphs = CudaGraphs(say, recorder) if recorder else None
    kept = Kept(module.settings, COUNT, recorder=recorder, graphs=graphs)
    through(module, kept)
    return kept


def test_replayed_steps_make_the_run_that_all_others_make(hope: ModuleType) -> None:
    recorder = Recorder()
    want, got = run(hope), run(hope, recorder)
    assert recorder.recorded == 1 and recorder.replays == COUNT - WARM
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert all(a.equal(b) for a, b in zip(want.model.parameters(), got.model.parameters(), strict=True))
    assert want.model.fires == got.model.fires


def test_spans_are_replayed_one_after_another_and_so_are_their_gradients(spans: ModuleType) -> None:
    """The first and the last of a step are each a pattern of its own, as is the first of a run."""
    recorder = Recorder()
    want, got = run(spans), run(spans, recorder)
    assert recorder.recorded > 2 and recorder.replays > 4 * COUNT
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert all(a.equal(b) for a, b in zip(want.model.parameters(), got.model.parameters(), strict=True))
    assert want.model.fires == got.model.fires


def test_a_step_that_cannot_be_recorded_is_said_once_and_run_as_always(hope: ModuleType) -> None:
    said: list[str] = []
    want, got = run(hope), run(hope, Recorder(RuntimeError("operation not permitted\nwhile capturing")), said.append)
    (line,) = said
    assert line.startswith(
        "CUDA graphs: a step cannot be recorded (operation not permitted training/test_cuda_graphs.py:"
    )
    assert line.endswith("): all are run as always")
    assert all(a.equal(b) for a, b in zip(want.losses, got.losses, strict=True))
    assert want.model.fires == got.model.fires


def test_losses_that_wait_for_one_another_keep_their_gradients(hope: ModuleType) -> None:
    model, recorder = hope.build(0), Recorder()
    recorder.model, graphs = model, CudaGraphs(print, recorder)
    text = torch.randint(256, (2, 2, 17), generator=torch.Generator().manual_seed(0))

    def gradients(replayed: bool) -> list[Tensor]:
        losses = []
        for tokens in text:
            graphs.on = replayed
            losses.append(model.loss(tokens[:, :-1], tokens[:, 1:], final=True)[0])
        weights = list(model.parameters())
        found = torch.autograd.grad(losses[0] + 3 * losses[1], weights, allow_unused=True)
        return [g for g in found if g is not None]

    model.recordings = graphs
    for _ in range(WARM):
        gradients(True)
    assert recorder.replays > 0
    for want, got in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("why", ["documents end inside", "go on from a state", "is read", "inputs of layers", "span"])
def test_what_no_graph_can_hold_is_run_as_always(hope: ModuleType, why: str) -> None:
    said: list[str] = []
    model = hope.build(0)
    model.recordings = CudaGraphs(said.append, Recorder())
    tokens = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    x, y = tokens[:, :-1], tokens[:, 1:]
    given: dict[str, Any] = {"final": why != "is read"}
    if why.startswith("documents"):
        given["starts"] = torch.zeros(2, 16, dtype=torch.bool)
    if why.startswith("go on"):
        with torch.no_grad():
            given["state"] = model.loss(x, y)[1]
    model.span, model.steady = (8, False) if why == "span" else (None, True)
    for _ in range(2):
        model.recordings.on = True
        with summed([model.blocks[0].q.linear] if why.startswith("inputs") else []):
            loss, _ = model.loss(x, y, **given)
        loss.backward()
    assert len(said) == 1 and why in said[0] and not model.recordings.calls


def test_only_the_loss_of_a_step_is_replayed(hope: ModuleType) -> None:
    model, recorder = hope.build(0), Recorder()
    model.recordings = CudaGraphs(print, recorder)
    tokens = torch.randint(256, (2, 17))
    for _ in range(WARM + 2):
        model.loss(tokens[:, :-1], tokens[:, 1:], final=True)
    model.recordings.on = True
    with torch.no_grad():
        model.loss(tokens[:, :-1], tokens[:, 1:], final=True)
    assert not model.recordings.calls


def test_without_a_gpu_the_option_changes_nothing_and_says_so(
    package: Callable[..., Path], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(text), "--steps", "2", "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert load_program(package()).main([*given, "--cuda-graphs"]) == 0
    assert capsys.readouterr().err == "warning: --cuda-graphs is for a GPU: on cpu steps are run as always\n"


class Spoilt:
    """A CUDA graph that ends as one does in which something was refused.  asked: what was asked of the device."""

    asked: list[str]

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        self.asked.append("begin")

    def capture_end(self) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("refused", [True, False], ids=["an operation", "only at the end"])
def test_a_failed_recording_gives_its_memory_back_and_says_what_was_refused(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Spoilt, "asked", asked, raising=False)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Spoilt)
    for name, found in {
        "graph_pool_handle": (0, 1),
        "synchronize": None,
        "empty_cache": None,
        "current_device": 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda found=found: found)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda device, pool, name=name: asked.append(name), raising=False)

    def run() -> Made:
        if refused:
            raise RuntimeError("a copy from the host")
        return []

    record = Recorded()
    with pytest.raises(RuntimeError, match="a copy from the host" if refused else "due to a previous error"):
        record(run)
    assert asked == ["begin", "_cuda_endAllocateToPool", "_cuda_releasePool"] and record.pool is None
