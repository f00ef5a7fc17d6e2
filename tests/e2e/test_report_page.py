"""nlc report: runs that were trained, cut short or diverged, alone and compared; and the page in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.command import Run

TINY = ["sizes.width=32", "sizes.heads=2", "sizes.layers=1", "sizes.context=64", "run.batch=2", "run.warmup=2"]
SMALL = [word for setting in TINY for word in ("--set", setting)]
FAST = ["--set", "levels.titans.chunk=16", "--set", "levels.cms.memories.fast.every=16 tokens"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/hope and runs/transformer, twelve steps each."""
    from nlc.cli import main

    folder = tmp_path_factory.mktemp("report")
    (folder / "text.txt").write_text("what is written once is read many times; " * 400)
    for spec, more in (("hope", FAST), ("transformer", [])):
        out = str(folder / "runs" / spec)
        arguments = ["train", spec, "--steps", "12", "--data", str(folder / "text.txt"), "-o", out, "--quiet"]
        assert main([*arguments, *SMALL, *more]) == 0
    return folder


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlc.cli import reporting

    monkeypatch.setattr(reporting, "WRITTEN", 24)


def copied(runs: Path, tmp_path: Path, spec: str = "hope") -> Path:
    return Path(shutil.copytree(runs / "runs" / spec, tmp_path / spec))


