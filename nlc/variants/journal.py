"""The journal of a search: JSON lines, only ever added to, each on the disk before the next is begun.

with Journal.open(folder) as journal:      held: no other command works in the folder meanwhile
    journal.records                        what is there already
    journal.add("run", {...})

read(folder) -> list of records            raises JournalError where a line is damaged, or the first is no search's
variant_text(path, trial)                  a variant as it was made; raises JournalError where it was changed since
salvaged(folder) -> Salvaged               for reports: what can be read, and which lines cannot
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nlc.variants.lines import checked

Record = Mapping[str, Any]

JOURNAL, LOCK = "journal.jsonl", ".lock"


def base_file(label: str) -> str:
    """Where the folder of a search keeps a base that was a file."""
    return f"bases/{label.replace('%', '%25').replace('/', '%2F')}"


class JournalError(Exception):
    """The folder cannot be worked in; the message says why."""


class Journal:
    def __init__(self, folder: Path, lock: IO[str], records: list[Record], whole: int) -> None:
        """`whole`: bytes of the journal that are whole lines; what a crash cut off after them goes."""
        self.folder, self.lock, self.records = folder, lock, records
        self.path = folder / JOURNAL
        self.file = self.path.open("ab")
        self.file.truncate(whole)
        self.file.seek(whole)

    @classmethod
    def open(cls, folder: Path) -> Journal:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise JournalError(f"'{error.filename}' is a file: a search has a folder") from None
        lock = (folder / LOCK).open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise JournalError(f"another command works in '{folder}'") from None
        except OSError:  # a file system that cannot tell
            pass
        try:
            records, whole = _read(folder / JOURNAL)
            return cls(folder, lock, records, whole)
        except BaseException:
            lock.close()
            raise

    def add(self, record: str, values: Record) -> Record:
        """Raises OSError where it cannot be written."""
        line: Record = {"record": record, "at": round(time.time(), 3), **values}
        try:
            self.file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise
        self.records.append(line)
        return line

    def of(self, record: str) -> Iterator[Record]:
        return (line for line in self.records if line["record"] == record)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self.file.close()
        self.lock.close()


def read(folder: Path) -> list[Record]:
    """Raises JournalError where there is none, a line of it is damaged, or it lacks the first."""
    if not (folder / JOURNAL).is_file():
        raise JournalError(f"'{folder}' holds no search: it has no {JOURNAL}")
    return _read(folder / JOURNAL)[0]


def put_variant(text: str, path: Path) -> str:
    """Write it whole, and on the disk before a line of the journal speaks of it; its digest."""
    path.parent.mkdir(exist_ok=True)
    part, data = path.with_suffix(".part"), text.encode()
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(part)
        raise
    part.replace(path)
    for folder in (path.parent, path.parent.parent):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return hashlib.sha256(data).hexdigest()


def variant_text(path: Path, trial: Record) -> str:
    """The spec of a trial, by its line.  Raises JournalError where its file was changed, OSError where it is gone."""
    data = path.read_bytes()
    if trial.get("digest") not in (None, "", hashlib.sha256(data).hexdigest()):  # "": of an older nlc
        raise JournalError(f"'{path}' is not the variant that the search made: give it back, or another --out")
    return data.decode()


@dataclass(frozen=True, slots=True)
class Salvaged:
    """lines: (number, record), None where it is damaged; cut: the last line has no end."""

    lines: tuple[tuple[int, Record | None], ...]
    cut: bool


def salvaged(folder: Path) -> Salvaged:
    """Every line for what it is, whatever the others are like.  Raises OSError where there is no journal to read."""
    *whole, rest = (folder / JOURNAL).read_bytes().split(b"\n")
    return Salvaged(tuple((number, _record(line)) for number, line in enumerate(whole, 1)), bool(rest))


def _record(line: bytes) -> Record | None:
    """None of a line that is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: nested too deep
        return None
    return record if isinstance(record, dict) and isinstance(record.get("record"), str) else None


def _read(path: Path) -> tuple[list[Record], int]:
    """The records, what they may lack filled in, and how many bytes they take; a last line that is cut is none."""
    found: list[Record] = []
    whole = 0
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], 1):
        record = _record(line)
        if record is None:
            raise JournalError(f"'{path}', line {number}, is damaged: give it back, or another --out")
        try:
            found.append({**checked(record), **record})
        except ValueError as error:
            why = f"is damaged ({error}): give it back, or another --out"
            raise JournalError(f"'{path}', line {number}, {why}") from None
        whole += len(line) + 1
    if found and found[0]["record"] != "search":
        raise JournalError(f"'{path}', line 1, is not the first of a search: give that back, or another --out")
    return found, whole
