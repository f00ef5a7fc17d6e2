from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime import checkpoint, whole
from runtime.checkpoint import Checkpoint
from runtime.errors import CheckpointError, RunError
from runtime.whole import damage


def made(step: int = 1) -> Checkpoint:
    return Checkpoint(
        weights={"embedding": torch.full((2, 3), float(step)), "q.linear": torch.randn(3, 2).mT},
        optimiser={"train/m/embedding": torch.ones(2, 3, dtype=torch.float64)},
        state={"blocks.0.titans.key": {"M": torch.randn(1, 2, 2), "held.M": torch.zeros(1, 2, 2)}},
        scalars={"step": step, "random": checkpoint.random_state()},
    )


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    kept = made(7)
    found = checkpoint.read(checkpoint.save(tmp_path, 7, kept))
    for before, after in ((kept.weights, found.weights), (kept.optimiser, found.optimiser)):
        assert before.keys() == after.keys()
        assert all(
            torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
        )
    assert torch.equal(found.state["blocks.0.titans.key"]["M"], kept.state["blocks.0.titans.key"]["M"])
    assert found.scalars == kept.scalars


def test_random_numbers_go_on_as_they_would_have() -> None:
    kept = checkpoint.random_state()
    expected = torch.rand(5)
    checkpoint.restore_random_state(kept)
    assert torch.equal(torch.rand(5), expected)


def test_names_manifest_and_pointer(tmp_path: Path) -> None:
    place = checkpoint.save(tmp_path, 100, made())
    assert place.name == "step-000100" and (tmp_path / "latest").read_text() == "step-000100\n"
    manifest = json.loads((place / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in place.iterdir()} - {"manifest.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000100"]


def test_no_state_file_without_state(tmp_path: Path) -> None:
    kept = made()
    place = checkpoint.save(tmp_path, 1, Checkpoint(kept.weights, kept.optimiser, {}, kept.scalars))
    assert not (place / "state.safetensors").exists() and checkpoint.read(place).state == {}


def test_saving_again_replaces(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, made(1))
    place = checkpoint.save(tmp_path, 1, made(2))
    assert checkpoint.read(place).scalars["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_only_the_newest_are_kept_when_asked(tmp_path: Path) -> None:
    for step in (1, 2, 3, 1_000_000):
        checkpoint.save(tmp_path, step, made(step), keep=2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000003", "step-1000000"]


def test_those_that_are_damaged_or_newer_do_not_count_among_those_that_are_kept(tmp_path: Path) -> None:
    for step in (20, 40, 60, 80, 100):
        checkpoint.save(tmp_path, step, made(step))
    for step in (60, 100):
        (tmp_path / f"step-{step:06d}/manifest.json").unlink()
    place = checkpoint.save(tmp_path, 90, made(90), keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [80, 90, 100]
    assert not damage(place) and (tmp_path / "latest").read_text() == "step-000090\n"


def test_damaged_ones_after_the_one_that_is_gone_back_to_are_set_aside(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        for step in (80, 100):
            checkpoint.save(tmp_path, step, made(step))
        checkpoint.go_back_to(tmp_path / "step-000080", said.append)
    names = {"latest", "step-000080", "step-000100.damaged", "step-000100.damaged-2"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "latest").read_text() == "step-000080\n"
    assert said[0] == f"'{tmp_path}/step-000100' is set aside as step-000100.damaged"
    assert checkpoint.newest(tmp_path).name == "step-000080"


def cut(place: Path) -> None:
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(place: Path) -> None:
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut, "altered: model.safetensors"),
        (flip, "altered: model.safetensors"),
        (lambda place: (place / "training.json").unlink(), "torn: training.json is missing"),
        (lambda place: (place / "manifest.json").unlink(), "torn: manifest.json is missing"),
        (lambda place: (place / "manifest.json").write_text('{"files"'), "altered: manifest.json cannot be read"),
    ],
    ids=["cut", "flipped", "file missing", "manifest missing", "manifest cut"],
)
def test_damage_is_named_and_passed_over_for_the_newest_whole_one(
    tmp_path: Path, harm: Callable[[Path], object], reason: str
) -> None:
    whole, torn = checkpoint.save(tmp_path, 1, made(1)), checkpoint.save(tmp_path, 2, made(2))
    harm(torn)
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.read(torn)
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == whole
    assert len(said) == 1 and "step-000002" in said[0] and reason in said[0]


FILES = ["model.safetensors", "optimiser.safetensors", "state.safetensors", "training.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
def test_any_file_that_is_cut_or_gone_or_has_a_flipped_bit_is_named(tmp_path: Path, file: str) -> None:
    path = checkpoint.save(tmp_path, 1, made()) / file
    content = path.read_bytes()
    assert not damage(path.parent)
    for n in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:n])
        assert "altered" in damage(path.parent) and file in damage(path.parent)
    for n in range(len(content) if file == "manifest.json" else 40):
        at = n if file == "manifest.json" else n * len(content) // 40
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << n % 8]) + content[at + 1 :])
        assert damage(path.parent)
    path.unlink()
    assert damage(path.parent) == f"is torn: {file} is missing"


def test_a_save_that_cannot_take_its_place_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = checkpoint.save(tmp_path, 1, made(1)), Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path.name.endswith(".old") or to.name.endswith(".old"):
            return rename(path, to)
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(RunError, match="Read-only file system"):
            checkpoint.save(tmp_path, 1, made(2))
    assert checkpoint.read(place).scalars["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_a_save_that_fails_leaves_the_old_one_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, made(1))

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole, "put_text", full)
    with pytest.raises(Exception, match="No space left on device"):
        checkpoint.save(tmp_path, 1, made(2))
    monkeypatch.undo()
    assert checkpoint.read(checkpoint.newest(tmp_path)).scalars["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path)


def test_what_else_lies_among_the_checkpoints_is_none_of_them(tmp_path: Path) -> None:
    for name in ("step-000010", "step-1000000", "step-000020", "step-foo", "step-"):
        (tmp_path / name).mkdir()
    assert [checkpoint.step_of(place) for place in checkpoint.steps(tmp_path)] == [10, 20, 1000000]
    (tmp_path / "file").write_text("")
    assert checkpoint.damage(tmp_path / "file") == "is a file, not a folder"
