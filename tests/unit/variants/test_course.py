"""The course of a search, with runs that are imagined: who runs, with which rates and seeds, who goes on."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from nlc.cli.common import Stop
from nlc.cli.searched import report_search, variant
from nlc.passes import build
from nlc.spec import load, loads
from nlc.spec.rule import SHIPPED
from nlc.variants.course import Course
from nlc.variants.journal import Journal, JournalError, read, salvaged
from nlc.variants.proposals import proposals
from nlc.variants.rates import Rates, trained
from nlc.variants.runs import UNABLE, Outcome, Request, Unable
from nlc.variants.table import rows
from nlc.variants.winner import winner
from tests.unit.variants.searched import TINY, Imagined, Nobody, lessons, ran, right, searched

RULES = TINY + "base: deltanet\naxes: {levels.delta.retain: [0.5, 0.6, 0.7, 0.8]}\n"
HALVED = (
    RULES
    + """tasks: [mqar, parity]
rungs:
  - {tasks: [mqar], steps: 10, keep: 2}
  - {steps: 20, seeds: 3}
rank_by: parity.accuracy
"""
)


def by_retention(request: Request) -> Outcome:
    """The more is kept, the better; a seed adds a little."""
    kept = float(re.search(r"retain: '?([0-9.]+)", request.text)[1])
    return right(request, kept + request.set["run.seed"] % 1_000_000 * 0.01)


def test_only_the_best_go_on_and_finalists_have_several_seeds(tmp_path: Path) -> None:
    board, begun = ran(searched(HALVED), tmp_path, by_retention)
    assert begun[:4] == [f"t00{i}-mqar-10-s0" for i in range(1, 5)]
    assert set(begun[4:]) == {f"t00{i}-{task}-20-s{s}" for i in (3, 4) for task in ("mqar", "parity") for s in range(3)}
    assert [(row.trial, row.rank, row.rung) for row in board.rows] == [
        ("t004", 1, 1), ("t003", 2, 1), ("t002", 3, 0), ("t001", 4, 0),
    ]  # fmt: skip
    score = board.rows[0].score
    assert (
        score.n == 3
        and score.mean == pytest.approx(0.81)
        and score.low == pytest.approx(0.81 - 4.303 * 0.01 / 3**0.5, 1e-3)
    )


def test_a_variant_one_of_whose_seeds_came_to_nothing_has_no_score_anywhere(tmp_path: Path) -> None:
    def wild(request: Request) -> Outcome:
        return Outcome("not_finite") if request.name == "t004-mqar-20-s1" else by_retention(request)

    board, _ = ran(searched(HALVED.replace("parity.accuracy", "mqar.accuracy")), tmp_path, wild)
    assert board.winner.trial == "t003"
    (row,) = [row for row in board.rows if row.trial == "t004"]
    assert (row.rank, row.score, row.status, list(row.scores)) == (None, None, "not_finite", ["parity.accuracy"])
    (shown,) = [cells for cells in rows(board, ["mqar.accuracy"]) if cells[1] == "t004"]
    assert (shown[0], shown[3], shown[-1]) == ("-", "", "not finite")


def test_a_search_cut_at_any_line_ends_with_the_same_table_and_repeats_nothing(tmp_path: Path) -> None:
    whole, begun = ran(searched(HALVED), tmp_path / "whole", by_retention)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), 3):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        there = {line["run"] for line in read(folder) if line["record"] == "run"}
        again, more = ran(searched(HALVED), folder, by_retention)
        assert again == whole
        assert sorted([*there, *more]) == sorted(begun)


def test_rates_are_chosen_for_each_variant_on_a_grid_with_a_seed_of_its_own(tmp_path: Path) -> None:
    text = RULES + "tasks: [mqar]\nbudget: {steps: 10}\ntune: {lr: [0.001, 0.01], weight_decay: [0.1], steps: 5}\n"

    def best_rate_is_small_where_much_is_kept(request: Request) -> Outcome:
        small = "lr=0.001" in str(request.set["levels.train.rule"])
        return right(request, 0.9 if small == ("0.8" in request.text) else 0.1)

    board, begun = ran(searched(text), tmp_path, best_rate_is_small_where_much_is_kept)
    assert "t001-mqar-5-s1000000-lr0.001-wd0.1" in begun and "t001-mqar-10-s0-lr0.01-wd0.1" in begun
    assert len(begun) == 4 * 3
    assert {row.trial: row.rates["mqar"]["lr"] for row in board.rows} == {
        "t001": 0.01, "t002": 0.01, "t003": 0.01, "t004": 0.001,
    }  # fmt: skip


def test_rates_are_chosen_by_what_was_trained_and_of_equal_ones_by_what_ranks(tmp_path: Path) -> None:
    text = RULES + "tasks: [parity]\nbudget: {steps: 10}\ntune: {lr: [0.001, 0.01, 0.1]}\n"
    text += "rank_by: parity[twice as long].accuracy\n"
    trained, longer = {"0.001": 0.6, "0.01": 0.9, "0.1": 0.9}, {"0.001": 0.52, "0.01": 0.49, "0.1": 0.5}

    def outcome(request: Request) -> Outcome:
        lr = re.search(r"lr=([0-9.]+)", str(request.set["levels.train.rule"]))[1]
        found = {"parity.accuracy": trained[lr], "parity[twice as long].accuracy": longer[lr]}
        return Outcome("ok", scores=found, tokens=1, seconds=1.0)

    board, _ = ran(searched(text), tmp_path, outcome)
    assert {row.rates["parity"]["lr"] for row in board.rows} == {0.1}


def test_a_rate_that_diverges_is_not_chosen_and_a_variant_that_always_does_has_no_score(tmp_path: Path) -> None:
    text = RULES + "tasks: [mqar]\nbudget: {steps: 10}\ntune: {lr: [0.001, 0.01]}\n"

    def wild(request: Request) -> Outcome:
        if "0.5" in request.text or "lr=0.01" in str(request.set["levels.train.rule"]):
            return Outcome("not_finite", "a loss is not finite")
        return right(request, 0.5)

    board, _ = ran(searched(text), tmp_path, wild)
    assert {row.rates["mqar"]["lr"] for row in board.rows if row.rank} == {0.001}
    last = board.rows[-1]
    assert (last.trial, last.rank, last.status, last.error) == ("t001", None, "not_finite", "a loss is not finite")


def test_one_seed_that_comes_to_nothing_is_no_score(tmp_path: Path) -> None:
    text = RULES + "tasks: [mqar]\nbudget: {steps: 10}\nseeds: 3\n"

    def crashes(request: Request) -> Outcome:
        return Outcome("crashed", "gone") if request.name == "t004-mqar-10-s1" else by_retention(request)

    board, _ = ran(searched(text), tmp_path, crashes)
    assert [row.trial for row in board.rows] == ["t003", "t002", "t001", "t004"]
    assert board.rows[-1].status == "crashed" and board.rows[-1].rank is None


def test_equal_graphs_are_one_trial_and_illegal_ones_are_recorded_with_their_place(tmp_path: Path) -> None:
    text = TINY + "base: deltanet\ntasks: [mqar]\naxes:\n  levels.delta.objective: [l2, dot, l3]\n"
    board, begun = ran(searched(text), tmp_path, lambda request: right(request, 0.5))
    rows = {row.trial: row for row in board.rows}
    assert (
        rows["t003"].status == "rejected"
        and "s.yaml:7:37: error: level 'delta': unknown objective 'l3'" in rows["t003"].error
    )
    assert len(begun) == 2
    text = TINY + "base: deltanet\ntasks: [mqar]\naxes:\n  levels.delta.retain: [1, '1.0', 0.9]\n"
    board, begun = ran(searched(text), tmp_path / "equal", lambda request: right(request, 0.5))
    rows = {row.trial: row for row in board.rows}
    assert rows["t002"].status == "duplicate" and rows["t002"].of == "t001" and len(begun) == 2


def test_training_that_the_graph_does_not_hold_makes_another_trial(tmp_path: Path) -> None:
    text = TINY + "base: deltanet\ntasks: [mqar]\naxes: {run.clip: [1.0, 0.1]}\n"
    _, begun = ran(searched(text), tmp_path, lambda request: right(request, 0.5))
    assert len(begun) == 2


def test_steps_of_its_own_make_another_trial_unless_the_search_says_them(tmp_path: Path) -> None:
    text = TINY + "base: deltanet\ntasks: [mqar]\naxes: {run.steps: [10, 20]}\n"
    _, begun = ran(searched(text), tmp_path / "own", lambda request: right(request, 0.5))
    assert begun == ["t001-mqar-10-s0", "t002-mqar-20-s0"]
    _, begun = ran(searched(text + "budget: {steps: 5}\n"), tmp_path / "said", lambda request: right(request, 0.5))
    assert begun == ["t001-mqar-5-s0"]
    text = text.replace("mqar", "'class_incremental(tasks=2, classes=2, shots=8)'")
    course = {"class_incremental(tasks=2, classes=2, shots=8)": lambda batch: 8}
    _, begun = ran(searched(text), tmp_path / "in order", lambda request: right(request, 0.5), lengths=course)
    assert len(begun) == 1


def test_the_same_run_asked_for_by_two_rungs_is_made_once(tmp_path: Path) -> None:
    text = RULES + "tasks: [mqar]\nbudget: {steps: 10}\nrungs: [{keep: 0.5}, {seeds: 2}]\n"
    board, begun = ran(searched(text), tmp_path, by_retention)
    assert sorted(begun) == sorted(set(begun)) and len(begun) == 4 + 2
    assert board.rows[0].score.n == 2


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with Journal.open(tmp_path), pytest.raises(JournalError, match="another command works in"):
        Journal.open(tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.add("end", {"trials": 1})
        journal.add("end", {"trials": 2})
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for number, altered in enumerate((b"{" + whole, whole[:-2] + b"\n"), 1):
        path.write_bytes(altered)
        with pytest.raises(JournalError, match=f"line {number}, is damaged"):
            read(tmp_path)


def test_a_journal_without_its_first_line_is_no_new_search(tmp_path: Path) -> None:
    ran(searched(HALVED), tmp_path, by_retention)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    for opened in (read, Journal.open):
        with pytest.raises(JournalError, match=r"journal.jsonl', line 1, is not the first of a search"):
            opened(tmp_path)
    with pytest.raises(Stop, match=r"journal.jsonl:1 is not the first of a search"):
        report_search(tmp_path, None, False, True)


def test_a_line_that_is_nested_too_deep_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("[" * 100_000 + "\n{}\n", encoding="utf-8")
    with pytest.raises(JournalError, match="line 1, is damaged"):
        read(tmp_path)


def test_a_line_that_lacks_something_is_named(tmp_path: Path) -> None:
    ran(searched(HALVED), tmp_path, by_retention)
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for number, key in ((0, "rungs"), (1, "trial"), (-1, "kept")):
        altered = list(lines)
        altered[number] = altered[number].replace(f'"{key}":', '"x":', 1)
        path.write_text("".join(altered))
        at = number % len(lines) + 1
        with pytest.raises(JournalError, match=rf"line {at}, is damaged \(.*{key}: field required"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("record", "why"),
    [("trial", "'cost' is empty, of a variant that runs"), ("run", "cost.seconds: field required")],
)
def test_a_line_whose_cost_was_emptied_by_hand_is_named(record: str, why: str, tmp_path: Path) -> None:
    ran(searched(HALVED), tmp_path, by_retention)
    path = tmp_path / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    at = next(number for number, line in enumerate(lines, 1) if line["record"] == record)
    lines[at - 1]["cost"] = {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(JournalError, match=rf"line {at}, is damaged \(.*{why}"):
        read(tmp_path)


def test_what_the_machine_cannot_do_stops_the_search_and_counts_for_nothing(tmp_path: Path) -> None:
    def full(request: Request) -> Outcome:
        done = request.name in ("t001-mqar-10-s0", "t002-mqar-10-s0")
        return by_retention(request) if done else Outcome(UNABLE, "No space left on device")

    with pytest.raises(Unable, match="t003-mqar-10-s0: No space left on device"):
        ran(searched(HALVED), tmp_path / "full", full)
    assert [line["run"] for line in read(tmp_path / "full") if line["record"] == "run"] == [
        "t001-mqar-10-s0", "t002-mqar-10-s0",
    ]  # fmt: skip
    whole, _ = ran(searched(HALVED), tmp_path / "whole", by_retention)
    again, begun = ran(searched(HALVED), tmp_path / "full", by_retention)
    assert again == whole and "t003-mqar-10-s0" in begun and "t001-mqar-10-s0" not in begun


def test_a_journal_that_cannot_be_written_is_named_and_what_it_holds_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(tmp_path) as journal:
        journal.add("end", {"trials": 1})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*journal.jsonl'"):
            journal.add("end", {"trials": 2})
        assert len(journal.records) == 1
    assert salvaged(tmp_path).lines[0][1]["trials"] == 1


def test_a_variant_that_does_not_reach_the_disk_is_in_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(tmp_path) as journal:
        search = searched(RULES + "tasks: [mqar]\nbudget: {steps: 1}\n")
        course = Course(search, lessons(search), journal, Imagined(by_retention), Nobody())
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*t001.part'"):
            course.plan(next(proposals(search))[0])
        assert not journal.records and not (tmp_path / "variants" / "t001.yaml").exists()


def test_the_winner_is_trained_as_what_was_ranked_was(tmp_path: Path) -> None:
    asked: dict[str, dict[str, object]] = {}

    def noted(request: Request) -> Outcome:
        asked[request.name] = dict(request.set)
        return by_retention(request)

    text = RULES + "tasks: [mqar]\nbudget: {steps: 20}\ntune: {lr: [0.001, 0.01]}\n"
    board, _ = ran(searched(text), tmp_path, noted)
    best, records = board.rows[0], read(tmp_path)
    spec = loads(winner(tmp_path, records, best))
    run = next(asked[line["run"]] for line in records if line.get("purpose") == "score" and line["trial"] == best.trial)
    assert run["run.warmup"] == 2
    assert {f"run.{name}": getattr(spec.model.run, name) for name in ("steps", "warmup")}.items() <= run.items()


def test_a_variant_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    search = searched(RULES + "tasks: [mqar]\nbudget: {steps: 1}\n")
    board, _ = ran(search, tmp_path, by_retention)
    path = tmp_path / "variants" / "t004.yaml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("width: 8", "width: 16"), encoding="utf-8")
    said = "t004.yaml' is not the variant that the search made: give it back"
    with pytest.raises(JournalError, match=said):
        ran(search, tmp_path, by_retention)
    with pytest.raises(JournalError, match=said):
        winner(tmp_path, read(tmp_path), board.rows[0])
    notices: list[str] = []
    line = next(line for line in read(tmp_path) if line.get("trial") == "t004")
    assert variant(path, {}, notices, line) is None
    assert notices == ["variants/t004.yaml is not the variant that the search made"]
    older = [{**line, "digest": ""} for line in read(tmp_path)]
    assert "width: 16" in winner(tmp_path, older, board.rows[0])
    path.unlink()
    ran(search, tmp_path, by_retention)
    assert path.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize(("out", "sizes"), [("width", (256, 512)), ("vocab", (16, 8))])
def test_the_winner_has_its_own_sizes_unless_only_those_of_the_task_are_legal(
    out: str, sizes: tuple[int, int], tmp_path: Path
) -> None:
    text = TINY.replace("width: 8", "width: 16") + "base: deltanet\ntasks: [mqar]\nbudget: {steps: 1}\n"
    lines = load("deltanet").model.block.replace("out=width)", f"out={out})").splitlines()
    text += "axes:\n  shape:\n    choices:\n      one:\n        block: |\n"
    text += "".join(f"          {line}\n" for line in lines)
    board, _ = ran(searched(text), tmp_path, lambda request: right(request, 0.5))
    said = winner(tmp_path, read(tmp_path), board.rows[0], "best.yaml")
    spec = loads(said)
    assert (spec.model.sizes["vocab"], spec.model.sizes["context"]) == sizes and build(spec)
    assert "# as it was ranked, sizes.context 8, sizes.vocab 16: nlc train best.yaml --task FILE" in said


def test_what_is_learned_in_order_takes_its_own_steps_in_every_rung(tmp_path: Path) -> None:
    text = RULES + "tasks: [mqar, parity]\nrank_by: mqar.accuracy\ntune: {lr: [0.001, 0.01], steps: 5}\n"
    text += "rungs: [{steps: 10, keep: 1}, {steps: 20, seeds: 2}]\n"
    seen: dict[str, tuple[object, object]] = {}

    def noted(request: Request) -> Outcome:
        seen[request.name] = request.set["run.steps"], request.set["run.warmup"]
        return by_retention(request)

    board, begun = ran(searched(text), tmp_path, noted, lengths={"parity": lambda batch: 30 * batch})
    assert board.rows[0].steps == {"mqar": 20, "parity": 60}
    mine = [name for name in begun if "t004-parity" in name and "-s1000000" not in name]
    assert [name.rpartition("-lr")[0] for name in mine] == ["t004-parity-60-s0", "t004-parity-60-s1"]
    assert {set for name, set in seen.items() if "parity" in name} == {(60, 6)}


def test_a_task_in_order_has_one_rate_throughout() -> None:
    spec = loads((SHIPPED / "architectures" / "deltanet.yaml").read_text(encoding="utf-8"))
    assert trained(spec, {"items": "domains"}, {}, Rates(), 8)["run.schedule"] == "constant"
    assert "run.schedule" not in trained(spec, {"items": "parity"}, {}, Rates(), 8)
