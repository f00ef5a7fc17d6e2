"""docs/tutorial.md: its files and commands as they stand.  What it writes is new, compiles, agrees and learns.

Appended for time: verify at one chunk length, train at the smallest sizes on a text that a few steps learn."""

from __future__ import annotations

import json
import re
import shlex
from math import log
from pathlib import Path

import pytest

from nlc.spec import rules, shipped
from tests.e2e.command import ROOT, Run

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILES = dict(re.findall(r'^```yaml title="(.*?)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL))
SMALL = [
    word
    for setting in ("sizes.width=16", "sizes.layers=1", "sizes.context=32", "run.batch=2", "run.warmup=1")
    for word in ("--set", setting)
]
STEPS = 25


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "text.txt").write_text("what is written once is read many times; " * 200)
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_runs_as_typed(nlc: Run, written: Path, section: str) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert {words[1] for words in commands} >= {"check", "verify", "train"}
    for program, command, *words in commands:
        assert program == "nlc"
        if command == "train":
            learns(nlc, words)
            continue
        fewer = (
            ["--chunk", "16", "--set", "sizes.layers=1"] if command == "verify" and words != ["adabelief.yaml"] else []
        )
        ended = nlc(command, *words, *fewer)
        assert ended.status == 0, (command, words, ended.out, ended.err)


def learns(nlc: Run, words: list[str]) -> None:
    spec, name = words[0], words[words.index("--name") + 1]
    few = [spec, "--steps", str(STEPS), "--name", name, "--data", "text.txt", "--json", *SMALL]
    ended = nlc("train", *few)
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["steps"] == STEPS and found["val_loss"] < log(256) - 0.5


def test_what_it_writes_is_shipped_nowhere() -> None:
    names = [path.removesuffix(".yaml") for path in FILES]
    assert len(names) == 5 and not set(names) & {*rules(), *shipped()}
    shelf = "".join(path.read_text() for path in (ROOT / "specs").rglob("*.yaml"))
    for new in ("relu(W_in @ x) ** 2", "log(1 + (M - v) ** 2)", "(grad - m) ** 2"):
        assert new in PAGE and new not in shelf


def test_a_section_is_under_a_page() -> None:
    for title, text in SECTIONS.items():
        assert len(text.splitlines()) <= 60, title
