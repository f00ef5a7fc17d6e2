"""nlc search: killed and going on, the table, the best; what ends a run, recorded; Ray, where it is installed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nlc.cli import variant
from nlc.cli.begun import begin
from nlc.cli.common import Stop
from nlc.cli.search import best, lessons, materials
from nlc.spec import load_task
from nlc.variants.journal import Journal, read
from nlc.variants.local import alone
from nlc.variants.runs import Request
from nlc.variants.scores import scores
from nlc.variants.search import load_search
from tests.e2e.command import ROOT, Run

pytestmark = pytest.mark.timeout(900)

RECALL = "mqar(pairs=1, context=8, vocab=8)"
TINY = f"""nlc: 1
search: tiny
base: [linear_attention, transformer]
set: {{sizes.width: 8, sizes.heads: 2, sizes.layers: 1, run.batch: 4}}
axes:
  levels.attention.objective: {{values: [dot, l3], when: {{base: linear_attention}}}}
tasks: {{recall: '{RECALL}'}}
budget: {{steps: 4}}
seeds: 2
items: 16
"""


def command(folder: Path, *more: str, out: str = "out") -> subprocess.Popen[str]:
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "nlc", "search", "tiny.yaml", "--out", out, "--device", "cpu", *more],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder that holds an undisturbed search, what it printed, and what it said on the way."""
    folder = tmp_path_factory.mktemp("searched")
    process = command(folder)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return folder, out, err


def until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not there() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def lines(folder: Path, record: str) -> list[dict[str, Any]]:
    path = folder / "journal.jsonl"
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in whole if line.endswith("\n")]
    return [line for line in found if line["record"] == record]


def test_the_table_ranks_what_has_a_score_and_says_what_was_refused(searched: tuple[Path, str, str]) -> None:
    folder, out, err = searched
    board = json.loads((folder / "out" / "leaderboard.json").read_text())
    assert [row["rank"] for row in board["rows"]] == [1, 2, None]
    assert board["rows"][-1]["status"] == "rejected" and "unknown objective 'l3'" in board["rows"][-1]["error"]
    assert "tiny.yaml:6:46: error" in out and "recall.accuracy (95 %)" in out
    assert "t002: rejected" in err and "of 3 trials have a score" in err and "left in this rung" in err
    runs = [line for line in read(folder / "out") if line["record"] == "run"]
    assert len(runs) == 4 and all(run["status"] == "ok" for run in runs)
    first = runs[0]
    assert set(first["cost"]) == {"params", "state_bytes", "flops", "tokens", "seconds", "peak_memory"}
    assert first["cost"]["tokens"] == 4 * 4 * 8 and first["cost"]["peak_memory"] > 50e6
    task = load_task("mqar(pairs=1, context=8, vocab=8)")
    assert first["scores"].keys() == set(scores({"recall": task})) >= {"recall.off.accuracy", "recall[longer].loss"}
    assert first["curve"]["tokens"][-1] == 128 and len(first["curve"]["train/loss"]) == len(first["curve"]["step"])
    assert not (folder / "out" / "runs").exists()


