"""mutate: every generation is edits of the best by then; each is a trial with a sentence, its parents, or a refusal."""

from __future__ import annotations

from pathlib import Path

from nlc.variants.journal import read
from nlc.variants.runs import Outcome, Request
from tests.unit.variants.searched import TINY, ran, right, searched

TEXT = (
    TINY
    + """base: deltanet
axes: {levels.delta.retain: [0.5, 0.9]}
tasks: [mqar]
budget: {steps: 10}
mutate: {generations: 2, population: 3, parents: 2, cross: 0.5}
"""
)


def by_length(request: Request) -> Outcome:
    return right(request, min(1.0, len(request.text) / 5000))


def test_generations_follow_the_axes_and_repeat_themselves(tmp_path: Path) -> None:
    board, _ = ran(searched(TEXT), tmp_path / "a", by_length)
    trials = [line for line in read(tmp_path / "a") if line["record"] == "trial"]
    assert [trial["generation"] for trial in trials] == [0, 0, 1, 1, 1, 2, 2, 2]
    for trial in trials[2:]:
        assert trial["edits"][-1]["edit"] and trial["edits"][-1]["kind"]
        assert 1 <= len(trial["parents"]) <= 2 and all(parent < trial["trial"] for parent in trial["parents"])
        assert trial["status"] in ("ok", "duplicate") or trial["error"]
        assert (tmp_path / "a" / trial["file"]).is_file()
    again, _ = ran(searched(TEXT), tmp_path / "b", by_length)
    assert again == board
    lines = (tmp_path / "a" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    cut, _ = ran(searched(TEXT), tmp_path / "cut", by_length)
    assert cut == board


def test_mutants_count_as_trials(tmp_path: Path) -> None:
    ran(searched(TEXT.replace("steps: 10", "steps: 10, trials: 4")), tmp_path, by_length)
    assert sum(line["record"] == "trial" for line in read(tmp_path)) == 4
