"""What a command is given and cannot use: one line that says why, a status, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlc.cli import main


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The status of a command, and what it said."""
    status = main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return status, said.out + said.err


def spec(folder: Path, more: str, base: str = "transformer") -> str:
    path = folder / "mine.yaml"
    path.write_text(f"nlc: 1\nextends: {base}\nname: mine\n{more}", encoding="utf-8")
    return str(path)


RULE = "nlc: 1\nrule: {}\nparams: {}\nlevels:\n  - every: 1 update\n    do: delta = -lr * grad\n"


@pytest.mark.parametrize("command", [["check"], ["show"], ["show", "--resolved"], ["explain"]])
def test_a_key_twice_in_a_rule_file_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(RULE.format("twice", "{lr: 1, lr: 2}"), encoding="utf-8")
    status, said = ended(capsys, *command, str(path))
    assert status == 2 and said.count("NLC0107") == 1 and ":3:17: error: duplicate key 'lr'" in said


@pytest.mark.parametrize("params", ["{lr: .nan}", "{lr: .inf}", "{lr: 1, betas: [0.9, -.inf]}"])
def test_a_parameter_of_a_rule_is_finite(params: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "endless.yaml"
    path.write_text(RULE.format("endless", params), encoding="utf-8")
    status, said = ended(capsys, "check", str(path))
    assert status == 2 and "a finite number is expected [NLC0205]" in said


@pytest.mark.parametrize("command", [["graph", "hope"], ["schema"]])
def test_a_folder_is_no_file_to_write(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, *command, "-o", str(tmp_path)) == (2, f"nlc: {tmp_path} is a folder: a file is expected\n")
    status, said = ended(capsys, *command, "-o", ".")
    assert status == 2 and said == "nlc: . is a folder: a file is expected\n"


def test_links_that_go_round_lead_to_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to("loop.yaml")
    status, said = ended(capsys, "check", str(loop))
    assert status == 2 and "a link that leads to no file [NLC0101]" in said
    status, said = ended(capsys, "check", spec(tmp_path, "", "loop.yaml"))
    assert status == 2 and "no file 'loop.yaml' to extend [NLC0208]" in said
    status, said = ended(capsys, "check", spec(tmp_path, "rules: {loop: loop.yaml}\n"))
    assert status == 2 and "no file 'loop.yaml' for the rule 'loop' [NLC0208]" in said


@pytest.mark.parametrize(
    ("more", "place", "message"),
    [
        ("levels: [train]\n", "4:10", "an item of 'levels' is the text 'train'; a mapping is expected [NLC0202]"),
        ("levels: [{name: train, rule: 'adamw(lr=nan)'}]\n", "4:31", "counts steps cannot be 'nan' [NLC0411]"),
        ("levels: [{name: train, rule: 'adamw(lr=\"x\")'}]\n", "4:31", "counts steps cannot be 'x' [NLC0411]"),
        ("levels: [{name: train, rule: adamw(lr=true)}]\n", "4:30", "counts steps cannot be 'true' [NLC0411]"),
        ("levels: [{name: train, rule: adamw(lr=0.1 * h)}]\n", "4:30", "cannot be a value of the block [NLC0411]"),
        ("levels: [{name: train, start: 'from(checkpoint:'}]\n", "4:32", "'from(' is never closed [NLC0406]"),
        ("levels: [{name: train, start: 'from(checkpoint:a, b=c, b=d)'}]\n", "4:37", "'b' is given twice [NLC0406]"),
        ("sizes: {layers: 1000000000}\n", "4:17", "'layers' is 1000000000; at most 10000 is expected [NLC0205]"),
        ("block: null\nblocks: {a: x = x}\nstack: [9000 * a, 9000 * a]\n", "6:19",
         "'9000 * a': the stack has more than 10000 blocks with it [NLC0409]"),
        ("run: {steps: 99999999999999999999}\n", "4:14", "at most 2147483647 is expected [NLC0205]"),
        ("levels: [{name: train, rule: muon(ns_steps=999)}]\n", "4:44", "'ns_steps' of 'muon' is 999 [NLC0405]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_stands(
    more: str, place: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spec(tmp_path, more)
    status, said = ended(capsys, "check", path)
    assert status == 2 and f"{path}:{place}: error: " in said and message in said


@pytest.mark.parametrize("name", ["a" * 101, "ä" * 51, "🙂"])
def test_a_name_is_that_of_a_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "named.yaml"
    path.write_text(f"nlc: 1\nextends: transformer\nname: '{name}'\n", encoding="utf-8")
    status, said = ended(capsys, "check", str(path))
    assert status == 2 and "3:8: error: " in said and "NLC0212" in said


def test_nothing_else_is_suggested_for_a_truth_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = ended(capsys, "check", spec(tmp_path, "true: 3\n"))
    assert "unknown key 'true' [NLC0201]" in said and "did you mean" not in said


def test_what_cannot_be_extended_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir.yaml").mkdir()
    _, said = ended(capsys, "check", spec(tmp_path, "", "dir.yaml"))
    assert "'dir.yaml' is a folder [NLC0208]" in said
    _, said = ended(capsys, "check", spec(tmp_path, "", "dirs.yaml"))
    assert "no file 'dirs.yaml' to extend [NLC0208]" in said and "dir.yaml'?" not in said
    _, said = ended(capsys, "check", spec(tmp_path, "", "adamw"))
    assert "'adamw' is an update rule, which a level names" in said


def test_the_largest_stack_is_checked_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ended(capsys, "check", "hope", "--set", "sizes.layers=10000", "--json")
    assert status == 0 and json.loads(said)["specs"][0]["layers"] == 10000


def test_a_rule_in_place_of_a_shipped_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adamw.yaml").write_text(RULE.format("adamw", "{lr: 1e-3}"), encoding="utf-8")
    words = f"rule 'adamw' is that of {tmp_path}/adamw.yaml:1, in place of the shipped one"
    path = spec(tmp_path, "levels: [{name: train, rule: adamw}]\n")
    assert words in ended(capsys, "check", path)[1] and words in ended(capsys, "explain", path)[1]
    assert json.loads(ended(capsys, "check", path, "--json")[1])["specs"][0]["rules"] == {
        "adamw": f"{tmp_path}/adamw.yaml:1"
    }
    status, said = ended(capsys, "check", spec(tmp_path, "levels: [{name: train, rule: adamw(beta=1)}]\n"))
    assert status == 2 and f"rule of {tmp_path}/adamw.yaml:1 'adamw' has no parameter 'beta'" in said
    assert "in place of" not in ended(capsys, "check", "transformer")[1]


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("abc " * 2000, encoding="utf-8")
    run = ("train", "transformer", "--dry-run", "--data", "text.txt", "--steps", "200", "--name", "first")
    status, said = ended(capsys, *run)
    assert status == 0 and "200 steps of 2,048 tokens, 409,600 in all" in said and "runs/first" in said
    found = json.loads(ended(capsys, *run, "--json")[1])
    assert found["tokens"] == 200 * found["tokens_per_step"] == 409600 and found["text"] == "text.txt"
    assert ended(capsys, "train", "transformer", "--dry-run", "--data", "gone.txt")[0] == 4
    assert ended(capsys, "train", "--dry-run", "--resume", "runs/first")[0] == 2
    for what in (["--set", "sizes.vocab=99"], ["--set", "sizes.context=4000"], ["--tokenizer", "gone.json"]):
        assert ended(capsys, *run, *what)[0] != 0  # as the run itself would
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
