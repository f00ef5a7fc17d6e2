"""A disk that becomes full at any write of a run: said so, status 4, nothing lost, and resumed to the bit."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import checkpoint, plot, whole
from runtime.whole import damage

from .test_resume import STREAM, run, same, streaming

Package = Callable[..., Path]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a write it names no file


class Disk:
    """Room for `left` more writes, synchronisations, renames and folders; then everything fails, until it is freed."""

    def __init__(self, patch: pytest.MonkeyPatch, left: int) -> None:
        self.left, self.patch = left, patch
        for owner, name in ((os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"), (plot, "loss")):
            self.limit(owner, name)
        self.limit(whole, "save_file", torn=lambda tensors, path: Path(path).write_bytes(b"torn"))
        self.limit(shutil, "copyfile", torn=lambda source, path: Path(path).touch())
        write, opened = Path.write_text, Path.open
        self.limit(Path, "write_text", torn=lambda path, text, **more: write(path, text[: len(text) // 2], **more))
        patch.setattr(Path, "open", lambda path, mode="r", *a, **k: self.opened(opened, path, mode, *a, **k))

    def use(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def limit(self, owner: Any, name: str, torn: Callable[..., object] = lambda *a, **k: None) -> None:
        real = getattr(owner, name)

        def limited(*arguments: Any, **options: Any) -> Any:
            if self.use():
                return real(*arguments, **options)
            torn(*arguments, **options)
            raise FULL

        self.patch.setattr(owner, name, limited)

    def opened(self, real: Callable[..., Any], path: Path, mode: str, *arguments: Any, **options: Any) -> Any:
        """A file that is added to fails when it is flushed, and again when it is closed."""
        if mode != "a":
            return real(path, mode, *arguments, **options)
        return io.TextIOWrapper(io.BufferedWriter(Limited(self, path)), encoding="utf-8")


class Limited(io.FileIO):
    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(path, "a")
        self.disk = disk

    def write(self, data: Any) -> int:
        if not self.disk.use():
            raise FULL
        return super().write(data)


@pytest.fixture
def often(package: Package) -> Path:
    """Four steps, a checkpoint after the third, in which a level's period is half full, and after the last."""
    folder = package(streaming(), model=STREAM)
    source = (folder / "train.py").read_text(encoding="utf-8")
    source = source.replace("checkpoint_every=10", "checkpoint_every=3").replace("steps=30", "steps=4")
    (folder / "train.py").write_text(source, encoding="utf-8")
    return folder


@pytest.mark.timeout(300)
def test_full_at_any_write(
    often: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(often, "--out", tmp_path / "whole", "--data", text) == 0
    with monkeypatch.context() as patch:
        disk = Disk(patch, 10_000)
        assert run(often, "--out", tmp_path / "counted", "--data", text) == 0
        writes = 10_000 - disk.left
    assert writes > 40
    for n in range(writes):
        out = tmp_path / f"full-{n}"
        with monkeypatch.context() as patch:
            Disk(patch, n)
            assert run(often, "--out", out, "--data", text) == 4, n
        said = capsys.readouterr().err
        assert "No space left on device" in said and "Traceback" not in said, n
        whole = [place for place in checkpoint.steps(out / "checkpoints") if not damage(place)]
        assert whole == checkpoint.steps(out / "checkpoints"), n  # none that is torn has the name of a checkpoint
        if (out / "lock.json").exists():
            known = f"the newest checkpoint is {whole[-1]}" if whole else "no checkpoint was written yet"
            assert known in said, n
        begun = ["--resume", out] if (out / "lock.json").exists() else ["--out", out, "--data", text]
        assert run(often, *begun) == 0, n
        same(tmp_path / "whole", out)
        assert not list((out / "checkpoints").glob(".*")) and not list(out.glob(".*")), n
        shutil.rmtree(out)
