"""Running the command as a user does: in this process where that is enough, in one of its own where it matters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, Ended, Run


@pytest.fixture
def nlc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`nlc("check", "hope")` in this process, in an empty folder."""
    from nlc.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(list(arguments))
        out, err = capsys.readouterr()
        return Ended(status, out, err)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """`process("check", "-", stdin="nlc: 1")`: the same in a process of its own."""

    def run(*arguments: str, stdin: str = "", python: tuple[str, ...] = ("-m", "nlc"), **env: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *python, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            timeout=240,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
