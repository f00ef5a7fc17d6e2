"""Text -> tokens: one a byte, or those of a Hugging Face tokenizer.json.

Both count bytes: each token stands for the bytes of text that it ends, so bits per byte mean the same with either.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from runtime.data.pieces import missing, unreadable
from runtime.errors import USAGE, DataError

NAME = "tokenizer.json"  # of the copy in a run
END = "<|endoftext|>"  # what `nlc tokenizer train` calls the token between documents
ENDS = (END, "<|end_of_text|>", "</s>", "<eos>")  # and others; without any of them it is a newline


class Encoded(NamedTuple):
    """The tokens of a piece of text, packed in the codec's dtype, and the int32 bytes that each of them ends."""

    ids: bytes
    number: int
    sizes: bytes = b""


class Bytes:
    """A token is a byte, and a newline stands between documents."""

    unit = "bytes"
    dtype = torch.uint8
    separator = Encoded(b"\n", 1)
    identity = "bytes"

    def encode(self, texts: Sequence[bytes], sizes: bool) -> list[Encoded]:
        return [Encoded(text, len(text)) for text in texts]

    def check(self, vocab: int) -> None:
        """Any vocabulary will do whose bytes are those of the text."""


class Tokenizer:
    """A tokenizer.json, as its author meant it for plain text: nothing is added, cut off or padded.

    What looks like a special token in the text is encoded as the text that it is.
    """

    unit = "tokens"

    def __init__(self, path: str | Path) -> None:
        """Raises DataError when the library or the file is missing, or the file is something else."""
        self.path = Path(path)
        try:
            self.written = self.path.read_bytes()
        except OSError as error:
            raise unreadable(self.path, error) from None
        try:
            import tokenizers
        except ModuleNotFoundError:
            raise missing(f"reading '{path}'", "tokenizers") from None
        try:
            self.inner = tokenizers.Tokenizer.from_buffer(self.written)
        except Exception as error:  # the library raises no other
            raise DataError(f"'{path}' is no tokenizer.json: {' '.join(str(error).split())}") from None
        self.inner.no_truncation()
        self.inner.no_padding()
        self.inner.encode_special_tokens = True
        self.digest = hashlib.sha256(self.written).hexdigest()
        self.identity = self.digest
        self.kind: str = json.loads(self.written)["model"].get("type", "?")
        self.names: dict[str, int] = self.inner.get_vocab(with_added_tokens=True)
        self.vocab = max(self.names.values(), default=-1) + 1
        self.dtype = torch.uint16 if self.vocab <= 1 << 16 else torch.int32
        self.end = next((name for name in ENDS if name in self.names), None)

    def keep(self, folder: Path) -> None:
        """A copy in the folder of a run, which can then be moved or outlive the original."""
        part = folder / f"{NAME}.part"
        part.write_bytes(self.written)
        part.replace(folder / NAME)

    @property
    def separator(self) -> Encoded:
        """What stands between documents; it counts as the one byte of a newline."""
        ids = self.ids("\n") if self.end is None else [self.names[self.end]]
        return Encoded(self._packed(ids), len(ids), packed("i", [1] + [0] * (len(ids) - 1)) if ids else b"")

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        return found

    def text(self, ids: Sequence[int]) -> str:
        found: str = self.inner.decode(list(ids), skip_special_tokens=False)
        return found

    def encode(self, texts: Sequence[bytes], sizes: bool) -> list[Encoded]:
        """`texts` are UTF-8.  The sizes of a piece sum to its bytes, unless nothing of it is left as a token."""
        decoded = [text.decode() for text in texts]
        if not sizes:
            found = self.inner.encode_batch_fast(decoded, add_special_tokens=False)
            return [Encoded(self._packed(one.ids), len(one)) for one in found]
        found = self.inner.encode_batch(decoded, add_special_tokens=False)
        return [
            Encoded(self._packed(one.ids), len(one), packed("i", ended(text, [end for _, end in one.offsets])))
            for text, one in zip(decoded, found, strict=True)
        ]

    def check(self, vocab: int) -> None:
        """Raises DataError unless the spec's vocabulary is this one."""
        if vocab != self.vocab:
            found = f"'{self.path}' has {self.vocab:,} tokens, sizes.vocab of the spec is {vocab:,}"
            raise DataError(f"{found}: say --set sizes.vocab={self.vocab}", USAGE)

    def _packed(self, ids: Sequence[int]) -> bytes:
        return packed("H" if self.dtype == torch.uint16 else "i", ids)


Codec = Bytes | Tokenizer


def codec(tokenizer: str | Path | None) -> Codec:
    return Bytes() if tokenizer is None else Tokenizer(tokenizer)


def packed(code: str, numbers: Sequence[int]) -> bytes:
    return array(code, numbers).tobytes()


def ended(text: str, ends: Sequence[int]) -> list[int]:
    """Bytes of UTF-8 that each token ends, from the place in characters where it does; together, all of the text.

    Of several tokens that make one character the first has its bytes."""
    if not ends:
        return []
    at = torch.tensor(ends).cummax(0).values
    at[-1] = len(text)
    if not text.isascii():
        at = widths(text)[at]
    return at.diff(prepend=at.new_zeros(1)).tolist()


def widths(text: str) -> Tensor:
    """(characters + 1,) bytes of UTF-8 before each character, and before the end."""
    code = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32)
    wide = 1 + (code >= 0x80).long() + (code >= 0x800).long() + (code >= 0x10000).long()
    return torch.cat((wide.new_zeros(1), wide.cumsum(0)))
