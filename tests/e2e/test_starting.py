"""init, diff, doctor: a spec of one's own from a shipped one, two specs compared, a machine looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command import SHIPPED, Run


@pytest.mark.parametrize("spec", SHIPPED)
@pytest.mark.parametrize("how", [(), ("--extends",)])
def test_init_writes_a_spec_that_computes_the_same(nlc: Run, spec: str, how: tuple[str, ...], tmp_path: Path) -> None:
    ended = nlc("init", "my-own.yaml", "--from", spec, *how)
    assert (ended.status, ended.out) == (0, "nlc check my-own.yaml\n")
    text = (tmp_path / "my-own.yaml").read_text()
    assert "name: my_own\n" in text and text.startswith("# yaml-language-server: $schema=file://")
    assert nlc("check", "my-own.yaml").status == 0
    assert json.loads(nlc("diff", spec, "my-own.yaml", "--json").out)["keys"] == []


def test_init_overwrites_nothing(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("nlc: 1\n")
    ended = nlc("init", "mine.yaml")
    assert (ended.status, ended.out) == (2, "") and "already there" in ended.err
    assert (tmp_path / "mine.yaml").read_text() == "nlc: 1\n"
    assert nlc("init", "mine.txt").status == 2
    assert "did you mean 'hope'" in nlc("init", "other.yaml", "--from", "hop").err


def test_diff_of_a_setting(nlc: Run) -> None:
    ended = nlc("diff", "hope", "hope", "--set", "levels.titans.chunk=16")
    assert (ended.status, ended.err) == (0, "")
    assert "  levels.titans.chunk: 64 -> 16\n" in ended.out
    assert "  - memory titans.key: matrix, l2, rule dgd, every token, chunk 64, carry sequence\n" in ended.out
    assert "  parameters                 1,977,992  1,977,992  x 1.00\n" in ended.out
    assert nlc("diff", "hope", "hope").out.endswith("say the same\n")


def test_diff_shows_lines_of_programs(nlc: Run) -> None:
    out = nlc("diff", "hope", "hope_attention").out
    assert "\n  block:\n" in out and "computed as attention" in out
    assert nlc("diff", "hope", "nothing.yaml").status == 2


def test_diff_as_json_leaves_out_the_side_that_lacks_a_key(nlc: Run) -> None:
    ended = nlc("diff", "linear_attention", "transformer", "--json")
    assert (ended.status, ended.err) == (0, "")
    keys = {change.pop("path"): set(change) for change in json.loads(ended.out)["keys"]}
    assert keys["levels.attention.every"] == {"before"} and keys["block"] == {"before", "after"}


def test_doctor(nlc: Run) -> None:
    ended = nlc("doctor")
    assert (ended.status, ended.err) == (0, "")
    found = {finding["what"]: finding for finding in json.loads(nlc("doctor", "--json").out)["findings"]}
    assert {"python", "torch", "threads", "matrix products", "disk"} <= set(found)
    assert found["torch"]["verdict"] == "ok" and found["python"]["verdict"] == "ok"


@pytest.mark.parametrize("name", ["1", "null", "true", "1e5", "a-b"])
@pytest.mark.parametrize("extends", [[], ["--extends"]], ids=["copied", "extending"])
def test_a_file_of_any_name_begins_a_legal_spec(nlc: Run, name: str, extends: list[str]) -> None:
    assert nlc("init", f"{name}.yaml", "--from", "transformer", *extends).status == 0
    assert nlc("check", f"{name}.yaml").status == 0


def test_diff_does_not_say_that_attention_fires(nlc: Run) -> None:
    out = nlc("diff", "hope", "transformer").out
    assert "level attention: every token, at once" in out and "every 0" not in out


def test_doctor_names_what_is_missing_of_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlc import doctor

    monkeypatch.setattr(doctor, "version", lambda name: "" if name in ("transformers", "optuna", "ray") else "1")
    said = {finding.what: finding.says for finding in doctor.extras()}
    assert said["extra hf"] == "transformers not installed: pip install 'nlc[hf]'"
    assert said["extra search"] == "not installed: pip install 'nlc[search]'" and said["extra eval"] == "installed"


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlc.cli.common import Stop, write_whole

    def full(self: Path, text: str, encoding: str) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Stop, match="No space left"):
        write_whole("text", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
