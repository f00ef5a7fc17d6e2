"""Data as a user gives it: files, folders, patterns, records, tokenizers; what is broken is named before training."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest
import torch

import nlc as package
from runtime import data
from runtime.batches import Crops
from runtime.evaluate import evaluate
from tests.e2e.command import Run

TINY = ["sizes.width=32", "sizes.heads=2", "sizes.layers=1", "sizes.context=32", "run.batch=2", "run.warmup=1"]
SMALL = [word for setting in TINY for word in ("--set", setting)]
TRAIN = ["train", "linear_attention", "--steps", "1", "--quiet", "--json", "--out", "run", *SMALL]


@pytest.fixture(autouse=True)
def stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty short texts, as records and as files."""
    monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "many").mkdir()
    records = []
    for i in range(60):
        story = f"story {i} begins, goes on for a while and ends; " * (1 + i % 3)
        (tmp_path / "many" / f"{i}.txt").write_text(story)
        records.append(json.dumps({"id": i, "text": story}))
    (tmp_path / "stories.jsonl").write_text("\n".join(records) + "\n")
    return tmp_path / "stories.jsonl"


@pytest.mark.parametrize("path", ["many", "many/*.txt", "many/7.txt", "stories.jsonl", "*.jsonl"])
def test_a_run_learns_from(nlc: Run, path: str, tmp_path: Path) -> None:
    if path == "many/7.txt":
        (tmp_path / path).write_text("once upon a time " * 40)
    ended = nlc(*TRAIN, "--data", path)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["val_bits_per_byte"] > 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "a.jsonl:2: no field 'text'; fields: body"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl:2: byte 0xff at offset 24 of the file is not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', "a.jsonl:2:8: not a line of JSON"),
        ("a.jsonl", b"", "holds 0 bytes: too little for a training and a validation part"),
        ("a.txt", b"", "holds 0 bytes: too little for a training and a validation part"),
    ],
    ids=["field", "encoding", "json", "no record", "no text"],
)
def test_what_is_broken_is_named_before_training(
    nlc: Run, name: str, text: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text)
    ended = nlc(*TRAIN, "--data", name)
    assert ended.status == 4 and message in ended.err and "Traceback" not in ended.err
    failed = json.loads(ended.out)
    assert (failed["ok"], failed["status"]) == (False, 4) and message in failed["error"]
    assert not (tmp_path / "run").exists()


def test_eval_says_that_the_text_has_changed(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("once upon a time " * 40)
    assert nlc(*TRAIN, "--data", "one.txt").status == 0
    assert "another text" not in nlc("eval", "run").err
    (tmp_path / "one.txt").write_text("twice upon a time " * 40)
    ended = nlc("eval", "run")
    assert ended.status == 0 and "one.txt is another text than when the run began: digest " in ended.err
    assert "another text" not in nlc("eval", "run", "--data", "one.txt").err


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_field_that_is_missing_far_down_is_named_by_its_line(nlc: Run, gzipped: bool, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"line {i}"}) for i in range(1, 40_400)]
    lines[40_311] = json.dumps({"texts": "line 40312"})
    written = ("\n".join(lines) + "\n").encode()
    name = "far.jsonl.gz" if gzipped else "far.jsonl"
    (tmp_path / name).write_bytes(gzip.compress(written) if gzipped else written)
    ended = nlc(*TRAIN, "--data", name)
    assert ended.status == 4
    assert f"{name}:40312: no field 'text'; did you mean 'texts'?" in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_named(nlc: Run, tmp_path: Path) -> None:
    (tmp_path / "many" / "7.txt").chmod(0)
    ended = nlc(*TRAIN, "--data", "many")
    assert ended.status == 4 and "cannot read 'many/7.txt': Permission denied" in ended.err


class TestTokenizer:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        pytest.importorskip("tokenizers")

    def test_is_trained_and_looked_at(self, nlc: Run, tmp_path: Path) -> None:
        arguments = ["tokenizer", "train", "--data", "stories.jsonl", "--vocab", "280"]
        ended = nlc(*arguments, "-o", "made/tokenizer.json", "--json")
        assert ended.status == 0, ended.err
        made = json.loads(ended.out)
        assert made["vocab"] == 280 and made["bytes_per_token"] > 1.3
        assert "--set sizes.vocab=280" in nlc(*arguments, "-o", "again.json").out
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "made/tokenizer.json").read_bytes()
        seen = nlc("tokenizer", "inspect", "again.json", "--text", "story 61, naïve")
        assert seen.status == 0 and "BPE, 280 tokens (sizes.vocab), <|endoftext|> between documents" in seen.out
        facts = json.loads(nlc("tokenizer", "inspect", "again.json", "--text", "story 61, naïve", "--json").out)
        assert facts["gives_back"] and facts["sha256"] == made["sha256"] and len(facts["ids"]) < 16

    def test_says_when_there_is_less_to_learn(self, nlc: Run) -> None:
        ended = nlc("tokenizer", "train", "--data", "many", "--vocab", "5000")
        assert ended.status == 0 and "no pair is left that occurs twice" in ended.err

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["train", "--vocab", "300", "--data", "nothing.txt"], 4, "no such file or folder: 'nothing.txt'"),
            (["train", "--vocab", "300", "--data", "stories.jsonl", "--field", "body"], 4, ":1: no field 'body'"),
            (["train", "--vocab", "300", "--data", "many", "--field", "body"], 2, "names a field of records"),
            (["train", "--vocab", "256"], 2, "--vocab"),
            (["inspect", "stories.jsonl"], 4, "is no tokenizer.json"),
            (["inspect", "none.json"], 4, "cannot read 'none.json'"),
        ],
        ids=["no data", "no field", "plain", "small", "other file", "no file"],
    )
    def test_refuses_in_one_line(self, nlc: Run, arguments: list[str], status: int, message: str) -> None:
        ended = nlc("tokenizer", *arguments)
        assert (ended.status, ended.out) == (status, "") and message in ended.err and ended.err.count("\n") == 1

    def test_needs_the_extra(self, nlc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        ended = nlc("tokenizer", "train", "--vocab", "300", "--data", "many")
        assert (ended.status, ended.out) == (4, "") and "pip install 'nlc[hf]'" in ended.err

    def test_a_model_learns_documents_in_its_tokens(self, nlc: Run) -> None:
        assert nlc("tokenizer", "train", "--data", "many", "--vocab", "280", "-o", "t.json").status == 0
        text = data.load("stories.jsonl", tokenizer="t.json", vocab=280)
        data.check(text, context=32, vocab=280)
        spec = package.load("linear_attention", set=dict(pair.split("=") for pair in [*TINY, "sizes.vocab=280"]))
        model = package.compile(spec).model(seed=0)
        first = evaluate(model, text.validation, batch=4, context=32)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        crops = Crops(text.train, batch=4, context=32, seed=0)
        for step in range(12):
            batch = crops.at(step)
            loss, _ = model.loss(batch.tokens, batch.targets, starts=batch.starts, final=True)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        last = evaluate(model, text.validation, batch=4, context=32)
        assert last.bytes > last.tokens and last.bits_per_byte < 0.8 * first.bits_per_byte < 8
