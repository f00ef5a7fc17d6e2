"""What a shell offers after TAB."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlc.cli import completion
from tests.e2e.command import SHIPPED, Run


@pytest.mark.parametrize("words", ["nlc check ho", "nlc train ho", "nlc init mine.yaml --from ho", "nlc diff hope ho"])
def test_a_shell_completes_names_of_specs(process: Run, words: str) -> None:
    asked = {"_NLC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert process(**asked).out.split() == [name for name in SHIPPED if name.startswith("ho")]


def test_paths_of_specs_and_folders_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "inner").mkdir(parents=True)
    for name in ("mine.yaml", "my/own.yml", "my/notes.txt", ".hidden.yaml"):
        (tmp_path / name).write_text("")
    assert [name for name in completion.specs("m") if name not in SHIPPED] == ["my/", "mine.yaml"]
    assert completion.specs("my/") == ["my/inner/", "my/own.yml"]
    assert completion.specs("nowhere/") == []
