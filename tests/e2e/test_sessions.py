"""generate and state, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, Run
from tests.e2e.test_running import SMALL

QUICK = ["--tokens", "6"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and runs/first, a tiny hope after two steps."""
    from nlc.cli import main

    folder = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("text.txt").write_text("what is written once is read many times; " * 400)
        assert main(["train", "hope", "--steps", "2", "--data", "text.txt", "--name", "first", "--quiet", *SMALL]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def first(runs: Path) -> str:
    return str(runs / "runs" / "first")


def test_generate_goes_on_with_a_prompt(nlc: Run, first: str) -> None:
    ended = nlc("generate", first, "what is", *QUICK, "--temperature", "0.8", "--top-k", "20", "--top-p", "0.9")
    assert ended.status == 0 and ended.out
    assert "6 tokens (" in ended.err and "learns: titans, cms.fast, cms.mid; 13 tokens read" in ended.err
    again = nlc("generate", first, "what is", *QUICK, "--temperature", "0.8", "--top-k", "20", "--top-p", "0.9")
    assert again.out == ended.out
    other = nlc("generate", first, "what is", "--tokens", "40", "--seed", "1")
    assert other.out != nlc("generate", first, "what is", "--tokens", "40").out


def test_a_seed_that_no_generator_takes_is_refused(nlc: Run) -> None:
    ended = nlc("generate", "nowhere", "hi", "--seed", "99999999999999999999999")
    assert (ended.status, ended.out) == (2, "") and "'--seed'" in ended.err and ended.err.count("\n") == 1


def test_generate_says_everything_as_json(nlc: Run, first: str) -> None:
    facts = json.loads(nlc("generate", first, "what is", *QUICK, "--temperature", "0", "--json").out)
    assert len(facts["tokens"]) == 6 and facts["prompt_tokens"] == 7 and facts["tokens_read"] == 13
    assert bytes(facts["tokens"]).decode("utf-8", "replace") == facts["text"]
    assert 0 < facts["prompt_bits_per_token"] < 20 and facts["tokens_per_s"] > 0


def test_a_prompt_comes_from_a_file_or_standard_input(nlc: Run, process: Run, first: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"what is")
    said = nlc("generate", first, "what is", *QUICK).out
    assert nlc("generate", first, "--prompt-file", "prompt.txt", *QUICK).out == said
    assert process("generate", first, "-", *QUICK, stdin="what is").out == said
    both = nlc("generate", first, "what is", "--prompt-file", "prompt.txt")
    assert both.status == 2 and "give one" in both.err
    assert nlc("generate", first, "--prompt-file", "nowhere.txt").status == 4


def test_a_stream_in_two_commands_is_the_stream_in_one(nlc: Run, first: str) -> None:
    whole = json.loads(nlc("generate", first, "what is", "--tokens", "9", "--json").out)
    one = json.loads(nlc("generate", first, "what is", "--tokens", "4", "--save-state", "s", "--json").out)
    two = json.loads(nlc("generate", first, "--state", "s", "--tokens", "5", "--json").out)
    assert one["state"] == "s" and one["tokens"] + two["tokens"] == whole["tokens"]
    assert two["tokens_read"] == whole["tokens_read"] == 16


@pytest.mark.parametrize(("learn", "levels"), [("off", []), ("titans", ["titans"]), ("cms", ["cms.fast", "cms.mid"])])
def test_levels_learn_as_told(nlc: Run, first: str, learn: str, levels: list[str]) -> None:
    assert json.loads(nlc("generate", first, "x", *QUICK, "--learn", learn, "--json").out)["learn"] == levels


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--learn", "titan"], "did you mean 'titans'?"),
        (["--temperature", "-1"], "temperature -1"),
        (["--top-p", "0"], "top_p 0"),
        (["--state", "nowhere"], "no saved state at 'nowhere'"),
        (["--weights", "w.safetensors"], "--weights is for a package"),
    ],
)
def test_a_wrong_option_is_one_line(nlc: Run, first: str, options: list[str], said: str) -> None:
    ended = nlc("generate", first, "x", *options)
    assert ended.status in (2, 4) and ended.out == ""
    assert said in ended.err and ended.err.count("\n") == 1


def test_a_package_is_used_with_a_file_of_weights(nlc: Run, first: str) -> None:
    weights = f"{first}/checkpoints/step-000002"
    said = nlc("generate", first, "what is", *QUICK).out
    assert nlc("generate", f"{first}/code", "what is", *QUICK, "--weights", weights).out == said
    missing = nlc("generate", f"{first}/code", "what is")
    assert missing.status == 2 and "package without weights: say --weights" in missing.err
    assert nlc("generate", f"{first}/code", "x", "--weights", "nowhere.safetensors").status == 4
    assert nlc("generate", "nowhere", "x").status == 2


