"""Where a run computes: what is there, what is not, and what of a state goes along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlc.cli import main
from runtime import checkpoint, program
from runtime.batches import Batch
from runtime.device import choose, moved, sent
from runtime.errors import RunError

Package = Callable[..., Path]


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that were made current."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("word", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there_says_so(word: str) -> None:
    with pytest.raises(RunError, match=rf"no device 'cuda:{word[5:] or 0}': this machine has none") as caught:
        choose(word)
    assert caught.value.status == 4


def test_a_gpu_beyond_those_there_says_what_there_is(two_gpus: list[int]) -> None:
    with pytest.raises(RunError, match="no device 'cuda:2': this machine has 2, cuda:0 to cuda:1"):
        choose("cuda:2")
    assert choose("cuda:1") == torch.device("cuda", 1) and two_gpus == [1]


def test_auto_is_a_gpu_where_there_is_one(two_gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose() == torch.device("cuda", 0) and choose("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose() == torch.device("cpu")


def test_each_process_has_its_own_gpu(two_gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose("cuda") == choose("auto") == torch.device("cuda", 1)
    with pytest.raises(RunError, match="'cuda:0' is one and 2 processes want one each: --device cuda"):
        choose("cuda:0")


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    "arguments",
    [["train", "transformer"], ["verify", "transformer"], ["eval", "run"], ["replay", "run"], ["generate", "run", "x"],
     ["state", "save", "run", "--text", "text", "-o", "state"], ["state", "load", "state", "run"]],
    ids=lambda arguments: " ".join(arguments[:2]),
)  # fmt: skip
def test_every_command_says_it_in_one_line_and_leaves_nothing(
    package: Package, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        program.load(package()).main(["--out", "run", "--data", str(text), "--steps", "1", "--quiet"])
    capsys.readouterr()
    unknown = "unknown device 'tpu': auto, cpu, cuda or cuda:N"
    for word, status, message in (("tpu", 2, unknown), ("cuda", 4, "no device 'cuda:0'")):
        assert main([*arguments, "--device", word]) == status
        err = capsys.readouterr().err
        assert err.startswith(f"nlc: {message}") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists() and not (tmp_path / "state").exists()


@pytest.mark.usefixtures("without_gpu")
def test_the_generated_program_says_it_in_one_line(
    package: Package, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.load(package()).main(["--out", str(tmp_path / "out"), "--data", str(text), "--device", "cuda"])
    assert ended.value.code == 4
    assert capsys.readouterr().err.startswith("error: no device 'cuda:0': this machine has none")
    assert not (tmp_path / "out").exists()


def test_a_state_moves_but_for_what_counts_tokens() -> None:
    state = {
        "clock": {"sequence": torch.zeros(2, dtype=torch.long)},
        "blocks.0.m": {"M": torch.zeros(2, 3), "origin": torch.zeros(2, dtype=torch.long)},
        "unlearned": {"token": torch.zeros(2, dtype=torch.long)},
    }
    there = moved(state, "meta", torch.float64)
    assert there["blocks.0.m"]["M"].device.type == there["unlearned"]["token"].device.type == "meta"
    assert there["blocks.0.m"]["M"].dtype == torch.float64 and there["unlearned"]["token"].dtype == torch.long
    assert there["clock"]["sequence"].device.type == there["blocks.0.m"]["origin"].device.type == "cpu"


def test_where_documents_begin_stays_on_the_host() -> None:
    rows = torch.zeros(2, 4, dtype=torch.long)
    x, y, starts = sent(Batch(rows, rows, rows.bool()), torch.device("meta"))
    assert x.device.type == y.device.type == "meta" and starts is not None and starts.device.type == "cpu"


def test_random_numbers_of_a_processor_go_on_whatever_ran_before() -> None:
    kept = checkpoint.random_states(torch.device("cpu"))
    drawn = torch.rand(3)
    checkpoint.restore_random_states(kept | {"random_cuda": "of another machine"}, torch.device("cpu"))
    assert torch.equal(drawn, torch.rand(3))
