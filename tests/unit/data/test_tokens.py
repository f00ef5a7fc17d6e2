"""tokenizer.json as a source of tokens: what they stand for, in bytes; training one; what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime import data
from runtime.data import bpe, pieces, plain, sources
from runtime.data.tokens import Tokenizer, ended
from runtime.errors import DataError

from .files import lines

tokenizers = pytest.importorskip("tokenizers")
ROOT = Path(__file__).parents[3]
TEXT = "What is naïve on Monday 🙂 is wise on Tuesday;\n  and so on.\n" * 400


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


@pytest.fixture
def tokenizer(tmp_path: Path, text: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe.train(sources.find(text), 280))
    return path


def test_tokens_read_back_as_the_text(text: Path, tokenizer: Path) -> None:
    found = data.load(text, tokenizer=tokenizer)
    made = Tokenizer(tokenizer)
    assert made.text(found.train.tokens.tolist()) + made.text(found.validation.tokens.tolist()) == TEXT
    assert found.train.tokens.dtype == torch.uint16 and int(found.train.tokens.long().max()) < made.vocab <= 280
    assert found.tokenizer is not None and "training tokens" in str(found)


def test_the_sizes_of_tokens_sum_to_the_bytes_of_the_text(text: Path, tokenizer: Path) -> None:
    found = data.load(text, tokenizer=tokenizer).validation
    read = Tokenizer(tokenizer).text(found.tokens.tolist())
    assert found.bytes_of(0, len(found)) == len(read.encode()) and found.sizes is not None
    assert int(found.sizes.max()) <= 10 and int(found.sizes.min()) >= 0


@pytest.mark.parametrize(
    ("text", "ends", "sizes"),
    [
        ("ab cd", [2, 5], [2, 3]),
        ("ab cd ", [2, 5], [2, 4]),  # what is dropped at the end belongs to the last
        ("aï🙂b", [1, 2, 3, 3, 3, 4], [1, 2, 4, 0, 0, 1]),  # the first of several that make a character
        ("abc", [3, 1, 2], [3, 0, 0]),
        ("", [], []),
    ],
)
def test_a_token_stands_for_what_it_ends(text: str, ends: list[int], sizes: list[int]) -> None:
    assert ended(text, ends) == sizes


def test_any_kind_of_tokenizer_counts_every_byte(tmp_path: Path, text: Path) -> None:
    """One that drops spaces and lowers letters, as BERT's does."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "is": 1, "on": 2}, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.save(str(tmp_path / "words.json"))
    found = data.load(text, tokenizer=tmp_path / "words.json").validation
    held = len(TEXT.encode()) // 10
    assert held <= found.bytes_of(0, len(found)) <= held + 3


def test_nothing_is_added_cut_off_or_padded(tmp_path: Path, tokenizer: Path) -> None:
    made = tokenizers.Tokenizer.from_file(str(tokenizer))
    made.enable_truncation(3)
    made.enable_padding(length=50)
    made.post_processor = tokenizers.processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    made.save(str(tmp_path / "other.json"))
    other, same = Tokenizer(tmp_path / "other.json"), Tokenizer(tokenizer)
    texts = [TEXT[:500].encode(), b"a <|endoftext|> b"]
    for sizes in (False, True):
        assert [one.ids for one in other.encode(texts, sizes)] == [one.ids for one in same.encode(texts, False)]
    assert 0 not in other.ids("a <|endoftext|> b")


def test_documents_are_apart_by_the_tokenizers_own_token(tmp_path: Path, tokenizer: Path) -> None:
    stories = [f"Monday {i}" for i in range(60)]
    found = data.load(lines(tmp_path / "a.jsonl", ({"text": s} for s in stories)), tokenizer=tokenizer)
    made, train = Tokenizer(tokenizer), found.train
    assert train.begins is not None and made.end == "<|endoftext|>"
    ids = train.tokens.tolist()
    assert [ids[i] for i in train.begins.tolist()[1:]] == [0] * (len(train.begins) - 1) == [0] * ids.count(0)
    bytes_ = data.load(tmp_path / "a.jsonl").validation
    assert found.validation.bytes_of(0, len(found.validation)) == len(bytes_)  # it counts as a newline does


def test_without_such_a_token_it_is_a_newline(tmp_path: Path, tokenizer: Path) -> None:
    written = json.loads(tokenizer.read_text())
    written["added_tokens"] = []
    written["model"]["vocab"] = {name: i for name, i in written["model"]["vocab"].items() if i}
    tokenizer.write_text(json.dumps(written))
    made = Tokenizer(tokenizer)
    assert made.end is None and made.separator.ids == made.encode([b"\n"], False)[0].ids and made.vocab == 280


