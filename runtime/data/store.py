"""Where packed text is held, by name: in memory, or in files that are mapped when they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

import torch
from torch import Tensor

from runtime.data.pieces import BLOCK

TEXT = ("train.tokens", "validation.tokens")
BORDERS = ("train.begins", "validation.begins")
NAMES = (*TEXT, *BORDERS, "validation.sizes")


class Store(Protocol):
    def create(self, name: str) -> IO[bytes]: ...

    def size(self, name: str) -> int:
        """Bytes; 0 where there is nothing of that name."""

    def blocks(self, name: str) -> Iterator[bytes | memoryview]:
        """What was written, piece by piece."""

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor: ...


class Memory:
    def __init__(self) -> None:
        self.files: dict[str, BytesIO] = {}

    def create(self, name: str) -> IO[bytes]:
        self.files[name] = BytesIO()
        return self.files[name]

    def size(self, name: str) -> int:
        return self.files[name].getbuffer().nbytes if name in self.files else 0

    def blocks(self, name: str) -> Iterator[bytes | memoryview]:
        if name in self.files:
            yield self.files[name].getbuffer()

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        return torch.frombuffer(self.files[name].getbuffer(), dtype=dtype)


class Folder:
    """As a context it closes what was created, after it is safe on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open = ExitStack()
        self.written: list[IO[bytes]] = []

    def create(self, name: str) -> IO[bytes]:
        file = self.open.enter_context((self.path / name).open("xb"))
        self.written.append(file)
        return file

    def size(self, name: str) -> int:
        path = self.path / name
        return path.stat().st_size if path.exists() else 0

    def blocks(self, name: str) -> Iterator[bytes | memoryview]:
        if (self.path / name).exists():
            with (self.path / name).open("rb") as file:
                while text := file.read(BLOCK):
                    yield text

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Mapped: pages are read when they are used, and given back when memory is short."""
        count = self.size(name) // dtype.itemsize
        return torch.from_file(str(self.path / name), shared=False, size=count, dtype=dtype)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files, self.written = self.written, []
        with self.open:
            for file in files if error is None else ():
                file.flush()
                os.fsync(file.fileno())


def digests(store: Store) -> dict[str, str]:
    """By name, the SHA-256 of everything up to the end of it, in the order of NAMES and with a zero byte between."""
    whole, found = hashlib.sha256(), {}
    for i, name in enumerate(NAMES):
        if i:
            whole.update(b"\0")
        for block in store.blocks(name):
            whole.update(block)
        found[name] = whole.hexdigest()
    return found
