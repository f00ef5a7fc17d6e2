"""What every source of text gives: pieces of documents, each for one of two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from runtime.errors import DataError

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
TENTH = 10  # one part in ten is held out for validation
BLOCK = 1 << 20  # bytes read at a time where nothing depends on it


class Piece(NamedTuple):
    """Text of one part: a document, or some of it; `begins` where a document does."""

    part: Part
    text: bytes
    begins: bool


@dataclass(frozen=True)
class Source:
    """Files that hold text.  A subclass gives the pieces."""

    name: str  # for people
    paths: tuple[Path, ...]
    documents: ClassVar[bool] = False  # whether each document stands for itself, unless one says otherwise

    def pieces(self, utf8: bool) -> Iterator[Piece]:
        """In order, documents of the parts perhaps mixed; with `utf8` every piece is UTF-8 and ends with a character.

        Raises DataError that names the file and the line of what cannot be read.
        """
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """As JSON, what decides about the pieces: the content of the files, not where they are."""
        return {"files": [digest(path) for path in self.paths]}

    @property
    def size(self) -> int | None:
        """Bytes of text there are at most; None where only reading can tell."""
        return sum(info(path)[0] for path in self.paths)

    def stamp(self) -> list[tuple[int, int]]:
        """Sizes and times of the files: the same as long as nobody writes to them."""
        return [info(path) for path in self.paths]


def held_out(content: bytes) -> bool:
    """Whether what this names, or is, is for validation: its hash, modulo ten, is 0."""
    return int(hashlib.sha256(content).hexdigest(), 16) % TENTH == 0


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def info(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change."""
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return found.st_size, found.st_mtime_ns


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read '{path}': {error.strerror or error}")


def changed(path: Path | str) -> DataError:
    return DataError(f"'{path}' changed while it was read")


def missing(what: str, library: str) -> DataError:
    """What to install for something that an extra adds."""
    return DataError(f"{what} needs the library {library}: pip install 'nlc[hf]'")


def not_utf8(text: bytes, error: UnicodeDecodeError, offset: int) -> str:
    """What is wrong with bytes that begin at `offset` of a file."""
    odd = f"byte 0x{text[error.start]:02x} at offset {offset + error.start:,} of the file is not UTF-8"
    wide = offset == 0 and text[:2] in (b"\xff\xfe", b"\xfe\xff")
    return f"{odd} (the file looks like UTF-16)" if wide else odd


def whole(text: bytes) -> int:
    """How much of some UTF-8 that may end within a character is whole characters."""
    for behind, byte in enumerate(reversed(text[-4:]), 1):
        if byte & 0xC0 != 0x80:  # a character begins here
            needs = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return len(text) if behind >= needs else len(text) - behind
    return len(text)


def in_order(names: Sequence[str]) -> list[str]:
    """Relative posix paths by their parts, whatever the disk says."""
    return sorted(names, key=lambda name: name.split("/"))
