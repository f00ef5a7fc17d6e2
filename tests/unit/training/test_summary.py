"""What a run says on standard output when it is over, and a standard output that does not take it."""

from __future__ import annotations

import errno
import io
import json
import os
import sys

import pytest

from runtime import summary


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_standard_output_is_status_4_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert summary.say({"name": "tiny"}, as_json=True) == 4
    assert capsys.readouterr().err == "error: standard output: No space left on device\n"


def test_json_is_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.say({"name": "tiny"}, as_json=True) == 0
    assert capsys.readouterr().out == '{\n "name": "tiny"\n}\n'


def test_a_failure_as_json_is_on_stderr_too(capsys: pytest.CaptureFixture[str]) -> None:
    summary.fail("no such file: 'a'", 4, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ok": False, "status": 4, "error": "no such file: 'a'"}
    assert err == "error: no such file: 'a'\n"
