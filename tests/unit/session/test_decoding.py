from __future__ import annotations

import pytest

from runtime.data import Tokenizer, sources
from runtime.data.tokens import Bytes
from runtime.session import decoder

WORDS = "naïve café — 日本語 🙂🙂 once upon a time, once upon a time. "


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level tokenizer so small that one character takes several tokens."""
    pytest.importorskip("tokenizers")
    from runtime.data.bpe import train

    folder = tmp_path_factory.mktemp("bpe")
    (folder / "text.txt").write_text("once upon a time " * 50, encoding="utf-8")
    (folder / "tokenizer.json").write_text(train(sources.find(folder / "text.txt", None), 270), encoding="utf-8")
    return Tokenizer(folder / "tokenizer.json")


def pieces(codec: Bytes | Tokenizer, tokens: list[int]) -> list[str]:
    one = decoder(codec)
    return [*(one.feed(token) for token in tokens), one.end()]


def test_a_character_comes_with_its_last_byte() -> None:
    assert pieces(Bytes(), list("aé🙂".encode())) == ["a", "", "é", "", "", "", "🙂", ""]


def test_bytes_that_are_no_character_are_shown_and_lose_nothing_after_them() -> None:
    assert "".join(pieces(Bytes(), [*b"a", 0xFF, *b"b", 0xC3])) == "a\ufffdb\ufffd"


def test_tokens_give_the_text_back_piece_by_piece(bpe: Tokenizer) -> None:
    found = pieces(bpe, bpe.ids(WORDS * 5))
    assert "".join(found) == WORDS * 5
    assert "\ufffd" not in "".join(found) and len(found) > 100


def test_half_a_character_does_not_stop_what_comes_after_it(bpe: Tokenizer) -> None:
    half = bpe.ids("🙂")[:-1]
    assert len(half) > 1
    found = "".join(pieces(bpe, half + bpe.ids(" once upon a time" * 3)))
    assert found.endswith(" once upon a time") and "\ufffd" in found


def test_what_is_kept_does_not_grow(bpe: Tokenizer) -> None:
    from runtime.session.decoding import Pieces

    one = Pieces(bpe)
    for token in bpe.ids("once upon a time " * 100):
        one.feed(token)
    assert len(one.out) + len(one.waiting) <= 8
