"""nlc train --field --tokenizer --pack, and what goes on from such a run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from nlc.cli.reporting import facts
from nlc.page import curves
from runtime import plot
from tests.e2e.command import Run
from tests.e2e.test_data_files import SMALL, stories  # noqa: F401

TRAIN = ["train", "linear_attention", "--steps", "2", "--quiet", "--json", *SMALL]
TOKENS = ["--tokenizer", "t.json", "--set", "sizes.vocab=280"]


@pytest.fixture(autouse=True)
def tokenizer(nlc: Run, stories: Path) -> None:  # noqa: F811
    pytest.importorskip("tokenizers")
    assert nlc("tokenizer", "train", "--data", "many", "--vocab", "280", "-o", "t.json").status == 0


def test_a_run_in_tokens_is_evaluated_without_the_tokenizer_of_its_beginning(nlc: Run, tmp_path: Path) -> None:
    ended = nlc(*TRAIN, "--data", "stories.jsonl", *TOKENS, "--out", "run")
    assert ended.status == 0, ended.err
    lock = json.loads((tmp_path / "run/lock.json").read_text())["data"]
    assert lock["pack"] == "documents" and lock["tokenizer"]["vocab"] == 280
    (tmp_path / "t.json").unlink()
    found = json.loads(nlc("eval", "run", "--json").out)
    assert found["bytes"] > found["tokens"] and found["bits_per_byte"] < 8
    assert nlc("eval", "run", "--data", "many").status == 0


def test_progress_picture_and_page_say_bits_of_a_byte_where_a_token_is_several(
    nlc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    monkeypatch.setattr(plot, "loss", lambda rows, path, title, size, unit: drawn.append(size))
    arguments = [word for word in TRAIN if word != "--quiet"]
    ended = nlc(*arguments, "--data", "many", *TOKENS, "--out", "run")
    assert ended.status == 0, ended.err
    size = json.loads((tmp_path / "run/lock.json").read_text())["data"]["bytes_per_token"]
    said = re.findall(r"loss (\S+) nats  (\S+) bits/byte", ended.err)
    assert size > 1.2 and drawn == pytest.approx([size], abs=1e-6) and said
    assert all(float(bits) == pytest.approx(float(nats) / math.log(2) / size, abs=2e-4) for nats, bits in said)
    (training,) = [s for s in curves.loss([facts(tmp_path / "run", False)]).series if s.label == "training"]
    assert training.points[-1][1] == pytest.approx(float(said[-1][1]), abs=2e-4)


def test_another_vocabulary_is_refused(nlc: Run, tmp_path: Path) -> None:
    ended = nlc(*TRAIN, "--data", "stories.jsonl", "--tokenizer", "t.json", "--out", "run")
    assert ended.status == 2 and "--set sizes.vocab=280" in ended.err
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize("spec", ["linear_attention", "hope"])
def test_packing_changes_what_is_learned(nlc: Run, spec: str) -> None:
    losses = []
    for pack in ("text", "documents"):
        ended = nlc("train", spec, "--steps", "8", *TRAIN[4:], "--data", "stories.jsonl", "--pack", pack)
        losses.append(json.loads(ended.out)["train_loss"])
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) < 0.1


def test_a_field_of_records(nlc: Run) -> None:
    ended = nlc(*TRAIN, "--data", "stories.jsonl", "--field", "texte")
    assert ended.status == 4 and "stories.jsonl:1: no field 'texte'; did you mean 'text'?" in ended.err
