"""Text that was made into tokens once, kept for the next run: a folder per text and tokenizer, whole or not there.

    <cache>/tokens/<key>/
        train.tokens  train.begins  validation.tokens  validation.begins  validation.sizes    (runtime.data.packing)
        manifest.json    sizes and SHA-256 of these; written last

<cache> is $NLC_CACHE, or nlc in $XDG_CACHE_HOME, or ~/.cache/nlc; it may be removed at any time.  The key is a hash of
content, tokenizer and format: a text that moves is found again, one that changes is made anew.  A folder is written
beside its place and renamed, and processes that need the same text at once wait for the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.data import packing
from runtime.data.pieces import Source, changed
from runtime.data.store import NAMES, Folder, digests
from runtime.data.tokens import Codec
from runtime.errors import DataError

FORMAT = 1  # of the files, and of how a text is cut into pieces
MANIFEST = "manifest.json"
DAY = 86_400.0  # seconds


def place() -> Path:
    """The folder that the packed texts are kept in."""
    if chosen := os.environ.get("NLC_CACHE"):
        return Path(chosen) / "tokens"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nlc" / "tokens"


def key(source: Source, codec: Codec) -> str:
    made_of = {"format": FORMAT, "order": sys.byteorder, "text": source.identity(), "tokens": codec.identity}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:40]


def packed(source: Source, codec: Codec, note: Callable[[str], None]) -> tuple[Folder, dict[str, str]]:
    """The text of a source as tokens, from the cache or made now, and its digests.

    Raises DataError for a text that cannot be read, or when the cache cannot be written.
    """
    stamp = source.stamp()
    name = key(source, codec)
    folder = Folder(place() / name)
    if found := whole(folder):
        return folder, found
    try:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.path, note):
            if found := whole(folder):  # another process was faster
                return folder, found
            if folder.path.exists():
                note(f"{folder.path} is damaged: it is made again")
                shutil.rmtree(folder.path)
            note(f"making tokens of {source.name}; they are kept in {folder.path}")
            return folder, make(source, codec, folder, stamp, note)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"cannot keep the tokens of {source.name} in '{place()}': {reason} (NLC_CACHE names another folder)"
        raise DataError(message) from None


def make(source: Source, codec: Codec, folder: Folder, stamp: object, note: Callable[[str], None]) -> dict[str, str]:
    """Write an entry beside its place and move it there; its digests."""
    part = folder.path.with_name(f"{folder.path.name}.{platform.node()}.{os.getpid()}.part")
    sweep(folder.path)
    try:
        part.mkdir()
        with Folder(part) as store:
            packing.pack(source, codec, store, note)
        if source.stamp() != stamp:
            raise changed(source.name)
        found = digests(store)
        sizes = {name: store.size(name) for name in NAMES}
        facts = {"format": FORMAT, "source": source.name, "tokens": codec.identity, "sizes": sizes, "sha256": found}
        with store:
            store.create(MANIFEST).write(json.dumps(facts, indent=1).encode())
        try:
            part.rename(folder.path)
        except OSError:
            if not whole(folder):  # unless one that the lock did not hold back was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def whole(folder: Folder) -> dict[str, str]:
    """The digests of an entry; nothing unless every file is there and as it was written."""
    try:
        facts = json.loads((folder.path / MANIFEST).read_bytes())
        if facts["sizes"] == {name: folder.size(name) for name in NAMES} and facts["sha256"] == digests(folder):
            return dict(facts["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def sweep(path: Path) -> None:
    """Remove what processes that were killed have left of an entry."""
    for old in path.parent.glob(f"{path.name}.*.part"):
        if time.time() - old.stat().st_mtime > DAY:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(path: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time is in here for an entry; the lock goes with the process that holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note("another process makes tokens of the same text: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