class TestTraining:
    def test_gives_the_same_file_in_any_process(self, text: Path, tokenizer: Path) -> None:
        code = f"from runtime.data import bpe, sources; print(bpe.train(sources.find({str(text)!r}), 280), end='')"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"},
        )  # fmt: skip
        assert done.stdout == tokenizer.read_text()

    def test_sees_no_text_of_validation(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("ab" * 900 + "yz" * 100)
        (tmp_path / "t.json").write_text(bpe.train(sources.find(tmp_path / "a.txt"), 280))
        names = Tokenizer(tmp_path / "t.json").names
        assert "ab" in names and "yz" not in names and len(names) < 280

    def test_needs_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("")
        with pytest.raises(DataError, match="holds no train text: nothing to learn from"):
            bpe.train(sources.find(tmp_path / "a.txt"), 280)


class TestUtf8:
    def test_a_file_is_cut_between_characters(self, tmp_path: Path, tokenizer: Path) -> None:
        for length in range(20, 30):
            (tmp_path / "a.txt").write_text(("🙂" * length + "aï")[: length + 2])
            found = data.load(tmp_path / "a.txt", tokenizer=tokenizer)
            read = [Tokenizer(tokenizer).text(part.tokens.tolist()) for part in (found.train, found.validation)]
            assert "".join(read) == "🙂" * length + "aï"

    def test_an_endless_line_is_cut_between_characters(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plain, "CHUNK", 5)
        (tmp_path / "a.txt").write_text("aï🙂" * 40)
        found = [piece.text for piece in plain.single(tmp_path / "a.txt").pieces(utf8=True)]
        assert b"".join(found).decode() == "aï🙂" * 40 and max(map(len, found)) <= 10

    @pytest.mark.parametrize(
        ("at", "line"), [(0, 1), (30_000, 501), (99_990, 1667)], ids=["first", "middle", "held out"]
    )
    def test_what_is_not_is_named_by_line_and_offset(
        self, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, at: int, line: int
    ) -> None:
        monkeypatch.setattr(plain, "CHUNK", 1000)
        text = bytearray((b"x" * 59 + b"\n") * 1667)
        text[at] = 0xFC
        (tmp_path / "a.txt").write_bytes(text)
        assert len(data.load(tmp_path / "a.txt").train)  # as bytes it may be anything
        with pytest.raises(DataError) as caught:
            data.load(tmp_path / "a.txt", tokenizer=tokenizer)
        expected = f"a.txt:{line}: byte 0xfc at offset {at:,} of the file is not UTF-8, which a tokenizer needs"
        assert str(caught.value).endswith(expected)

    @pytest.mark.parametrize("end", [b"\xc3", b"\xf0\x9f\x99"], ids=["two", "four"])
    def test_a_character_torn_at_the_end_of_the_file_too(self, tmp_path: Path, tokenizer: Path, end: bytes) -> None:
        (tmp_path / "a.txt").write_bytes(b"x\n" * 100 + end)
        with pytest.raises(DataError, match=f"a.txt:101: byte 0x{end[0]:02x} at offset 200 "):
            data.load(tmp_path / "a.txt", tokenizer=tokenizer)

    def test_whole_characters_of_what_may_end_in_one(self) -> None:
        for text in ("a", "ï", "🙂", "aï", "€"):
            encoded = ("x" + text).encode()
            last = len(text[-1].encode())
            assert pieces.whole(encoded) == len(encoded)
            assert all(pieces.whole(encoded[:-cut]) == len(encoded) - last for cut in range(1, last))


class TestRefusals:
    def test_another_vocabulary(self, text: Path, tokenizer: Path, cache: Path) -> None:
        message = f"'{tokenizer}' has 280 tokens, sizes.vocab of the spec is 256: say --set sizes.vocab=280"
        with pytest.raises(DataError) as caught:
            data.load(text, tokenizer=tokenizer, vocab=256)
        assert str(caught.value) == message and caught.value.status == 2
        assert not cache.exists()  # before anything is read
        with pytest.raises(DataError, match=r"sizes\.vocab=280"):
            data.check(data.load(text, tokenizer=tokenizer), context=8, vocab=256)

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            (None, "cannot read '.*t.json': No such file"),
            (b"{}", "is no tokenizer.json: "),
            (b"\xff", "is no tokenizer"),
        ],
        ids=["missing", "other", "binary"],
    )
    def test_no_tokenizer(self, tmp_path: Path, text: Path, written: bytes | None, message: str) -> None:
        if written is not None:
            (tmp_path / "t.json").write_bytes(written)
        with pytest.raises(DataError, match=message) as caught:
            data.load(text, tokenizer=tmp_path / "t.json")
        assert caught.value.status == 4 and "\n" not in str(caught.value)

    @pytest.mark.parametrize("what", ["reading '.*'", "training a tokenizer"])
    def test_without_the_library_the_extra_is_named(
        self, text: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(DataError, match=what + r" needs the library tokenizers: pip install 'nlc\[hf\]'"):
            Tokenizer(tokenizer) if "reading" in what else bpe.train(sources.find(text), 280)


class TestAgain:
    def test_finds_the_same_data(self, tmp_path: Path, tokenizer: Path) -> None:
        path = lines(tmp_path / "a.jsonl", ({"body": f"Monday {i}"} for i in range(60)))
        first = data.load(path, field="body", tokenizer=tokenizer, pack="text")
        facts = json.loads(json.dumps(first.facts()))
        assert facts["pack"] == "text" and facts["tokenizer"]["vocab"] == 280
        assert data.again(facts).facts() == facts
        other = data.again(facts, lines(tmp_path / "b.jsonl", ({"text": f"Tuesday {i}"} for i in range(60))))
        assert other.digest != first.digest and other.tokenizer is not None and other.pack == "documents"

    def test_refuses_another_tokenizer(self, text: Path, tokenizer: Path) -> None:
        facts = data.load(text, tokenizer=tokenizer).facts()
        tokenizer.write_text(tokenizer.read_text() + "\n")
        with pytest.raises(DataError, match="is not the tokenizer that it was when the run began"):
            data.again(facts)

    def test_finds_the_copy_in_a_run(self, tmp_path: Path, text: Path, tokenizer: Path) -> None:
        first = data.load(text, tokenizer=tokenizer)
        assert first.tokenizer is not None
        (tmp_path / "run").mkdir()
        first.tokenizer.keep(tmp_path / "run")
        tokenizer.unlink()
        assert data.again(first.facts(), run=tmp_path / "run").digest == first.digest
        with pytest.raises(DataError, match=r"cannot read '.*tokenizer\.json'"):
            data.again(first.facts())

    def test_of_a_run_that_knew_only_a_path(self, text: Path) -> None:
        assert data.again({"path": str(text), "sha256": "0"}).digest == data.load(text).digest
        assert data.again({"path": None}).digest == data.load().digest
