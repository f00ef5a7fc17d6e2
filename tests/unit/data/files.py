"""Files to learn from, and what was read of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from runtime.data import Text


def tree(root: Path, **files: str | bytes) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def lines(path: Path, records: Iterable[object]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def text_of(part: Text | Tensor) -> bytes:
    return bytes((part if isinstance(part, Tensor) else part.tokens).tolist())


def documents(part: Text) -> list[bytes]:
    """The documents of a part that is bytes, without the newlines between them."""
    assert part.begins is not None
    text = text_of(part)
    borders = [*part.begins.tolist(), len(text)]
    cut = [text[a:b] for a, b in pairwise(borders)]
    return [cut[0], *(one.removeprefix(b"\n") for one in cut[1:])]
