"""Tokens one by one -> text as it comes: a character is given out once no later token can change it."""

from __future__ import annotations

import codecs
from typing import Protocol

from runtime.data.tokens import Codec, Tokenizer

BROKEN = "\ufffd"  # what a decoder puts for bytes that are no character
LONGEST = 8  # tokens that may wait for one character: UTF-8 has at most four bytes


class Decoder(Protocol):
    def feed(self, token: int) -> str:
        """The text that this token completes; perhaps nothing."""

    def end(self) -> str:
        """What is left: bytes that became no character, as U+FFFD."""


def decoder(codec: Codec) -> Decoder:
    return Pieces(codec) if isinstance(codec, Tokenizer) else Utf8()


class Utf8:
    """A token is a byte."""

    def __init__(self) -> None:
        self.inner = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self.inner.decode(bytes((token,)))

    def end(self) -> str:
        return self.inner.decode(b"", final=True)


class Pieces:
    """Tokens of a tokenizer.json.

    What one says may depend on the one before it (a space, a character in two halves), so each is read together with
    the last ones given out, and only what is new counts.  Few are kept, so the work does not grow with the text.
    """

    def __init__(self, codec: Tokenizer) -> None:
        self.codec = codec
        self.out: list[int] = []  # given out, and needed to read those after them
        self.waiting: list[int] = []

    def feed(self, token: int) -> str:
        self.waiting.append(token)
        whole = self.codec.text(self.out + self.waiting)
        if whole.endswith(BROKEN) and len(self.waiting) < LONGEST:
            return ""
        return self._given(whole)

    def end(self) -> str:
        return self._given(self.codec.text(self.out + self.waiting))

    def _given(self, whole: str) -> str:
        new = whole[len(self.codec.text(self.out)) :]
        self.out, self.waiting = self.waiting or self.out, []
        return new
