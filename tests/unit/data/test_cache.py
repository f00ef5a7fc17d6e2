"""The cache of tokens: keyed by content, whole or not there, made once by however many processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from runtime import data
from runtime.data import cache, loading, packing, store
from runtime.errors import DataError

from .files import lines, text_of, tree

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything goes through the cache, which is this folder."""
    monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "IN_MEMORY", -1)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path / "text", **{f"f{i}": f"<{i}>" * 50 for i in range(60)})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that tokens were made of, in order."""
    seen: list[str] = []
    pack = packing.pack

    def counted(source, codec, store, note):  # type: ignore[no-untyped-def]
        seen.append(source.name)
        pack(source, codec, store, note)

    monkeypatch.setattr(packing, "pack", counted)
    return seen


def entry(place: Path) -> Path:
    (found,) = (path for path in place.iterdir() if path.is_dir())
    return found


def test_gives_what_memory_gives(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in (folder, lines(tmp_path / "a.jsonl", ({"text": f"<{i}>"} for i in range(60)))):
        kept = data.load(path)
        with monkeypatch.context() as memory:
            memory.setattr(loading, "IN_MEMORY", 1 << 20)
            held = data.load(path)
        assert kept.digest == held.digest and text_of(kept.train) == text_of(held.train)
        assert kept.train.begins is held.train.begins is None or (kept.train.begins == held.train.begins).all()


def test_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.place() == Path(os.environ["NLC_CACHE"]) / "tokens"
    monkeypatch.delenv("NLC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.place() == Path("/somewhere/nlc/tokens")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.place() == Path.home() / ".cache/nlc/tokens"


def test_the_same_text_is_made_once_wherever_it_is(folder: Path, made: list[str]) -> None:
    first = data.load(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert data.load(moved).digest == first.digest and data.load(moved, pack="documents").train.begins is not None
    assert made == [f"{folder} (60 files)"]
    (moved / "f7").write_text("other")
    assert data.load(moved).digest != first.digest and len(made) == 2


def test_other_fields_and_names_are_other_texts(tmp_path: Path, folder: Path, made: list[str]) -> None:
    path = lines(tmp_path / "a.jsonl", ({"text": f"<{i}>", "body": f"({i})"} for i in range(60)))
    assert data.load(path).digest != data.load(path, field="body").digest
    data.load(folder)
    (folder / "f3").rename(folder / "g3")  # another file may be held out
    data.load(folder)
    assert len(made) == 4


@pytest.mark.parametrize("name", [*store.NAMES[:4], cache.MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_entry_is_made_again(folder: Path, place: Path, made: list[str], name: str, damage: str) -> None:
    digest = data.load(folder).digest
    path = entry(place) / name
    text = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        text[len(text) // 2] ^= 1
        path.write_bytes(text if damage == "flipped" else text[:-1])
    notes: list[str] = []
    assert data.load(folder, note=notes.append).digest == digest and len(made) == 2
    assert "is damaged: it is made again" in notes[0]
    assert data.load(folder).digest == digest and len(made) == 2


def test_a_text_that_changes_while_it_is_read_is_not_kept(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = packing.pack

    def written_to(source, codec, store, note):  # type: ignore[no-untyped-def]
        pack(source, codec, store, note)
        (folder / "f9").write_text("more")

    monkeypatch.setattr(packing, "pack", written_to)
    with pytest.raises(DataError, match="changed while it was read"):
        data.load(folder)
    assert not [path for path in place.iterdir() if path.is_dir()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["train.tokens", "validation.begins", cache.MANIFEST])
def test_a_cache_that_cannot_be_written_is_named(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch, code: int, name: str
) -> None:
    create = store.Folder.create

    def full(self: store.Folder, wanted: str) -> IO[bytes]:
        if wanted == name:
            raise OSError(code, os.strerror(code))
        return create(self, wanted)

    with monkeypatch.context() as disk:
        disk.setattr(store.Folder, "create", full)
        with pytest.raises(DataError) as caught:
            data.load(folder)
    assert f"in '{place}': {os.strerror(code)} (NLC_CACHE names another folder)" in str(caught.value)
    assert caught.value.status == 4 and not [path for path in place.iterdir() if path.is_dir()]
    assert len(data.load(folder).train)


def test_what_a_killed_process_left_is_swept_away(folder: Path, place: Path) -> None:
    data.load(folder)
    old, new = (entry(place).with_name(f"{entry(place).name}.host.{n}.part") for n in (1, 2))
    shutil.rmtree(entry(place))
    for path in (old, new):
        path.mkdir()
    os.utime(old, (0, time.time() - 2 * cache.DAY))
    data.load(folder)
    assert new.exists() and not old.exists()


PROGRAM = """
import sys, time
from runtime import data
from runtime.data import loading, packing
loading.IN_MEMORY = -1
pack = packing.pack
def slow(*given):
    print("making", flush=True)
    time.sleep(1)
    pack(*given)
packing.pack = slow
found = data.load(sys.argv[1], note=lambda said: print(said, flush=True))
print("done", found.digest, len(found.train), flush=True)
"""


def begun(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_that_need_a_text_at_once_wait_for_the_first(folder: Path) -> None:
    said = [process.communicate(timeout=60)[0] for process in [begun(folder) for _ in range(2)]]
    assert sum("making\n" in out for out in said) == 1
    assert len({out.splitlines()[-1] for out in said}) == 1 and said[0].splitlines()[-1].startswith("done")


def test_one_that_is_killed_holds_nobody_up(folder: Path) -> None:
    first = begun(folder)
    assert first.stdout is not None
    while first.stdout.readline() != "making\n":
        pass
    first.kill()
    first.wait()
    assert len(data.load(folder).train)


GROWTH = """
import resource, sys
from runtime import data
from runtime.data import loading
loading.IN_MEMORY = -1
data.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = data.load(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(found.train))
"""


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    line = json.dumps({"text": "what is written once is read many times " * 25}) + "\n"
    for name, times in (("small", 1_000), ("large", 10_000)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for i in range(times):
                file.write(line.replace("once", str(i)))
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "small.jsonl"), str(tmp_path / "large.jsonl")],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    grown, tokens = map(int, done.stdout.split())
    assert tokens > 8_000_000 and grown < 8_000, "kB"
