"""The parts of the comparison that can be wrong without anybody noticing: schedules, choices, tables, resuming."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nlc
from runtime import checkpoint
from runtime.errors import RunError
from runtime.schedule import FLOOR, cosine

BENCH = Path(__file__).parents[2] / "bench"
SMALL = {
    "sizes.width": 8,
    "sizes.heads": 1,
    "sizes.layers": 1,
    "sizes.context": 32,
    "run.batch": 2,
    "run.warmup": 2,
    "levels.titans.chunk": 8,
    "levels.cms.memories.fast.every": "8 tokens",
    "levels.cms.memories.mid.every": "16 tokens",
}


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    """Scripts of bench/ import one another by their plain names."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(" ".join(random.Random(0).choices("what learns how often from what by which rule".split(), k=2000)))
    return path


# ---- budgets --------------------------------------------------------------------------------------------------------


def test_the_schedule_is_laid_out_over_the_steps_that_fit() -> None:
    from timed import allowed

    assert allowed(done=10, spent=5.0, seconds=100.0) == 200
    assert allowed(done=199, spent=99.5, seconds=100.0) == 200
    assert allowed(done=200, spent=99.9, seconds=100.0) == 200  # less than half a step is left: over
    assert allowed(done=50, spent=101.0, seconds=100.0) == 50  # late is over, never less than what is done


def test_the_schedule_ends_with_the_time_though_the_speed_changes() -> None:
    from timed import allowed

    done, spent, steps, factor = 0, 0.0, 10**6, 1.0
    while done < steps:
        factor = cosine(done, steps, 4)
        spent += 1.0 if done < 50 else 0.25  # the machine becomes four times as fast
        done += 1
        steps = allowed(done, spent, 100.0)
    assert abs(spent - 100) <= 0.5
    assert done == pytest.approx(250, abs=2)
    assert factor == pytest.approx(FLOOR, abs=0.01)


def test_equal_tokens_are_equal_steps_of_the_specs_batch() -> None:
    from text import steps_of

    assert steps_of(1_228_800, nlc.load("hope")) == 600
    assert steps_of(1, nlc.load("hope")) == 1


# ---- what is compared -----------------------------------------------------------------------------------------------


def test_every_system_is_a_spec_and_takes_every_rate() -> None:
    from text import SYSTEMS, spec_of

    for system in SYSTEMS.values():
        if not system.of:
            rules = [level.rule for level in spec_of(system, "3e-3", {"sizes.width": 64}).model.levels]
            assert "adamw(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)" in rules


def test_a_rule_without_a_rate_is_refused() -> None:
    from text import with_rate

    with pytest.raises(ValueError, match="one lr"):
        with_rate("gd", "1e-3")


def test_rows_that_share_weights_train_once() -> None:
    from text import parse

    plan, _, _ = parse(["--systems", "hope_off,transformer,hope", "--tokens", "100"])
    assert plan.trained == ["hope", "transformer"]
    assert plan.name == "tokens-100"


def test_what_changes_a_run_changes_its_folder(tmp_path: Path) -> None:
    from text import job, parse

    def folder(*arguments: str, digest: str = "text", rate: str = "1e-3", tuning: bool = False) -> Path:
        plan, _, _ = parse(["--work", str(tmp_path), *arguments])
        return job(plan, digest, "transformer", rate, tuning=tuning).folder

    assert folder() == folder("--systems", "transformer", "--validation-tokens", "9")
    others = [
        folder("--seconds", "9"),
        folder("--tokens", "9000"),
        folder("--seed", "1"),
        folder("--set", "sizes.width=64"),
        folder(digest="other"),
        folder(rate="2e-3"),
        folder(tuning=True),
    ]
    assert len({folder(), *others}) == 1 + len(others)


def test_the_best_rate() -> None:
    from text import best

    trials: dict[str, Any] = {
        "1e-3": {"bits_per_byte": 2.5},
        "2e-3": {"bits_per_byte": 2.25},
        "4e-3": {"bits_per_byte": 2.25},
        "8e-3": {"bits_per_byte": None},
    }
    assert best(trials) == "2e-3"
    with pytest.raises(RunError, match="every learning rate diverged"):
        best({"8e-3": trials["8e-3"]})


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    from text import rendered

    row = {"title": "hope", "bits_per_byte": 2.0123, "parameters": 1977984, "tokens": 4096, "steps": 2, "seconds": 9.6}
    row |= {"tokens_per_s": 427.2, "rate": "4e-3", "validation_tokens": 262144}
    lost = dict.fromkeys(row) | {"title": "transformer", "rate": "8e-3"}
    text = rendered(
        {
            "measures": "validation bits per byte",
            "rows": [row, lost],
            "tuning": {"hope": {"4e-3": {"bits_per_byte": 2.5}, "8e-3": {"bits_per_byte": None}}},
            "settings": {"rates": ["4e-3", "8e-3"], "tuning_tokens": 307200, "set": {"sizes.width": "64"}},
            "date": "2026-01-01",
            "machine": {"processor": "a processor", "cores": 2},
            "versions": {"python": "3.11.0", "torch": "2.13.0", "nlc": "0.1.0", "commit": ""},
            "corpus": {"source": "a text", "training_bytes": 9000, "validation_bytes": 1000, "digest": "ab" * 32},
        }
    )
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[2] == ["hope", "2.0123", "1,977,984", "4,096", "2", "10", "427", "4e-3"]
    assert cells[3] == ["transformer", "diverged", "-", "-", "-", "-", "-", "8e-3"]
    assert cells[6] == ["hope", "2.500", "diverged", "4e-3"]
    assert "262,144 tokens" in text and "xz 1.41" in text and "`sizes.width=64`" in text


