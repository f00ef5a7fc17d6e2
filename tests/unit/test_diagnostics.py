"""Diagnostics: collected, in file order, once each, drawn with a caret; every code explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nlc
from nlc.diagnostics import CODES, CompilerBug, Diagnostic, Reporter, SpecError, explain, suggest
from nlc.source import Position, remember

RULES = ["adamw", "dgd", "gd", "momentum"]


def test_drawn_as_the_language_says() -> None:
    remember("d.yaml", "a: 1\n    rule: dgdd\n")
    at = Position("d.yaml", 2, 11, 4)
    message = "level 'titans': unknown update rule 'dgdd'"
    drawn = str(Diagnostic("NLC0402", at, message, hint=suggest("dgdd", RULES, "rules"), note="and more\nto say"))
    assert drawn == (
        "d.yaml:2:11: error: level 'titans': unknown update rule 'dgdd' [NLC0402]\n"
        "    2 |     rule: dgdd\n"
        "      |           ^^^^ did you mean 'dgd'? rules: adamw, dgd, gd, momentum\n"
        "      | and more\n"
        "      | to say"
    )


def test_a_whole_file_has_no_line() -> None:
    assert (
        str(Diagnostic("NLC0104", Position("e.yaml", 0, 0), "the file is empty"))
        == "e.yaml: error: the file is empty [NLC0104]"
    )


def test_long_lines_and_control_characters_are_made_harmless() -> None:
    remember("l.yaml", "x" * 500 + "\x1b[31m!" + "y" * 500)
    lines = str(Diagnostic("NLC0301", Position("l.yaml", 1, 506, 3), "here")).splitlines()
    assert max(map(len, lines)) < 140 and "\x1b" not in lines[1]
    assert lines[1][lines[2].index("^")] == "!"


def test_all_in_file_order_once_each() -> None:
    remember("one.yaml", "a")
    remember("two.yaml", "b")
    report = Reporter()
    for file, line in (("two.yaml", 1), ("one.yaml", 9), ("one.yaml", 2), ("one.yaml", 9)):
        report.error("NLC0201", Position(file, line, 1), "m")
    with pytest.raises(SpecError) as error:
        report.check()
    assert [(d.at.file, d.at.line) for d in error.value.diagnostics] == [
        ("one.yaml", 2),
        ("one.yaml", 9),
        ("two.yaml", 1),
    ]
    assert str(error.value).count("error:") == 3


def test_nothing_reported_is_no_error() -> None:
    Reporter().check()


@pytest.mark.parametrize(
    ("word", "choices", "kind", "text"),
    [
        ("dgdd", RULES, "rules", "did you mean 'dgd'? rules: adamw, dgd, gd, momentum"),
        ("DGD", RULES, "", "did you mean 'dgd'?"),
        ("zzz", ["b", "a"], "", "one of: a, b"),
        ("zzz", [], "rules", ""),
        ("r0", [f"r{i}" for i in range(30)], "rules", None),
    ],
)
def test_suggestions(word: str, choices: list[str], kind: str, text: str | None) -> None:
    said = suggest(word, choices, kind)
    assert said == text if text is not None else said.endswith(", ...")


def test_an_unknown_code_is_our_bug() -> None:
    with pytest.raises(CompilerBug):
        Diagnostic("NLC9999", Position("d.yaml", 1, 1), "m")


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code: str) -> None:
    entry = CODES[code]
    assert entry.title and entry.example and entry.explanation.endswith(".")
    assert explain(code).startswith(f"{code}: {entry.title}")


def test_every_code_is_used_and_every_used_code_exists() -> None:
    root = Path(nlc.__file__).parent
    used = {c for p in root.rglob("*.py") if p.name != "codes.py" for c in re.findall(r"\"(NLC\d{4})\"", p.read_text())}
    assert used <= set(CODES)
    assert set(CODES) <= used
