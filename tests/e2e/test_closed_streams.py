"""A standard stream that is closed ends a command with a message, or with its status where there is nobody to tell."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command import ROOT


def shell(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = f"'{sys.executable}' -m nlc {words}"
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, cwd=folder, env=where, timeout=120
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("check - <&-", 4, "nlc: standard input: Bad file descriptor\n"),
        ("check hope >&-", 4, "nlc: standard output: Bad file descriptor\n"),
        ("check nothing 2>&-", 2, ""),
    ],
)
def test_a_closed_stream_is_a_message(tmp_path: Path, words: str, status: int, message: str) -> None:
    done = shell(words, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)


def test_text_that_cannot_be_written_names_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlc.cli.generate import shown

    with open(os.devnull) as unwritable:
        raw = os.fdopen(os.dup(unwritable.fileno()), "wb", buffering=0)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
    with pytest.raises(OSError) as error:
        shown("text")
    assert error.value.filename == "standard output"