def test_one_place_for_runs_of_several_days() -> None:
    from facts import together

    old = {"date": "2026-01-01", "versions": {"nlc": "0.1.0", "commit": "aaa"}}
    new = {"date": "2026-01-02", "versions": {"nlc": "0.1.0", "commit": "bbb"}}
    assert together([new, old]) == {"date": "2026-01-02", "versions": {"nlc": "0.1.0", "commit": "aaa, bbb"}}


# ---- blocks ---------------------------------------------------------------------------------------------------------


def test_a_run_in_blocks_is_the_run(tmp_path: Path, words: Path) -> None:
    """Nine steps at once, and a step at a time with a block killed half-way: the same weights and rule states."""
    from timed import Budget, Job

    spec = nlc.load("hope", set=SMALL)
    whole, parts = (Job(tmp_path / name, spec, Budget(steps=9), text=words) for name in ("whole", "parts"))
    assert whole.block(1e9).step == 9 and whole.finished
    while not parts.finished:
        torch.rand(3)  # what happens between blocks has no part in them
        if len(parts.blocks) == 4:
            torn = tmp_path / "parts" / "blocks" / "004" / "checkpoints" / "step-000005"
            torn.mkdir(parents=True)
        parts.block(0.0)
    assert len(parts.blocks) == 9
    assert parts.done.result is not None and whole.done.result is not None
    for name in ("val_bits_per_byte", "fires", "tokens", "steps"):
        assert parts.done.result[name] == whole.done.result[name]
    one, other = (checkpoint.read(checkpoint.newest(job.blocks[-1] / "checkpoints")) for job in (whole, parts))
    for a, b in ((one.weights, other.weights), (one.optimiser, other.optimiser)):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert len(list((tmp_path / "parts").glob("blocks/*/checkpoints/step-*"))) == 1
    on, off = (parts.judge(200, learn) for learn in (True, False))
    assert (
        on["tokens"] == off["tokens"] and on["bits_per_byte"] != off["bits_per_byte"] and not any(off["fires"].values())
    )
    assert [point["step"] for point in parts.curve()] == [9]


def test_a_budget_of_seconds_is_kept(tmp_path: Path, words: Path) -> None:
    """On a clock that moves by a second whenever it is read: a step takes one."""
    from timed import Budget, Job

    ticks = iter(range(10**6))
    job = Job(tmp_path / "run", nlc.load("transformer", set={k: v for k, v in SMALL.items() if "levels" not in k}),
              Budget(seconds=7.0, timer=lambda: float(next(ticks))), text=words)  # fmt: skip
    assert job.block(3.0).step == 3 and not job.finished and job.fraction == pytest.approx(3 / 7)
    done = job.block(100.0)
    assert done.step == done.steps == 7 and done.spent == 7.0 and job.finished


def test_those_behind_go_first(tmp_path: Path, words: Path) -> None:
    from timed import Budget, Job, interleave

    spec = nlc.load("transformer", set={k: v for k, v in SMALL.items() if "levels" not in k})
    jobs = [Job(tmp_path / name, spec, Budget(steps=n), text=words) for name, n in (("long", 4), ("short", 2))]
    order: list[str] = []
    interleave(jobs, 0.0, lambda job, done: order.append(job.name.split("/")[-1]))
    assert order == ["long", "short", "long", "long", "short", "long"]
    interleave(jobs, 0.0, lambda job, done: pytest.fail("nothing is left to do"))


def test_a_run_that_diverges_is_an_outcome(tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from text import outcome
    from timed import Budget, Job, Timed

    from runtime.errors import Diverged

    def diverge(self: Timed, inside: dict[str, float]) -> None:
        raise Diverged("the loss is not finite")

    monkeypatch.setattr(Timed, "_log", diverge)
    spec = nlc.load("transformer", set={k: v for k, v in SMALL.items() if "levels" not in k})
    job = Job(tmp_path / "run", spec, Budget(steps=3), text=words)
    done = job.block(1e9)
    assert job.finished and done.result is None
    assert outcome(done)["bits_per_byte"] is None and outcome(done)["failure"] == "the loss is not finite"


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    from facts import alone

    with alone(tmp_path), pytest.raises(RunError, match="another command works"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
