"""A compiled HOPE that is interrupted and resumed by the command: equal to the bit, whatever is half done."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from runtime.directory import RunDirectory
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


def kept(run: Path, step: int = 6) -> tuple[dict[str, bytes], dict[str, Any], list[dict[str, Any]]]:
    """Every tensor, scalar and row of metrics, but for what a clock says."""
    place = run / f"checkpoints/step-{step:06d}"
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


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_a_spec_that_a_run_cannot_go_on_with_changes_nothing_and_one_that_it_can_is_taken_over(
    nlc: Run, tmp_path: Path
) -> None:
    text, run = str(ROOT / "README.md"), tmp_path / "run"
    settings = {**SMALL, "run.steps": "2"}
    assert nlc(*command("hope", "--data", text, "--out", "run", "--quiet", **settings)).status == 0
    before, again = files(run), ["--resume", "run", "--allow", "--quiet"]
    ended = nlc(*command("hope", *again, **{**settings, "sizes.width": "24"}))
    assert ended.status == 2 and "does not fit this model" in ended.err
    handle = RunDirectory(run).claim()  # as another process that trains here
    ended = nlc(*command("hope", *again, **{**settings, "run.steps": "3"}))
    assert ended.status == 2 and "another process trains in 'run'" in ended.err
    os.close(handle)
    after = files(run)
    assert {name for name in after if after[name] != before.get(name)} <= {"report.html"}
    assert after.keys() == before.keys()
    ended = nlc("train", "run/spec.yaml", "--set", "run.steps=3", *again)
    assert ended.status == 0, ended.err
    assert "steps=3," in (run / "code/train.py").read_text()
    assert "steps: 3" in (run / "spec.yaml").read_text() and "steps: 3" in (run / "resolved.yaml").read_text()
    lock = json.loads((run / "lock.json").read_text())
    assert lock["steps"] == 3 and lock["resumed"][0]["before"]["steps"] == 2 and lock["saved"] == 2
    assert nlc("train", "--resume", "run", "--quiet").status == 0  # it is the run's own program now
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--resume r1 --steps 200", "nlc train r1/resolved.yaml --set run.steps=200 --resume r1 --allow"),
        ("hope --time-limit 0.5s", "--time-limit '0.5s' is no length of time: 90s, 15m and 2h30m are"),
        (
            "hope --checkpoint-every often",
            "--checkpoint-every 'often' is neither a number of steps nor a length of time",
        ),
    ],
)
def test_wrong_use_is_one_line_that_says_what_works(nlc: Run, arguments: str, said: str) -> None:
    ended = nlc("train", *arguments.split())
    assert ended.status == 2 and said in ended.err and ended.err.startswith("nlc: ") and ended.err.count("\n") == 1
    ended = nlc("train", *arguments.split(), "--json")
    assert said in json.loads(ended.out)["error"] and not ended.err


def test_a_signal_while_generate_saves_its_state_is_heard_after_it(
    nlc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.session import Session

    text = str(ROOT / "README.md")
    assert nlc(*command("hope", "--data", text, "--out", "run", "--quiet", **{**SMALL, "run.steps": "2"})).status == 0
    save = Session.save

    def interrupted(session: Session, path: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return save(session, path)

    monkeypatch.setattr(Session, "save", interrupted)
    ended = nlc("generate", "run", "a", "--tokens", "2", "--save-state", "state")
    assert ended.status == 130 and "stopped by SIGINT" in ended.err
    assert nlc("state", "inspect", "state").status == 0