def test_a_tokenizer_of_a_run_is_used(nlc: Run, runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    text = str(runs / "text.txt")
    assert nlc("tokenizer", "train", "--data", text, "--vocab", "270", "-o", "t.json").status == 0
    sets = [*SMALL, "--set", "sizes.vocab=270"]
    train = nlc("train", "titans_lmm", "--steps", "1", "--data", text, "--tokenizer", "t.json", "--out", "r", *sets)
    assert train.status == 0, train.err
    facts = json.loads(nlc("generate", "r", "what is", *QUICK, "--json").out)
    assert facts["prompt_tokens"] < 7 and len(facts["tokens"]) == 6
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    bad = nlc("generate", "r", "--prompt-file", "latin")
    assert bad.status == 4 and "latin: byte 0xe9 at offset 3 is not UTF-8" in bad.err


def test_a_text_becomes_a_state_that_is_looked_at_copied_and_gone_on_from(nlc: Run, first: str, runs: Path) -> None:
    text = str(runs / "text.txt")
    ended = nlc("state", "save", first, "--text", text, "-o", "a", "--learn", "on")
    assert ended.status == 0 and "16,400 tokens read" in ended.out and "state in a" in ended.out, ended.err
    shown = nlc("state", "inspect", "a").out
    for part in ("16,400 tokens read by hope", "bits a token", "titans.key", "cms.mid", "from start", "pending"):
        assert part in shown
    facts = json.loads(nlc("state", "inspect", "a", "--json").out)
    assert 1024 < facts["bytes"] < 1 << 20 and f"{facts['bytes'] / 1024:,.1f} KiB" in shown  # no "0.00 MiB"
    assert facts["tokens"] == 16_400 and facts["memories"]["titans.memory"]["distance"] > 0
    assert nlc("state", "fork", "a", "b").status == 0
    assert "b fits" in nlc("state", "load", "b", first).out
    later = json.loads(nlc("state", "load", "b", first, "--text", text, "-o", "c", "--json").out)
    assert later["tokens"] == 32_800 and later["read"] == 16_400
    changed = nlc("state", "diff", "a", "c")
    assert changed.status == 0 and "a (16,400 tokens) -> c (32,800 tokens)" in changed.out
    memories = json.loads(nlc("state", "diff", "a", "b", "--json").out)["memories"]
    assert memories and all(memory["difference"] == 0 for memory in memories.values())


def test_a_state_of_another_model_is_refused(nlc: Run, first: str, runs: Path) -> None:
    assert nlc("generate", first, "x", "--tokens", "0", "--save-state", "a").status == 0
    sets = ["train", "hope_attention", "--steps", "1", "--data", str(runs / "text.txt"), "--out", "r", "--quiet"]
    assert nlc(*sets, *SMALL).status == 0
    for command in (["state", "load", "a", "r"], ["generate", "r", "x", "--state", "a"]):
        ended = nlc(*command)
        assert ended.status == 2 and ended.out == ""
        for part in ("another model", "graph: ", "weights: ", "memory titans.key M: (2, 16, 16) -> nothing"):
            assert part in ended.err
    assert nlc("generate", "r", "x", "--tokens", "0", "--save-state", "b").status == 0
    assert "states of two programs" in nlc("state", "diff", "a", "b").err
    assert nlc("state", "inspect", "r/checkpoints/step-000001").err.startswith("nlc: 'r/checkpoints/step-000001' is a ")


def test_the_reader_may_leave(first: str, tmp_path: Path) -> None:
    generate = f"'{sys.executable}' -m nlc generate '{first}' x --tokens 2000 --save-state s"
    command = f"{generate} | head -c 3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, timeout=240)
    assert done.stdout[-2:] == b"0\n" and b"Traceback" not in done.stderr
    assert (tmp_path / "s" / "session.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_saving(first: str, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["generate", first, "x", "--tokens", "1000000", "--save-state", "s"]
    child = subprocess.Popen(
        [sys.executable, "-m", "nlc", *arguments], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.read(1)  # it generates
    time.sleep(0.2)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + number and f"stopped by {number.name}; state in s".encode() in err
    assert json.loads((tmp_path / "s" / "session.json").read_text())["tokens"] > 1


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_what_is_no_saved_state_is_said(nlc: Run, first: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, message in ((first, "is a run, not a saved state"), ("file", "is a file, not a folder")):
        ended = nlc("state", "inspect", place)
        assert ended.status in (2, 4) and message in ended.err and ended.err.count("\n") == 1
    ended = nlc("generate", "file", "hi")
    assert (ended.status, ended.err) == (2, "nlc: 'file' is a file, not a run directory\n")


def test_a_checkpoint_is_found_from_inside_of_it(nlc: Run, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(first) / "checkpoints" / "step-000002")
    ended = nlc("generate", ".", "what is", *QUICK)
    assert ended.status == 0 and "6 tokens (" in ended.err


def test_no_state_is_kept_inside_of_another(nlc: Run, first: str, runs: Path, tmp_path: Path) -> None:
    """It would go when the other is replaced."""
    text = str(runs / "text.txt")
    (tmp_path / "short.txt").write_text("what is written once")
    assert nlc("state", "save", first, "--text", "short.txt", "-o", "st").status == 0
    for words in (["state", "fork", "st", "st/a/in"], ["state", "save", first, "--text", text, "-o", "st/a/in"]):
        ended = nlc(*words)
        assert ended.status == 2 and "is inside of the saved state" in ended.err
    assert not (tmp_path / "st" / "a").exists()


def test_a_difference_of_states_says_their_surprise(nlc: Run, first: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("what is written once")
    assert nlc("state", "save", first, "--text", "short.txt", "-o", "st").status == 0
    assert nlc("state", "load", "st", first, "--text", "short.txt", "-o", "more").status == 0
    facts = json.loads(nlc("state", "diff", "st", "more", "--json").out)
    assert 0 < facts["before"]["bits_per_token"] < 20 and facts["after"]["last_bits_per_token"] > 0
    said = nlc("state", "diff", "st", "more").out
    assert f"surprise  {facts['before']['bits_per_token']:.4g} -> {facts['after']['bits_per_token']:.4g} bits" in said


def test_speed_is_that_of_what_is_generated(nlc: Run, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before a document is read before the clock starts."""
    from runtime.session import Session

    order: list[str] = []
    clock, begin = time.perf_counter, Session.begin
    monkeypatch.setattr(time, "perf_counter", lambda: (order.append("clock"), clock())[1])
    monkeypatch.setattr(Session, "begin", lambda self: (order.append("begin"), begin(self))[1])
    assert nlc("generate", first, "--tokens", "2").status == 0
    assert order.index("begin") < order.index("clock")
