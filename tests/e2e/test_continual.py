"""Tasks that are learned one after another: train, eval, continual, as typed, at small sizes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from nlc.cli.common import Stop
from nlc.cli.continual import Plan
from nlc.spec import load, load_task
from runtime.trainer import Run as Training
from tests.e2e.command import Run
from tests.e2e.test_resuming import kept

SIZES = ["sizes.width=16", "sizes.heads=2", "sizes.layers=1", "run.batch=4", "run.warmup=1"]
SETS = [word for size in SIZES for word in ("--set", size)]
TASK = "class_incremental(tasks=2, classes=2, shots=8)"  # two tasks of four steps


def train(nlc: Run, *more: str, spec: str = "deltanet", task: str = TASK) -> Any:
    return nlc("train", spec, "--quiet", *SETS, "--task", task, *more)


def test_a_checkpoint_at_the_end_of_each_task_makes_a_row_of_the_matrix(nlc: Run, tmp_path: Path) -> None:
    ended = train(nlc, "--out", "run", "--json")
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert result["steps"] == 8 and {p.name for p in (tmp_path / "run/checkpoints").glob("step-*")} == {
        "step-000004", "step-000008",
    }  # fmt: skip
    (found,) = json.loads(nlc("eval", "run", "--items", "8", "--json").out)["tasks"]
    on = found["on"]
    assert [[value is None for value in row] for row in on["matrix"]] == [[False, False], [False, False]]
    assert on["final"] == pytest.approx(sum(on["matrix"][-1]) / 2) and on["answers"] == 16
    assert on["forgetting"] == pytest.approx(on["matrix"][0][0] - on["matrix"][1][0])
    assert set(on["definitions"]) <= set(on) and found["labels_of_a_task"] == 2 and len(found["labels"]) == 4
    table = nlc("eval", "run", "--items", "4").out
    assert (
        "after task 2" in table and "learning off" in table and "below 0 where later tasks cost earlier ones" in table
    )


def test_tasks_in_order_go_on_to_the_bit(nlc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ["--set", "levels.delta.carry=stream"]
    assert train(nlc, "--out", "whole", *stream).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_asked", lambda run: signal.SIGTERM if run.step == 3 else 0)
        assert train(nlc, "--out", "cut", *stream).status == 143
    assert nlc("train", "--resume", "cut", "--quiet").status == 0
    both = []
    for run in ("whole", "cut"):
        both.append(json.loads(nlc("eval", run, "--items", "4", "--json").out)["tasks"])
    assert both[0] == both[1] and kept(tmp_path / "cut", 8) == kept(tmp_path / "whole", 8)


def test_a_run_that_learned_something_else_has_the_last_row_alone(nlc: Run) -> None:
    assert train(nlc, "--out", "joint", task=TASK[:-1] + ", mixed=1)").status == 0
    ended = nlc("eval", "joint", "--tasks", TASK, "--items", "4", "--json")
    assert ended.status == 0 and "did not learn class_incremental" in ended.err
    on = json.loads(ended.out)["tasks"][0]["on"]
    assert on["matrix"][0] == [None, None] and None not in on["matrix"][1] and on["forgetting"] is None


def test_domains_are_told_in_bits(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name, text in (("a.txt", "the cat sat on the mat. "), ("b.txt", "le chat dort sur le lit. ")):
        (tmp_path / "texts" / name).write_text(text * 100)
    task = "text_domains(context=16, domains=2, sequences=8)"
    assert train(nlc, "--out", "run", "--data", "texts", spec="hope", task=task).status == 0
    ended = nlc("eval", "run", "--data", "texts", "--items", "4", "--json")
    (found,) = json.loads(ended.out)["tasks"]
    assert found["on"]["unit"] == "bits per byte" and 0 < found["on"]["final"] < 12
    assert json.loads(nlc("eval", "run", "--items", "4", "--json").out)["tasks"] == [found]


def test_what_it_is_read_against_stands_beside_it_and_is_not_made_twice(nlc: Run, tmp_path: Path) -> None:
    words = ["continual", "hope", "--task", TASK, *SETS, "--items", "4", "--out", "found", "--json"]
    ended = nlc(*words)
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert [(row["system"], row["method"]) for row in found["rows"]] == [
        (system, method) for system in ("whole", "slow_off") for method in ("naive", "replay", "joint")
    ]
    assert len({row["tokens"] for row in found["rows"]}) == 1
    assert set(found["slow_off"]) == {f"levels.cms.memories.{name}.every" for name in ("fast", "mid", "slow")}
    place = tmp_path / "found/seed-0/whole-naive"
    (place / "exam.json").unlink()
    shutil.rmtree(place / "checkpoints/step-000008")
    (place / "checkpoints/latest").write_text("step-000004\n")
    again = nlc(*words)
    assert again.status == 0 and json.loads(again.out) == found and "whole-replay" not in again.err
    other = nlc(*words, "--replay", "2")
    assert other.status == 2 and "found holds runs of another spec, task or number, or other texts" in other.out


def plan(data: Path | None, out: Path, **changed: Any) -> Plan:
    task = load_task("text_domains(context=16, domains=1, sequences=8)")
    return Plan(**{"spec": "deltanet", "chosen": {}, "task": task, "replay": 8, "items": 4, "data": data,
                   "device": "cpu", "out": out} | changed)  # fmt: skip


def test_runs_of_other_texts_are_another_folder(tmp_path: Path) -> None:
    for name, text in (("a", "the cat sat. "), ("b", "le chat dort. "), ("c", "the cat sat. ")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(text * 100)
    spec, out = load("deltanet"), tmp_path / "out"
    with pytest.raises(Stop, match="holds the texts: give another --out"):
        plan(tmp_path / "a", tmp_path / "c" / ".." / "a").begin(spec)
    plan(tmp_path / "a", out).begin(spec)
    plan(tmp_path / "c", out).begin(spec)
    with pytest.raises(Stop, match="or other texts: give another --out"):
        plan(tmp_path / "b", out).begin(spec)
    written = json.loads((out / "plan.json").read_text())
    assert written.pop("texts") and not (out / "seed-0").exists()
    (out / "plan.json").write_text(json.dumps(written, indent=1) + "\n")  # as earlier releases wrote it
    with pytest.raises(Stop, match="holds runs of another spec"):
        plan(tmp_path / "a", out, items=5).begin(spec)
    plan(tmp_path / "a", out).begin(spec)
    with pytest.raises(Stop, match="or other texts"):
        plan(tmp_path / "b", out).begin(spec)


@pytest.mark.parametrize("text", ['{"parameters": 1, "tok', "{}", "[]", "1", '{"parameters": 1, "tokens": 1, "on": 1}'])
def test_a_damaged_exam_is_named(tmp_path: Path, text: str) -> None:
    folder = plan(None, tmp_path).folder("whole", "naive", 0)
    folder.mkdir(parents=True)
    (folder / "exam.json").write_text(text)
    with pytest.raises(Stop, match=r"seed-0/whole-naive/exam.json' is no exam of a run .* makes it again") as error:
        plan(None, tmp_path).run("whole", "naive", 0)
    assert error.value.status == 4


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["train", "deltanet", "--task", TASK, "--steps", "5"], 2, "--steps: the task says it"),
        (["train", "deltanet", "--task", TASK, "--data", "x"], 2, "the texts are made here"),
        (
            ["train", "deltanet", "--task", "clinc150"],
            4,
            "let the environment variable NLC_DATA name the folder above it",
        ),
        (["train", "deltanet", "--task", "clinc150", "--data", "x"], 4, "'x/data_full.json' is not there"),
        (["tasks", "banking77"], 4, "NLC_DATA"),
        (["continual", "hope", "--task", "mqar", "--out", "x"], 2, "task mqar is not learned in order"),
        (["continual", "hope", "--task", "class_incremental(mixed=1)", "--out", "x"], 2, "what the methods say"),
        (["continual", "hope", "--task", "class_incremental(replay=4)", "--out", "x"], 2, "--replay is how many"),
        (["tasks", "class_incremental(shots=0)"], 2, "shots says how many"),
        (["tasks", "class_incremental(words=1, length=3)"], 2, "a label has 96 different texts, and shots 512 and 32"),
        (["tasks", "class_incremental(examples=8)"], 2, "tasks that are learned in order have no 'examples'"),
    ],
)
def test_what_cannot_be_is_refused(
    nlc: Run, words: list[str], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NLC_DATA", raising=False)
    ended = nlc(*words)
    assert ended.status == status and said in ended.err, (ended.status, ended.err)
    assert not list(tmp_path.rglob("lock.json"))
