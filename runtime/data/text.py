"""What the loading of data ends in: tokens for training and for validation, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from runtime.data.tokens import Codec, Tokenizer
from runtime.errors import USAGE, DataError

SAMPLE, PIECES = 1 << 20, 256  # tokens that a mean is taken over where there are more, from so many places

Pack = Literal["text", "documents"]  # how documents meet: as one running text, or each from the beginning


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of one part, document after document."""

    tokens: Tensor  # (N,) uint8, uint16 or int32; perhaps mapped from a file
    begins: Tensor | None = None  # (D,) int64, ascending from 0: where documents begin; None: borders do not count
    sizes: Tensor | None = None  # (N,) int32: bytes of text that each token ends; None: one

    def __len__(self) -> int:
        return len(self.tokens)

    def starts(self, at: Tensor) -> Tensor | None:
        """Whether a document begins at each of these places; None where borders do not count."""
        if self.begins is None:
            return None
        return self.begins[torch.searchsorted(self.begins, at, right=True) - 1] == at

    def bytes_of(self, first: int, last: int) -> int:
        """Bytes of text that the tokens from `first` up to `last`, left out, stand for."""
        return last - first if self.sizes is None else int(self.sizes[first:last].sum())

    @property
    def bytes_per_token(self) -> float:
        """The mean over all tokens, or over pieces from the whole of a long text."""
        if self.sizes is None:
            return 1.0
        if len(self) <= SAMPLE:
            return self.bytes_of(0, len(self)) / len(self)
        long = SAMPLE // PIECES
        firsts = [i * (len(self) - long) // (PIECES - 1) for i in range(PIECES)]
        return sum(self.bytes_of(first, first + long) for first in firsts) / SAMPLE


@dataclass(frozen=True, slots=True)
class Data:
    """Two parts, where they came from, how they were made, and a digest that tells other data from these."""

    train: Text
    validation: Text
    source: str
    digest: str
    codec: Codec
    pack: Pack
    path: Path | None = None  # as given; None is the built-in corpus
    field: str | None = None  # of records

    unit = "bits/byte"  # of its loss, as a person reads it

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.codec if isinstance(self.codec, Tokenizer) else None

    @property
    def bytes_per_token(self) -> float:
        """The mean of the validation part, the one whose tokens are sized."""
        return self.validation.bytes_per_token

    def __str__(self) -> str:
        unit = self.codec.unit
        sizes = f"{len(self.train):,} training {unit}, {len(self.validation):,} validation {unit}"
        return f"{self.source}: {sizes}, digest {self.digest[:16]}"

    def facts(self) -> dict[str, Any]:
        """As JSON: enough to find the same data `again`, and to tell that they are the same."""
        tokenizer = self.tokenizer
        return {
            "path": None if self.path is None else str(self.path.resolve()),
            "field": self.field,
            "pack": self.pack,
            "tokenizer": tokenizer
            and {"file": str(tokenizer.path.resolve()), "sha256": tokenizer.digest, "vocab": tokenizer.vocab},
            "source": self.source,
            "sha256": self.digest,
            "training_tokens": len(self.train),
            "validation_tokens": len(self.validation),
            "bytes_per_token": round(self.bytes_per_token, 6),
        }


def check(data: Data, context: int, vocab: int) -> None:
    """Raises DataError unless both parts hold a whole sequence and its targets, and the vocabulary is the spec's."""
    data.codec.check(vocab)
    for part, text in (("training", data.train), ("validation", data.validation)):
        if len(text) < context + 1:
            need = f"a sequence of {context} tokens and its targets needs {context + 1}"
            raise DataError(f"{data.source}: {len(text):,} {part} {data.codec.unit}, but {need}")
        if data.tokenizer is None and (highest := int(text.tokens.max())) >= vocab:
            raise DataError(f"{data.source}: byte {highest} is outside the spec's vocabulary of {vocab}", USAGE)
