"""A compiled HOPE that is interrupted and resumed by the command: equal to the bit, whatever is half done."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from runtime.trainer import Run as Training
from tests.e2e.command import ROOT, Run

SMALL = {  # 36 tokens are four chunks of 8 and half of one; cms.slow is written every second step
    "sizes.width": "16", "sizes.heads": "2", "sizes.layers": "1", "sizes.context": "36", "run.batch": "2",
    "run.steps": "6", "run.warmup": "2", "levels.titans.chunk": "8", "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "16 tokens",
}  # fmt: skip
STREAM = {"levels.titans.carry": "stream", "levels.cms.carry": "stream"}
CLOCKS = ("seconds", "training", "perf/tokens_per_s")


def command(*more: str, **settings: str) -> list[str]:
    return ["train", *more, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]


def kept(run: Path) -> tuple[dict[str, bytes], dict[str, Any], list[dict[str, Any]]]:
    """Every tensor, scalar and row of metrics, but for what a clock says."""
    place = run / "checkpoints/step-000006"
    scalars = json.loads((place / "training.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tensors = {path.name: path.read_bytes() for path in place.glob("*.safetensors")}
    return tensors, without(scalars), [without(row) for row in rows]


def without(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in CLOCKS}


@pytest.mark.parametrize("stop", [1, 3], ids=["after 1", "after 3"])
@pytest.mark.parametrize("more", [{}, STREAM], ids=["sequences", "streams"])
def test_hope_goes_on_to_the_bit(
    nlc: Run, more: dict[str, str], stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(ROOT / "README.md")
    assert nlc(*command("hope", "--data", text, "--out", "whole", "--quiet", **SMALL, **more)).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_asked", lambda run: signal.SIGTERM if run.step == stop else 0)
        ended = nlc(*command("hope", "--data", text, "--out", "cut", "--quiet", **SMALL, **more))
    assert ended.status == 143 and f"stopped by SIGTERM after step {stop}" in ended.err
    place = tmp_path / f"cut/checkpoints/step-{stop:06d}"
    assert any("cms.slow/grad/" in name for name in load_file(place / "optimiser.safetensors"))  # half a period
    assert (place / "state.safetensors").exists() == bool(more)
    assert nlc("train", "--resume", "cut", "--quiet").status == 0
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
