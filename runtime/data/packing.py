"""Pieces of documents -> the tokens of either part, one document after the other, with where each begins.

A separator stands between documents: a newline, or the tokenizer's own token for it.  It is the first token of the
document after it and the last target of the one before: a model learns how documents end and how they begin, and every
token but the first of all is a target.

    d o g \\n c a t \\n e m u
    ^     ^        ^            begins
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from runtime.data.pieces import PARTS, Piece, Source
from runtime.data.store import Store
from runtime.data.tokens import Codec, Encoded, Tokenizer, packed

GROUP = 1 << 20  # bytes of text tokenized together
ENOUGH = 1 << 12  # begins that are kept before they are written
PAUSE = 30.0  # seconds between two words on how far it is


def pack(source: Source, codec: Codec, store: Store, note: Callable[[str], None]) -> None:
    """Write <part>.tokens and <part>.begins of both parts, and validation.sizes where tokens are not bytes.

    Memory does not grow with the text.  Raises DataError for what cannot be read, before anything has learned from it.
    """
    unlike_bytes = isinstance(codec, Tokenizer)
    packers = {
        part: Packer(
            store.create(f"{part}.tokens"),
            store.create(f"{part}.begins"),
            store.create(f"{part}.sizes") if unlike_bytes and part == "validation" else None,
            codec.separator,
        )
        for part in PARTS
    }
    done, said = 0, time.monotonic()
    for group in grouped(source.pieces(unlike_bytes)):
        for part, packer in packers.items():
            own = [piece for piece in group if piece.part == part]
            encoded = codec.encode([piece.text for piece in own], packer.sizes is not None)
            for piece, tokens in zip(own, encoded, strict=True):
                packer.add(tokens, piece.begins)
        done += sum(len(piece.text) for piece in group)
        if time.monotonic() - said > PAUSE:
            said = time.monotonic()
            note(f"{done / 1e6:,.0f} MB of text read")
    for packer in packers.values():
        packer.flush()


def grouped(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces together, as many as make a group."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece.text)
        if size >= GROUP or len(group) >= ENOUGH:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass
class Packer:
    """Writes the tokens of one part."""

    tokens: IO[bytes]
    begins: IO[bytes]
    sizes: IO[bytes] | None
    separator: Encoded
    count: int = 0  # tokens so far
    documents: int = 0
    newest: int = -1  # where the last document begins
    waiting: list[int] = field(default_factory=list)  # begins that are not yet written

    def add(self, encoded: Encoded, begins: bool) -> None:
        if begins:
            if self.count != self.newest:  # the first document is empty otherwise
                self.newest = self.count
                self.waiting.append(self.count)
            if self.documents:
                self._write(self.separator)
            self.documents += 1
        self._write(encoded)
        if len(self.waiting) >= ENOUGH:
            self.flush()

    def _write(self, encoded: Encoded) -> None:
        self.tokens.write(encoded.ids)
        if self.sizes is not None:
            self.sizes.write(encoded.sizes)
        self.count += encoded.number

    def flush(self) -> None:
        self.begins.write(packed("q", self.waiting))
        self.waiting.clear()
