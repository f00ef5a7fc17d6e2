"""nlc report on the folder of a search: HTML, Markdown, data; damaged journals; the page in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.command import Run
from tests.unit.page.journals import Line, failed, folder, head, run, trial, whole


def crashes() -> list[Line]:
    lines = [head(), trial(1, {}), failed("t001", "crashed", "RuntimeError: " + "a long reason " * 40)]
    return [*lines, {"record": "end", "winner": None}]


SEARCHES = {
    "whole": whole,
    "crashes": crashes,
    "one": lambda: [head(axes={}), trial(1, {}), run("t001")],
    "begun": lambda: [head()],
}


def test_one_argument_gives_html_markdown_or_data(nlc: Run, tmp_path: Path) -> None:
    place = folder(tmp_path / "s", whole())
    ended = nlc("report", str(place))
    assert (ended.status, ended.out, ended.err) == (0, "", f"wrote {place / 'report.html'}\n")
    data = json.loads(nlc("report", str(place), "--json").out)
    text = nlc("report", str(place), "--markdown").out
    page = (place / "report.html").read_text(encoding="utf-8")
    assert data["winner"] == "t010" and text.startswith("# which-rule\n") and page.startswith("<!doctype html>")
    assert nlc("report", str(place), "--markdown", "-o", "s.md").status == 0
    assert (tmp_path / "s.md").read_text(encoding="utf-8") == text


def test_the_same_journal_gives_the_same_bytes(nlc: Run, tmp_path: Path) -> None:
    place = folder(tmp_path / "s", whole())
    nlc("report", str(place), "-o", "a.html")
    nlc("report", str(place), "-o", "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def without(line: Line, key: str) -> str:
    return json.dumps({name: value for name, value in line.items() if name != key})


def test_a_damaged_line_is_named_and_the_rest_is_told(nlc: Run, tmp_path: Path) -> None:
    place = folder(tmp_path / "s", whole())
    journal = place / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[2] = "{broken"
    lines[3] = without(json.loads(lines[3]), "base")
    lines[8] = json.dumps({**json.loads(lines[8]), "scores": {"recall.accuracy": float("nan")}})
    journal.write_text("\n".join(lines) + '\n{"record": "ru')
    ended = nlc("report", str(place))
    assert ended.status == 0
    named = [
        "journal.jsonl:3 is damaged (not JSON), and left out",
        "journal.jsonl:4 is damaged (trial.base: field required), and left out",
        "journal.jsonl:9 is damaged (run.scores.recall.accuracy: input should be a finite number), and left out",
        "journal.jsonl ends within a line, and left out",
    ]
    assert ended.err.splitlines() == [*(f"warning: {place}/{text}" for text in named), f"wrote {place / 'report.html'}"]
    page = (place / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in named)
    journal.write_text(journal.read_text() + "x\n" * 1000)
    assert nlc("report", str(place), "--json").err.splitlines()[-1].endswith("more lines are damaged, and left out")


@pytest.mark.parametrize(
    ("journal", "message"),
    [
        ("", "cannot be reported: journal.jsonl has no line"),
        ('{"rec', "cannot be reported: journal.jsonl ends within a line"),
        ("{broken}\n", "cannot be reported: journal.jsonl:1 is damaged (not JSON)"),
        ('{"record": "search"}\n', "cannot be reported: journal.jsonl:1 is damaged (search.tasks: field required)"),
        ('{"record": "mutation"}\n', "cannot be reported: journal.jsonl:1 is damaged (no known record)"),
    ],
)
def test_a_journal_that_tells_of_no_search_is_refused_in_one_line(
    nlc: Run, tmp_path: Path, journal: str, message: str
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "journal.jsonl").write_text(journal)
    ended = nlc("report", "s")
    assert (ended.status, ended.out) == (2, "") and ended.err.count("\n") == 1
    assert f"'s' {message}" in ended.err


def test_what_is_no_search_is_refused(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "s", [head()], texts=False)
    for arguments, message in (
        (["empty"], "it has no lock.json, and no search's: it has no journal.jsonl"),
        (["empty", "--markdown"], "--markdown is for the folder of a search: 'empty' has no journal.jsonl"),
        (["s", "empty"], "'s' is the folder of a search, which is reported by itself: nlc report s"),
        (["nowhere"], "no such run directory: 'nowhere'"),
    ):
        ended = nlc("report", *arguments)
        assert (ended.status, ended.out) == (2, "") and message in ended.err and ended.err.count("\n") == 1


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    yield from browser.browser()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", list(SEARCHES))
def test_the_page_is_readable_in_light_and_dark(opened: Any, nlc: Run, tmp_path: Path, name: str, width: int) -> None:
    place = folder(tmp_path / name, SEARCHES[name](), texts=name == "whole")
    assert nlc("report", str(place)).status == 0
    page = browser.shown(opened, place / "report.html", width)
    page.open_all()
    assert page.paper == "rgb(251, 251, 250)" and page.overflow == 0 and page.outside() == []
    assert page.touching() == [] and page.pale(4.5) == [] and page.squeezed() == []
    page.darken()
    assert page.paper == "rgb(15, 20, 32)" and page.pale(4.5) == [] and page.touching() == []
    assert page.said == []