def test_a_run_ends_with_its_page(runs: Path) -> None:
    page = (runs / "runs/hope/report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "finished 12 steps" in page
    assert "nlc report" in page and 'class="prompt"' not in page


def test_report_adds_samples_and_says_where_the_page_is(nlc: Run, runs: Path, tmp_path: Path) -> None:
    run = copied(runs, tmp_path)
    ended = nlc("report", str(run))
    assert (ended.status, ended.out) == (0, "") and ended.err == f"wrote {run / 'report.html'}\n"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('class="prompt"') == 3 and "From step-000012" in page
    assert nlc("report", str(run), "-o", "elsewhere.html", "--no-samples").status == 0
    assert (tmp_path / "elsewhere.html").is_file()


def test_samples_are_the_same_every_time(nlc: Run, runs: Path) -> None:
    once, again = (json.loads(nlc("report", str(runs / "runs/hope"), "--json").out) for _ in range(2))
    samples = once["runs"][0]["samples"]
    assert samples == again["runs"][0]["samples"] and samples[0]["how"] == "greedy"
    assert all(len(s["text"]) > 8 for s in samples)


def test_two_runs_are_compared_in_one_page(nlc: Run, runs: Path, tmp_path: Path) -> None:
    found = [str(copied(runs, tmp_path, spec)) for spec in ("hope", "transformer")]
    assert nlc("report", *found, "--no-samples").status == 0
    page = (tmp_path / "hope" / "compared.html").read_text(encoding="utf-8")
    assert "hope and transformer" in page and "Where the specs differ" in page
    data = json.loads(nlc("report", *found, "--no-samples", "--json").out)
    assert [run["name"] for run in data["runs"]] == ["hope", "transformer"]
    assert {"key": "levels.train.rule", "hope": "adamw(lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)",
            "transformer": "adamw(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)"} in data["differences"]  # fmt: skip


def test_rows_of_hope_say_what_the_conventions_name(nlc: Run, runs: Path) -> None:
    (run,) = json.loads(nlc("report", str(runs / "runs/hope"), "--no-samples", "--json").out)["runs"]
    for name in ("titans", "cms.fast"):
        assert {f"level/{name}/{kind}" for kind in ("fires", "update", "rate")} <= set(run["curves"])
    assert {"level/titans/retain", "memory/titans.key/norm", "memory/titans.key/surprise"} <= set(run["curves"])


def harmed(run: Path, how: str) -> None:
    match how:
        case "no checkpoint":
            shutil.rmtree(run / "checkpoints")
        case "no metrics":
            (run / "metrics.jsonl").unlink()
        case "empty metrics":
            (run / "metrics.jsonl").write_text("")
        case "one row":
            (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n")
        case "damaged row":
            first, _, rest = (run / "metrics.jsonl").read_text().partition("\n")
            (run / "metrics.jsonl").write_text(f"{first}\n{{broken\n{rest}")
        case "cut row":
            (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text()[:-20])
        case "no spec":
            (run / "resolved.yaml").unlink()
        case "illegal spec":
            (run / "resolved.yaml").write_text("nlc: 1\nname: broken\n")
        case "no code":
            shutil.rmtree(run / "code")
        case "another program":
            (run / "code" / "model.py").write_text("from runtime.model import nothing_of_that_name\n")
        case "data gone":
            lock = json.loads((run / "lock.json").read_text())
            lock["data"]["path"] = "/nowhere/text.txt"
            (run / "lock.json").write_text(json.dumps(lock))


HARMS = {
    "no checkpoint": "no whole checkpoint", "no metrics": "metrics.jsonl cannot be read",
    "empty metrics": "ended before its first row", "one row": "stopped after step 1 of 12", "cut row": "hope",
    "damaged row": "metrics.jsonl:2 is damaged (not JSON) and left out", "no spec": "no resolved.yaml",
    "illegal spec": "not a legal spec", "no code": "not a generated package",
    "another program": "does not go with this nlc", "data gone": "/nowhere/text.txt",
}  # fmt: skip


@pytest.mark.parametrize("how", HARMS, ids=list(HARMS))
def test_a_run_that_lacks_something_has_a_page_that_says_so(nlc: Run, runs: Path, tmp_path: Path, how: str) -> None:
    run = copied(runs, tmp_path)
    harmed(run, how)
    ended = nlc("report", str(run))
    assert ended.status == 0, ended.err
    assert HARMS[how] in (run / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_damaged_rows_are_named_on_the_terminal_too(nlc: Run, runs: Path, tmp_path: Path) -> None:
    run = copied(runs, tmp_path)
    harmed(run, "damaged row")
    ended = nlc("report", str(run), "--no-samples")
    place = run / "metrics.jsonl"
    named = f"warning: {place}:2 is damaged (not JSON) and left out\n"
    assert (ended.status, ended.err) == (0, f"{named}wrote {run / 'report.html'}\n")
    place.write_text(place.read_text() + "{broken\n" * 1005)
    said = nlc("report", str(run), "--no-samples", "--json").err.splitlines()
    assert len(said) == 6 and said[-1] == f"warning: 1,001 more rows of {place} are damaged and left out"
    place.unlink()
    said = nlc("report", str(run), "--no-samples", "--json").err
    assert said == f"warning: {place} cannot be read: No such file or directory\n"


def test_what_is_no_run_is_refused(nlc: Run, tmp_path: Path) -> None:
    for arguments, message in (
        (["nowhere"], "no such run directory: 'nowhere'"),
        (["."], "'.' is not a run directory: it has no lock.json"),
    ):
        ended = nlc("report", *arguments)
        assert (ended.status, ended.out) == (2, "") and message in ended.err
    assert nlc("report").status == 2


def test_a_page_that_cannot_be_written_is_status_4(nlc: Run, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = nlc("report", str(runs / "runs/hope"), "--no-samples", "-o", "file/below.html")
    assert ended.status == 4 and "below.html" in ended.err


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    yield from browser.browser()


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from nlc.cli import main, reporting

    folder, found = tmp_path_factory.mktemp("pages"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "WRITTEN", 48)
        for name, chosen in {"hope": ["hope"], "transformer": ["transformer"], "both": ["hope", "transformer"]}.items():
            found[name] = folder / f"{name}.html"
            assert main(["report", *(str(runs / "runs" / spec) for spec in chosen), "-o", str(found[name])]) == 0
    return found


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["hope", "transformer", "both"])
def test_the_page_is_readable_in_light_and_dark(opened: Any, pages: dict[str, Path], name: str, width: int) -> None:
    page = browser.shown(opened, pages[name], width)
    assert len(page.texts) > 150 and page.paper == "rgb(251, 251, 250)"
    assert page.overflow == 0 and page.outside() == []
    assert page.touching() == [] and page.pale(4.5) == [] and page.squeezed() == []
    page.darken()
    assert page.paper == "rgb(15, 20, 32)" and page.pale(4.5) == [] and page.touching() == []
    assert page.said == []
