"""Plain text: a file, a folder, files that a pattern names, or the source of Python's standard library.

A file alone keeps its last tenth for validation; of several, a tenth is held out by the hash of their relative paths.
"""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, NamedTuple

from runtime.data.pieces import (
    BLOCK,
    TENTH,
    Part,
    Piece,
    Source,
    changed,
    held_out,
    in_order,
    info,
    not_utf8,
    unreadable,
    whole,
)
from runtime.errors import DataError

SKIPPED = frozenset({
    "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "distutils", "ensurepip", "encodings",
    "site-packages", "dist-packages",
})  # fmt: skip
SNIFFED = 8192  # bytes looked at to tell text from binary
CHUNK = 1 << 16  # bytes given to a tokenizer at once, up to the end of the line; tokens depend on it


class Span(NamedTuple):
    """Bytes of a file, from `start` up to `end`."""

    part: Part
    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class Plain(Source):
    """Files of text, each a document."""

    names: tuple[str, ...] = field(default=())  # of several files, relative to the folder they are in

    def identity(self) -> dict[str, Any]:
        return {"kind": "plain", "names": list(self.names), **super().identity()}

    def pieces(self, utf8: bool) -> Iterator[Piece]:
        for span in self.spans(utf8):
            begins = True
            for text in read(span, utf8):
                yield Piece(span.part, text, begins)
                begins = False

    def spans(self, utf8: bool) -> Iterator[Span]:
        """What to read for either part.  With `utf8` a file is cut between characters."""
        sizes = [info(path)[0] for path in self.paths]
        apart = [held_out(name.encode()) for name in self.names] or [False]
        if 0 < sum(size for size, out in zip(sizes, apart, strict=True) if out) < sum(sizes):
            for path, size, out in zip(self.paths, sizes, apart, strict=True):
                yield Span("validation" if out else "train", path, 0, size)
            return
        # One file, or too few for a tenth of them: the last tenth of the bytes, newlines between files counted.
        length = sum(sizes) + len(sizes) - 1
        cut = length - length // TENTH
        for path, size, end in zip(self.paths, sizes, accumulate(size + 1 for size in sizes), strict=True):
            here = cut - (end - 1 - size)  # the cut, from this file's beginning
            if here <= 0 or here >= size:
                yield Span("train" if here > 0 else "validation", path, 0, size)
                continue
            here = between(path, here) if utf8 else here
            yield Span("train", path, 0, here)
            yield Span("validation", path, here, size)


# ---- which files ----------------------------------------------------------------------------------------------------


def standard_library(root: Path | None = None) -> Plain:
    """The Python files of the standard library.  Raises DataError where a Python comes without."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    names = [name for name in files(root, SKIPPED) if name.endswith(".py")]
    if not names:
        raise DataError(f"this Python ({root}) has no source of its standard library: give a file or folder to learn")
    return several(f"the standard library of Python {platform.python_version()}", root, names)


def single(path: Path) -> Plain:
    return Plain(str(path), (path,))


def several(name: str, root: Path, names: Sequence[str]) -> Plain:
    return Plain(name, tuple(root / one for one in names), tuple(names))


def files(root: Path, skipped: frozenset[str] = frozenset()) -> list[str]:
    """Relative posix paths of the files below `root`, in the order of their parts, whatever the disk says.

    Pipes, sockets and links to nowhere are no files, and what is hidden is left out."""

    def walk() -> Iterator[str]:
        for here, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
            for name in names:
                if name not in skipped and not name.startswith(".") and (Path(here) / name).is_file():
                    yield (Path(here) / name).relative_to(root).as_posix()

    return in_order(list(walk()))


def binary(path: Path) -> bool:
    """Whether a file is something else than text: a zero byte is near its beginning."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(SNIFFED)
    except OSError as error:
        raise unreadable(path, error) from None


# ---- reading --------------------------------------------------------------------------------------------------------


def read(span: Span, utf8: bool) -> Iterator[bytes]:
    """The bytes of a span, one block after another; an empty span is one empty block."""
    try:
        with span.path.open("rb") as file:
            file.seek(span.start)
            yield from texts(file, span) if utf8 else blocks(file, span)
    except OSError as error:
        raise unreadable(span.path, error) from None


def blocks(file: IO[bytes], span: Span) -> Iterator[bytes]:
    left = span.end - span.start
    while True:
        text = taken(file, span, min(BLOCK, left))
        left -= len(text)
        yield text
        if not left:
            return


def texts(file: IO[bytes], span: Span) -> Iterator[bytes]:
    """Blocks that are UTF-8 and end with a line; in a line without end, with a character."""
    at = span.start
    while True:
        text = taken(file, span, min(CHUNK, span.end - at))
        text += file.readline(min(CHUNK, span.end - at - len(text)))
        if at + len(text) < span.end:
            text = text[: whole(text)]
            file.seek(at + len(text))
        decodable(text, span.path, at)
        at += len(text)
        yield text
        if at == span.end:
            return


def taken(file: IO[bytes], span: Span, count: int) -> bytes:
    """So many bytes.  Raises DataError where there are fewer than there were."""
    text = file.read(count)
    if len(text) < count:
        raise changed(span.path)
    return text


def decodable(text: bytes, path: Path, offset: int) -> None:
    """Raises DataError, with the line, unless these bytes of a file are UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = 1 + newlines(path, offset) + text.count(b"\n", 0, error.start)
        raise DataError(f"{path}:{line}: {not_utf8(text, error, offset)}, which a tokenizer needs") from None


def newlines(path: Path, end: int) -> int:
    """Lines that end before a place in a file."""
    with path.open("rb") as file:
        return sum(file.read(min(BLOCK, end - at)).count(b"\n") for at in range(0, end, BLOCK))


def between(path: Path, at: int) -> int:
    """The nearest place, not after `at`, where a character of UTF-8 ends."""
    first = max(at - 4, 0)
    try:
        with path.open("rb") as file:
            file.seek(first)
            return first + whole(file.read(at - first))
    except OSError as error:
        raise unreadable(path, error) from None
