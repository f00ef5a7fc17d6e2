"""lock.json that was edited into something else is a message, whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.directory import RunDirectory
from runtime.errors import RunError

WHOLE: dict[str, Any] = {
    "name": "tiny", "steps": 3, "seed": 0, "environment": {},
    "data": {"path": None, "field": None, "pack": "text", "tokenizer": {"file": "t", "sha256": "0", "vocab": 9}},
}  # fmt: skip


def lock(folder: Path, changed: dict[str, Any]) -> RunDirectory:
    (folder / "lock.json").write_text(json.dumps(WHOLE | changed))
    return RunDirectory(folder)


def test_a_lock_as_it_is_written_or_with_less_is_read(tmp_path: Path) -> None:
    assert lock(tmp_path, {}).read_lock() == WHOLE
    (tmp_path / "lock.json").write_text("{}")
    assert RunDirectory(tmp_path).read_lock() == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": []}, "data is a list, an object is expected"),
        ({"steps": "3"}, "steps is a string, a whole number is expected"),
        ({"seed": True}, "seed is true or false, a whole number is expected"),
        ({"data": {"path": 3}}, "data.path is a whole number, a string or null is expected"),
        ({"data": {"tokenizer": {"file": None}}}, "data.tokenizer.file is null, a string is expected"),
        ({"environment": None}, "environment is null, an object is expected"),
    ],
)
def test_what_is_of_another_kind_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        lock(tmp_path, changed).read_lock()
