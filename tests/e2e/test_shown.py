"""What the documents show: every block of YAML is checked, every `nlc` command runs, in the order of its page.

A block that is part of a file says in a comment before it of what: `e2e: extends SPEC`, `e2e: rule`.  Commands run with
the smallest sizes, on the processor.  Pages that have tests of their own are left to them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from nlc.spec import shipped
from tests.e2e.command import ROOT, Run
from tests.unit.page.journals import folder, whole

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))}
BLOCK = re.compile(r"(?:<!-- e2e: (.*?) -->\n)?```yaml.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:    )?(nlc .*)$", re.MULTILINE)
ELSEWHERE = {
    "README.md": "test_documents",
    "commands.md": "test_help",
    "tutorial.md": "test_tutorial",
    "searches.md": "test_searching",
    "errors.md": "test_diagnostics: examples of what is refused",
}
BEGINS = {"rule": "nlc: 1\nrule: shown\nparams: {lr: 1.0}\n"}
NEEDS_A_RUN = "name: grown"  # test_from_a_transformer trains one

IN_ORDER, FEW = "class_incremental", "tasks=2, classes=2, shots=4"
SMALL = ["sizes.width=16", "sizes.heads=2", "sizes.layers=1", "sizes.context=32", "run.batch=2", "run.warmup=1"]
SETS = [word for setting in SMALL for word in ("--set", setting)]


def blocks() -> list[tuple[str, str]]:
    """(page:line, a whole file)"""
    found = []
    for page, text in PAGES.items():
        for match in BLOCK.finditer(text):
            part, block = match.groups()
            if NEEDS_A_RUN in block:
                continue
            if part is not None:
                block = BEGINS.get(part, f"nlc: 1\n{part.replace(' ', ': ', 1)}\nname: shown\n") + block
            found.append((f"{page}:{text.count(chr(10), 0, match.start()) + 1}", block))
    return found


def test_every_block_of_yaml_is_legal(nlc: Run, tmp_path: Path) -> None:
    """In one folder with the blocks that have a file's name, since one may use another."""
    for text in PAGES.values():
        for name, block in re.findall(r'^```yaml title="(.*?)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
            (tmp_path / name).write_text(block)
    shown = blocks()
    assert len(shown) > 30
    for place, block in shown:
        (tmp_path / "shown.yaml").write_text(block)
        ended = nlc("check", "shown.yaml")
        assert ended.status == 0, f"{place}: {ended.err}"


def commands(page: str) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in COMMAND.findall(PAGES[page])]


def small(words: list[str]) -> list[str]:
    """The same command in seconds."""
    given = {
        "--device": "cpu",
        "--steps": "2",
        "--tokens": "5",
        "--processes": "2",
        "--step": "1",
        "--vocab": "300",
        "--items": "2",
    }
    words = [given.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    words = [word.replace("sizes.vocab=4096", "sizes.vocab=300") for word in words]
    sizes = [word for s in SMALL if "context" not in s for word in ("--set", s)]
    match words[0]:
        case "train" if "--resume" not in words:
            few = [] if "--steps" in words or IN_ORDER in words else ["--steps", "2"]
            if "--task" in words:
                return [*(f"{word}({FEW})" if word == IN_ORDER else word for word in words), *few, *sizes]
            return [*words, *few, *([] if "--data" in words else ["--data", "text.txt"]), *SETS]
        case "continual":
            return [*words, "--task", f"{IN_ORDER}({FEW})", "--items", "2", *sizes]
        case "verify":
            return [*words, "--chunk", "16", "--set", "sizes.width=16", "--set", "sizes.layers=1"]
    return words


def made_before(nlc: Run, page: str) -> None:
    """The files, runs and searches that a page takes for granted; a run that it replays has diverged, at its second
    step."""
    stories = PAGES["language.md"].split("\n\n")
    Path("stories.jsonl").write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    for name in ("text.txt", "notes.txt", "more.txt"):
        Path(name).write_text("\n".join(stories)[:4000])
    shown = " ".join(COMMAND.findall(PAGES[page]))
    for search in set(re.findall(r"report (searches/\w+)", shown)):
        folder(Path(search), whole())
    for run in sorted(set(re.findall(r"runs/(\w+)", shown)) - set(re.findall(r"--name (\w+)", shown))):
        diverges = f"replay runs/{run}" in shown
        more = ["--checkpoint-every", "1", "--set", "levels.train.rule=adamw(lr=1e30)"] if diverges else []
        spec = run if run in shipped() else "hope"
        ended = nlc(*small(["train", spec, "--name", run, *more]))
        assert ended.status == diverges, ended.err


@pytest.mark.parametrize("page", sorted({p for p in PAGES if COMMAND.search(PAGES[p])} - set(ELSEWHERE)))
def test_the_commands_of_a_page_run(nlc: Run, page: str) -> None:
    made_before(nlc, page)
    for words in commands(page):
        ended = nlc(*small(words))
        assert ended.status == 0, (page, words, ended.out[-2000:], ended.err)


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, text in PAGES.items():
        assert set(re.findall(r"^    make (\w+)", text, re.MULTILINE)) <= targets, page