def test_a_search_killed_twice_ends_with_the_same_table(searched: tuple[Path, str, str], tmp_path: Path) -> None:
    whole, out, _ = searched
    for ended in (0, 2):
        process = command(tmp_path)
        until(
            lambda n=ended: len(lines(tmp_path / "out", "run")) >= n and (tmp_path / "out" / "runs").exists(), process
        )
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        before = lines(tmp_path / "out", "run")
    process = command(tmp_path)
    said, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert lines(tmp_path / "out", "run")[: len(before)] == before and len(lines(tmp_path / "out", "run")) == 4
    for name in ("leaderboard.json", "leaderboard.md"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    assert said == out
    assert not (tmp_path / "out" / "runs").exists()


def test_the_best_is_a_spec_that_learns_a_text_and_its_task(
    searched: tuple[Path, str, str], nlc: Run, tmp_path: Path
) -> None:
    folder, _, _ = searched
    assert nlc("search", "best", str(folder / "out"), "-o", "winner.yaml").status == 0
    text = (tmp_path / "winner.yaml").read_text()
    assert text.startswith("# t00") and "recall.accuracy" in text.splitlines()[0]
    checked = nlc("check", "winner.yaml", "--json")
    assert checked.status == 0
    shown = json.loads(nlc("show", "winner.yaml", "--json").out)
    assert shown["sizes"]["context"] == 512 and shown["sizes"]["vocab"] == 256 and shown["run"]["steps"] == 4
    (how,) = [line for line in text.splitlines() if "nlc train" in line]
    assert how == f"# as it was ranked, sizes.context 8, sizes.vocab 8: nlc train winner.yaml --task '{RECALL}'"
    short = "--steps", "1", "--device", "cpu", "--quiet"
    on_text = nlc("train", "winner.yaml", *short, "--set", "sizes.context=8", "--out", "on text")
    assert on_text.status == 0 and "bits per byte" in on_text.out
    on_task = nlc("train", "winner.yaml", *short, "--task", RECALL, "--out", "on task")
    assert on_task.status == 0 and "answers right" in on_task.out


def test_the_best_of_a_search_that_is_not_finished_says_so(
    searched: tuple[Path, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched[0] / "out", tmp_path / "out")
    assert best(tmp_path / "out", None, False) == 0 and capsys.readouterr().err == ""
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_text("".join(journal.read_text(encoding="utf-8").splitlines(keepends=True)[:6]), encoding="utf-8")
    assert best(tmp_path / "out", None, False) == 0
    assert "is not finished: 3 trials and 2 runs so far; t001 is the best of them" in capsys.readouterr().err


def test_another_search_is_not_mixed_into_a_folder(searched: tuple[Path, str, str], nlc: Run, tmp_path: Path) -> None:
    folder, _, _ = searched
    (tmp_path / "other.yaml").write_text(TINY.replace("steps: 4", "steps: 5"), encoding="utf-8")
    ended = nlc("search", "other.yaml", "--out", str(folder / "out"))
    assert ended.status == 2 and "holds another search (other budget, rungs)" in ended.err


def begun(folder: Path, text: str, name: str = "s.yaml") -> None:
    """The first line of a search that is in a file of its folder's parent."""
    (folder.parent / name).write_text(text, encoding="utf-8")
    search = load_search(str(folder.parent / name))
    texts = {name: found.digest for name, of in materials(search).items() if (found := of.hay or of.lessons)}
    with Journal.open(folder) as journal:
        begin(search, lessons(search), journal, texts)


def test_a_search_goes_on_with_the_same_texts_and_rules_only(tmp_path: Path) -> None:
    text = (
        "nlc: 1\nsearch: s\nbase: own/mine.yaml\naxes: {levels.train.rule: [mine2, adamw, other]}\ntasks: [text]\n"
        "data: a.txt\nbudget: {steps: 4}\n"
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text(
        "nlc: 1\nextends: linear_attention\nrules: {other: rules/o.yaml}\n", encoding="utf-8"
    )
    rules = {"own/rules/o.yaml": "other", "own/mine2.yaml": "mine2"}
    (tmp_path / "own" / "rules").mkdir()
    for path, name in rules.items():
        rule = f"nlc: 1\nrule: {name}\nlevels:\n  - {{every: 1 update, do: 'delta = -lr * grad'}}\n"
        (tmp_path / path).write_text(rule, encoding="utf-8")
    for name, word in (("a.txt", "some "), ("b.txt", "some "), ("c.txt", "more ")):
        (tmp_path / name).write_text(word * 5000, encoding="utf-8")
    folder = tmp_path / "out"
    for same in (text, text, text.replace("a.txt", "b.txt")):
        begun(folder, same)
    with pytest.raises(Stop, match="other texts"):
        begun(folder, text.replace("a.txt", "c.txt"))
    for path in rules:
        before = (tmp_path / path).read_text(encoding="utf-8")
        (tmp_path / path).write_text(before.replace("-lr", "-2 * lr"), encoding="utf-8")
        with pytest.raises(Stop, match="other files"):
            begun(folder, text)
        (tmp_path / path).write_text(before, encoding="utf-8")
    (first,) = read(folder)
    old = {key: value for key, value in first.items() if key not in ("texts", "files")}
    (folder / "journal.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    with pytest.raises(Stop, match="of an older nlc"):
        begun(folder, text)


def test_a_search_is_of_what_its_files_say_and_not_of_their_prose(tmp_path: Path) -> None:
    for number, path in enumerate(("x/y.yaml", "x-y.yaml")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        doc = f"{'Трансформер ' * 15} {number}, as notes.md says"
        (tmp_path / path).write_text(f"nlc: 1\nextends: linear_attention\ndoc: {doc!r}\n", encoding="utf-8")
    text = (
        "nlc: 1\nsearch: s\nbase: [x/y.yaml, x-y.yaml]\ntasks: [parity]\nbudget: {steps: 4}\n"
        "set: {levels.train.start: 'from(checkpoint:my weights+1, x=y)'}\n"
    )
    weights, notes, folder = tmp_path / "my weights+1", tmp_path / "notes.md", tmp_path / "out"
    weights.write_bytes(b"1")
    begun(folder, text)
    notes.write_text("new", encoding="utf-8")
    begun(folder, text)
    assert {path.name for path in (folder / "bases").iterdir()} == {"x%2Fy.yaml", "x-y.yaml"}
    weights.write_bytes(b"2")
    with pytest.raises(Stop, match="other files"):
        begun(folder, text)


def test_a_file_in_the_folder_of_a_new_search_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "out" / "search.yaml"
    mine.parent.mkdir()
    mine.write_text("nlc: 1\nsearch: mine\n", encoding="utf-8")
    with pytest.raises(Stop, match="is not of this search"):
        begun(tmp_path / "out", TINY)
    assert "mine" in mine.read_text(encoding="utf-8") and not lines(tmp_path / "out", "search")
    mine.write_text("\ufeff" + TINY, encoding="utf-8")
    begun(tmp_path / "out", TINY)
    assert lines(tmp_path / "out", "search")


def test_wrong_use_is_one_line(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text(TINY.replace("search: tiny", "search: ../tiny"), encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.jsonl").write_text('{"record": "search", "version": 2}\n', encoding="utf-8")
    for arguments, said in (
        (("search", "elsewhere.yaml"), "a search cannot be called '../tiny'"),
        (("search", "best", "other"), "line 1, is damaged (search.version: input should be 1)"),
        (("search", "which-rul"), "which-rule"),
        (("search", "best"), "nlc search best DIR"),
        (("search", "best", "nothing"), "'nothing' holds no search"),
        (("search", "which-rule", "x"), "--out"),
        (("search", "which-rule", "--out", "elsewhere.yaml"), "'elsewhere.yaml' is a file: a search has a folder"),
        (("search", "which-rule", "--address", "h:1"), "--on ray"),
    ):
        ended = nlc(*arguments)
        assert ended.status == 2 and said in ended.err and "Traceback" not in ended.err


def request(**changes: Any) -> Request:
    from nlc.show import yaml_text
    from nlc.spec import load

    small = {"sizes.width": 8, "sizes.heads": 2, "sizes.layers": 1, "run.batch": 4}
    text = yaml_text(load("linear_attention", small).resolved())
    task = load_task("mqar(pairs=1, context=8, vocab=8)").as_dict()
    sized = {"sizes.context": 8, "sizes.vocab": 8, "run.steps": 4, "run.warmup": 0}
    told: dict[str, Any] = {
        "name": "r", "text": text, "set": sized, "task": "recall", "facts": task, "data": None, "items": 8,
        "device": "cpu",
        "threads": 1, "seconds": 300.0, "memory_mib": 8192.0, "keep": False,
    }  # fmt: skip
    return Request(**{**told, **changes})


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"seconds": 0.2}, "overtime", "longer than 0.2 s"),
        ({"memory_mib": 20.0}, "overmemory", "20 are allowed"),
        ({"text": "nlc: 1\n"}, "crashed", "exit status 1"),
        ({"facts": {"name": "nothing"}}, "crashed", "does not describe a task"),
    ],
)
def test_a_run_that_is_ended_or_crashes_is_an_outcome(
    changes: dict[str, Any], status: str, said: str, tmp_path: Path
) -> None:
    outcome = alone(request(**changes), tmp_path / "run")
    assert outcome.status == status and said in outcome.error
    assert not (tmp_path / "run").exists()


def test_a_run_whose_data_is_gone_is_no_outcome_of_the_variant(tmp_path: Path) -> None:
    banking = load_task("banking77").as_dict()
    outcome = alone(request(facts=banking, data=str(tmp_path / "gone")), tmp_path / "run")
    assert outcome.status == "unable" and "gone" in outcome.error and "Traceback" not in outcome.error


def test_a_full_disk_is_no_outcome_of_the_variant_even_where_its_log_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(request: object, folder: object) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "request.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(variant, "follow", lambda parent: None)
    monkeypatch.setattr(variant, "learned", full)
    monkeypatch.setattr(variant, "note", full_log)
    assert variant.main([str(tmp_path), "1"]) == 4 and not (tmp_path / "outcome.json").exists()


def full_log(text: str) -> None:
    raise OSError(errno.ENOSPC, f"No space left on device: '{text}'")


def test_the_data_of_a_search_is_for_the_tasks_that_read_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some words\n" * 2000)
    outcome = alone(request(data=str(tmp_path / "text.txt")), tmp_path / "run")
    assert (outcome.status, outcome.error) == ("ok", "")


def test_a_run_whose_numbers_are_no_longer_finite_is_an_outcome(tmp_path: Path) -> None:
    wild = {"levels.train.rule": "gd(lr=1e30)", "run.steps": 20, "run.clip": 0.0}
    outcome = alone(request(set={**request().set, **wild}), tmp_path / "run")
    assert outcome.status == "not_finite" and "finite" in outcome.error


def test_a_run_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.e2e.test_searching import request\n"
        "from nlc.variants.local import Process\n"
        "one = Process.begin(request(set={**request().set, 'run.steps': 1000000}), Path(sys.argv[1]))\n"
        "print(one.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 120
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'nlc[search]'")
def test_ray_gives_the_same_table_and_a_killed_worker_costs_one_retry(
    searched: tuple[Path, str, str], tmp_path: Path
) -> None:
    whole, out, _ = searched
    process = command(tmp_path, "--on", "ray", "--jobs", "1")
    killed: list[int] = []

    def worker_killed() -> bool:
        """The process of a run is there: end the worker that started it."""
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"nlc.cli.variant" in words and any(b"nlc-search-" in word for word in words):
                parent = int(words[words.index(b"nlc.cli.variant") + 2])
                killed.append(parent)
                os.kill(parent, signal.SIGKILL)
                return True
        return False

    until(worker_killed, process)
    said, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    assert killed
    assert said == out
    assert (tmp_path / "out" / "leaderboard.json").read_bytes() == (whole / "out" / "leaderboard.json").read_bytes()
    assert sum(run["retries"] for run in lines(tmp_path / "out", "run")) == 1
