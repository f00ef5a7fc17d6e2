"""The text to learn from -> bytes for training, bytes for validation, one byte a token.

Without a path it is the source of the installed Python's standard library: always there, no download.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import USAGE, DataError

SKIPPED = frozenset({
    "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "distutils", "ensurepip", "encodings",
    "site-packages", "dist-packages",
})  # fmt: skip
TENTH = 10  # one part in ten is held out for validation
SNIFFED = 8192  # bytes looked at to tell text from binary


@dataclass(frozen=True, slots=True)
class Data:
    """Training and validation bytes (uint8, one axis), where they came from, and the digest of both."""

    train: Tensor
    validation: Tensor
    source: str
    digest: str

    def __str__(self) -> str:
        sizes = f"{len(self.train):,} training bytes, {len(self.validation):,} validation bytes"
        return f"{self.source}: {sizes}, digest {self.digest[:16]}"


def load(path: str | Path | None = None) -> Data:
    """The built-in corpus, or a text file (its last tenth is validation), or a folder (a tenth of its files is).

    Raises DataError when there is nothing there, nothing in it, or it cannot be read.
    """
    if path is None:
        return standard_library()
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such file or folder: '{path}'")
    return folder(path) if path.is_dir() else single(path)


def standard_library(root: Path | None = None) -> Data:
    """The Python files of the standard library; a tenth, chosen by the hash of the path, is held out."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    names = [name for name in files(root, SKIPPED) if name.endswith(".py")]
    if not names:
        raise DataError(f"this Python ({root}) has no source of its standard library: give a file or folder to learn")
    train, validation = split(root, names)
    return pack(train, validation, f"the standard library of Python {platform.python_version()}")


def folder(path: Path) -> Data:
    """Every text file below a folder; hidden and binary files are left out."""
    names = [name for name in files(path) if not binary(path / name)]
    if not names:
        raise DataError(f"'{path}' holds no text file")
    train, validation = split(path, names)
    if not train or not validation:  # too few files for a tenth of them: a tenth of the bytes
        train, validation = last_tenth(train or validation)
    return pack(train, validation, f"{path} ({len(names):,} files)")


def single(path: Path) -> Data:
    """One file: its last tenth is held out."""
    return pack(*last_tenth(read(path)), str(path))


def files(root: Path, skipped: frozenset[str] = frozenset()) -> list[str]:
    """Relative posix paths of the files below `root`, in the order of their parts, whatever the disk says.

    Pipes, sockets and links to nowhere are no files."""

    def walk() -> Iterator[str]:
        for here, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
            for name in names:
                if name not in skipped and not name.startswith(".") and (Path(here) / name).is_file():
                    yield (Path(here) / name).relative_to(root).as_posix()

    return sorted(walk(), key=lambda name: name.split("/"))


def held_out(name: str) -> bool:
    """Whether a file is for validation: the hash of its relative path, modulo ten, is 0."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % TENTH == 0


def split(root: Path, names: list[str]) -> tuple[bytes, bytes]:
    """(training, validation) bytes, file after file with a newline between."""
    train = b"\n".join(read(root / name) for name in names if not held_out(name))
    return train, b"\n".join(read(root / name) for name in names if held_out(name))


def last_tenth(text: bytes) -> tuple[bytes, bytes]:
    cut = len(text) - len(text) // TENTH
    return text[:cut], text[cut:]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None


def binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(SNIFFED)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None


def pack(train: bytes, validation: bytes, source: str) -> Data:
    if not train or not validation:
        raise DataError(f"{source} holds {len(train) + len(validation)} bytes: nothing to learn from")
    digest = hashlib.sha256(train + b"\0" + validation).hexdigest()
    return Data(tensor(train), tensor(validation), source, digest)


def tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def check(data: Data, context: int, vocab: int) -> None:
    """Raises DataError unless both parts hold a whole sequence and its targets, and every byte is in the vocabulary."""
    for part, text in (("training", data.train), ("validation", data.validation)):
        if len(text) < context + 1:
            need = f"a sequence of {context} tokens and its targets needs {context + 1}"
            raise DataError(f"{data.source}: {len(text):,} {part} bytes, but {need}")
        if (highest := int(text.max())) >= vocab:
            raise DataError(f"{data.source}: byte {highest} is outside the spec's vocabulary of {vocab}", USAGE)
