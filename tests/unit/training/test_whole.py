"""A folder that is replaced is whole or as it was, wherever its writer is interrupted or killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime import whole
from runtime.whole import damage, lock, mend, settle, sweep, write_folder

STEPS = ((Path, "mkdir"), (whole, "save_file"), (os, "fsync"), (Path, "rename"), (shutil, "rmtree"))


def put(place: Path, version: int) -> Path:
    return write_folder(place, {"model": {"w": torch.full((3,), float(version))}}, {"facts": {"version": version}})


def version(place: Path) -> int:
    assert not damage(place)
    return int(json.loads((place / "facts.json").read_text(encoding="utf-8"))["version"])


def before(patch: pytest.MonkeyPatch, n: int, act: Callable[[], None], after: bool = False) -> list[int]:
    """`act` at the n-th step of writing, before or after it is done; how many steps were taken."""
    taken = [0]

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*given: Any, **options: Any) -> Any:
            taken[0] += 1
            here = taken[0] == n
            if here and not after:
                act()
            result = real(*given, **options)
            if here and after:
                act()
            return result

        patch.setattr(owner, name, watched)

    for owner, name in STEPS:
        watch(owner, name)
    return taken


def count(place: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        taken = before(patch, 0, lambda: None)
        put(place, 2)
    return taken[0]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_of_replacing_the_next_reader_finds_the_old_or_the_new(tmp_path: Path, after: bool) -> None:
    place, found = tmp_path / "state", set()
    put(place, 1)
    for n in range(1, count(place) + 1):
        put(place, 1)
        if (child := os.fork()) == 0:
            with pytest.MonkeyPatch.context() as patch:
                before(patch, n, lambda: os._exit(9), after)
                put(place, 2)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, n
        settle(place)
        found.add(version(place))
        put(place, 3)
        assert version(place) == 3 and [path.name for path in tmp_path.iterdir()] == ["state"], n
    assert found == {1, 2}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_interrupted_at_any_step_of_replacing_the_place_is_not_empty(tmp_path: Path, after: bool) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    place = tmp_path / "state"
    put(place, 1)
    for n in range(1, count(place) + 1):
        put(place, 1)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            before(patch, n, interrupt, after)
            put(place, 2)
        assert version(place) in (1, 2), n
        mend(place)
        assert [path.name for path in tmp_path.iterdir()] == ["state"], n


def test_what_a_killed_writer_left_is_swept_and_what_a_live_one_makes_is_not(tmp_path: Path) -> None:
    for name in (".state.11", ".state.12.old", ".other.13"):
        (tmp_path / name).mkdir()
    (tmp_path / ".latest.14").touch()
    (tmp_path / ".mine").mkdir()
    put(tmp_path / "state", 1)
    handle = lock(tmp_path / ".other.13")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", ".other.13", "state"]
    assert handle is not None
    os.close(handle)
