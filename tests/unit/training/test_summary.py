"""What a run says on standard output when it is over, and a standard output that does not take it."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from runtime import summary


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_standard_output_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert summary.say({"name": "tiny"}, as_json=True) == "standard output: No space left on device"


def test_json_is_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.say({"name": "tiny"}, as_json=True) == ""
    assert capsys.readouterr().out == '{\n "name": "tiny"\n}\n'
