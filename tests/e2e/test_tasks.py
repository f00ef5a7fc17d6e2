"""nlc tasks, train --task, eval --tasks: as typed, at small sizes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.trainer import Run as Training
from tests.e2e.command import Run
from tests.e2e.test_resuming import kept

SIZES = ["sizes.width=16", "sizes.heads=2", "sizes.layers=1", "run.batch=4", "run.warmup=1"]
SETS = [word for size in SIZES for word in ("--set", size)]
MQAR = "mqar(context=24, pairs=3, vocab=16)"


def train(nlc: Run, *more: str, spec: str = "deltanet") -> Any:
    return nlc("train", spec, "--quiet", *SETS, *([] if "--steps" in more else ["--steps", "6"]), *more)


def test_tasks_are_listed_and_shown(nlc: Run) -> None:
    listed = nlc("tasks").out.splitlines()
    assert len(listed) == 27 and any(line.startswith("mqar") and "3.23 %" in line for line in listed)
    shown = nlc("tasks", MQAR).out
    assert "arXiv 2312.04927" in shown and "pairs 3" in shown
    found = json.loads(nlc("tasks", MQAR, "--items", "2", "--json").out)
    assert found["vocab"] == 16 and len(found["items_shown"]) == 2 and len(found["items_shown"][0]["targets"]) == 24
    assert "The pass key is" in nlc("tasks", "passkey").out


def test_a_task_is_trained_and_examined(nlc: Run, tmp_path: Path) -> None:
    ended = train(nlc, "--task", MQAR, "--name", "recall", "--json")
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert 0 <= result["val_low"] <= result["val_accuracy"] <= result["val_high"] <= 1 and result["chance"] == 1 / 7
    run = tmp_path / "runs/recall"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("val/accuracy" in row for row in rows) and not any("val/bits_per_byte" in row for row in rows)
    assert "bits per target" in (run / "report.html").read_text() and (run / "loss.png").is_file()
    found = json.loads(nlc("eval", "runs/recall", "--items", "8", "--json").out)
    assert [(one["test"], one["on"]["items"]) for one in found["tasks"]] == [("as trained", 8), ("longer", 8)]
    assert found["tasks"][0]["on"]["loss"] != found["tasks"][0]["off"]["loss"]
    both = nlc("eval", "runs/recall", "--tasks", f"{MQAR},parity", "--items", "4")
    assert both.status == 0 and "learned mqar" in both.err and len(both.out.splitlines()) == 6


def test_a_needle_is_told_apart_by_depth(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "hay.txt").write_text("what is written once is read many times; " * 100)
    made = ["--task", "passkey(context=96, size=2)", "--name", "needle", "--data", "hay.txt", "--steps", "2"]
    ended = train(nlc, *made)
    assert ended.status == 0, ended.err
    table = nlc("eval", "runs/needle", "--items", "6", "--data", "hay.txt").out
    assert "depth 0 %" in table and "learning on" in table and "learning off" in table and "4k bytes" in table


@pytest.mark.parametrize("more", [[], ["--set", "levels.delta.carry=stream"]], ids=["sequences", "streams"])
def test_a_task_goes_on_to_the_bit(nlc: Run, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(nlc, "--task", MQAR, "--out", "whole", *more).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_asked", lambda run: signal.SIGTERM if run.step == 3 else 0)
        assert train(nlc, "--task", MQAR, "--out", "cut", *more).status == 143
    assert nlc("train", "--resume", "cut", "--quiet").status == 0
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def test_a_step_that_diverged_is_run_again(nlc: Run) -> None:
    rule = ["--set", "levels.train.rule=adamw(lr=1e30)"]
    assert train(nlc, "--task", MQAR, "--out", "bad", *rule).status == 1
    again = json.loads(nlc("replay", "bad", "--json").out)
    assert not again["finite"]
    assert train(nlc, "--task", MQAR, "--out", "good").status == 0
    assert json.loads(nlc("replay", "good", "--json").out)["finite"]


def test_the_program_runs_without_the_compiler(nlc: Run, process: Run, tmp_path: Path) -> None:
    assert train(nlc, "--task", MQAR, "--out", "first", "--steps", "2").status == 0
    code = "import runpy, sys; sys.modules['nlc'] = sys.modules['codegen'] = None; sys.path.insert(0, 'first/code')\n"
    code += "sys.argv = 'train.py --task first/code/task.json --out again --steps 2 --quiet'.split()\n"
    code += "runpy.run_path('first/code/train.py', run_name='__main__')"
    ended = process("-c", code, python=())
    assert ended.status == 0 and "answers right" in ended.out, ended.err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["train", "hope", "--task", "mqr"], 2, "did you mean 'mqar'?"),
        (["train", "hope", "--task", "mqar(pairs=20)"], 2, "20 pairs and their queries take 80 tokens of 64"),
        (["train", "hope", "--task", "mqar", "--set", "sizes.context=8"], 2, "--set sizes.context: the task says it"),
        (["train", "hope", "--task", "mqar", "--pack", "text"], 2, "--pack is for a text"),
        (
            ["train", "deltanet", *SETS, "--task", "mqar", "--data", "x.txt"],
            2,
            "--data is for tasks that hide something",
        ),
        (["train", "--resume", "runs/first", "--task", "mqar"], 2, "--task cannot be given with --resume"),
        (["check", "mqar", "--set", "knobs.pairs=3"], 2, "mqar is a task, which takes no --set"),
        (["eval", "runs/first", "--tasks", ","], 2, "--tasks ',' names no task"),
        (["eval", "runs/first", "--tasks", "mqar", "--learn", "on"], 2, "--learn is for a text"),
        (["eval", "runs/first", "--items", "3"], 2, "--items is for --tasks"),
        (["eval", "runs/first", "--tasks", "mqar", "--items", "9" * 20], 2, "invalid value for '--items'"),
        (["eval", "runs/none", "--tasks", "mqar"], 2, "no such run directory"),
        (["tasks", "hope"], 2, "no file and no shipped task 'hope'"),
    ],
)
def test_what_cannot_be_is_refused(nlc: Run, words: list[str], status: int, said: str, tmp_path: Path) -> None:
    ended = nlc(*words)
    assert ended.status == status and said in ended.err, (ended.status, ended.err)
    assert not list(tmp_path.rglob("lock.json"))


def test_what_cannot_be_asked_is_refused_before_any_task_is(nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(nlc, "--task", "parity(context=8)", "--out", "first", "--steps", "2").status == 0
    ended = nlc("eval", "first", "--tasks", "parity(context=8),mqar", "--items", "2")
    assert ended.status == 2 and "task mqar has 64 different tokens, and the model knows 2" in ended.err
    assert "as trained" not in ended.err
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    ended = nlc("eval", "first", "--tasks", "parity(context=8),piqa", "--items", "2")
    assert ended.status == 4 and "which is not installed" in ended.err and "as trained" not in ended.err
    assert nlc("generate", "first", "--prompt", "abc").status == 2
