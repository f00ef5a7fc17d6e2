"""The documents: the README's commands as typed, generated pages up to date, every code and field documented."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nlc.diagnostics import CODES
from tests.e2e.command import ROOT, SHIPPED, Run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def tour() -> list[str]:
    block = re.search(r"<!-- e2e: tour -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return [line.split("#")[0].strip() for line in block.group(1).splitlines()]


SLOW = ("nlc verify",)  # nlc verify runs for every spec in tests/differential


@pytest.mark.timeout(600)
def test_the_tour_runs_as_typed(nlc: Run) -> None:
    """In order and in one folder, since a later line uses what an earlier one made."""
    commands = tour()
    assert len(commands) == 10
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "nlc"
        if not command.startswith(SLOW):
            ended = nlc(*arguments)
            assert ended.status == 0, (command, ended.err)


def test_the_readme_lists_every_shipped_spec() -> None:
    assert sorted(re.findall(r"\[`(\w+)`\]\(specs/architectures/\1\.yaml\)", README)) == SHIPPED


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_generated_pages_are_up_to_date() -> None:
    import runpy

    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
    for path, text in pages.items():
        assert Path(path).read_text(encoding="utf-8") == text(), f"{path} is out of date: run `make docs`"


def test_every_code_is_documented() -> None:
    for code, entry in CODES.items():
        assert re.fullmatch(r"NLC\d{4}", code)
        assert entry.title and entry.explanation and entry.example


def test_the_architecture_page_lists_the_passes_in_order() -> None:
    from nlc.passes import PASSES

    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Passes")[1].split("###")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [name for name, *_ in PASSES]


def test_the_language_page_says_every_field() -> None:
    from nlc.spec import Architecture, Fields

    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    for word in [*Architecture.model_fields, *Fields.model_fields]:
        assert f"`{word}" in page, word
