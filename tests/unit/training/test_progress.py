from __future__ import annotations

import math
from dataclasses import replace

import pytest

from runtime.progress import Live, Plain, Report, duration

REPORT = Report(step=50, steps=600, loss=1.5, tokens_per_s=4321.0, seconds_left=125.0)


def test_plain_lines_say_speed_loss_bits_and_time_left_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Plain() as display:
        display.update(REPORT)
    out, err = capsys.readouterr()
    assert out == "" and err == "step  50/600  loss 1.5000 nats  2.1640 bits/byte  4,321 tokens/s  2 min 05 s left\n"


def test_the_live_line_says_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    with Live(600) as display:
        display.update(REPORT)
        display.note("[a note] stays as it is")
    out, err = capsys.readouterr()
    assert out == "" and "[a note] stays as it is" in err
    for part in ("50/600", "2.1640 bits/byte", "1.5000", "4,321 tokens/s", "2 min 05 s left"):
        assert part in err


def test_bits_are_of_a_byte_where_a_token_is_several() -> None:
    assert replace(REPORT, bytes_per_token=4.0).bits_per_byte == pytest.approx(1.5 / math.log(2) / 4)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (4020, "1 h 07 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
