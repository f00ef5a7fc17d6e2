"""The published sets as they are published: CLINC150 (JSON), Banking77 and DBpedia with 70 classes (CSV).

A folder that holds them is named by NLC_DATA, each set in a folder of its own name below it, or the set's own folder is
given; every file may be gzipped.  What is missing or is not of the format is said with its place.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import DataError

ENVIRONMENT = "NLC_DATA"

HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: JSON may hold it, text may not

Pairs = list[tuple[str, str]]  # (text, label)


@dataclass(frozen=True, slots=True)
class Published:
    """train, test: (text, label).  domains: labels that belong together, where the set says so."""

    train: Pairs
    test: Pairs
    domains: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Those of the training texts, in the order in which they first stand there."""
        return list(dict.fromkeys(label for _, label in self.train))


WHERE = {
    "clinc150": "data_full.json and domains.json of github.com/clinc/oos-eval",
    "banking77": "train.csv and test.csv of github.com/PolyAI-LDN/task-specific-datasets, banking_data",
    "dbpedia70": "train.csv and test.csv with a header text,label, as dbpedia_*.csv of github.com/SalehMomeni/KLDA",
}


def read(name: str, path: str | Path | None = None) -> Published:
    """One of the sets of WHERE.  Raises DataError."""
    folder = place(name, path)
    if name == "clinc150":
        return clinc150(folder, name)
    label = "category" if name == "banking77" else "label"
    return Published(*(table(folder, f"{part}.csv", label, name) for part in ("train", "test")))


def place(name: str, path: str | Path | None) -> Path:
    """The folder of a set: the one that is given, or NLC_DATA/name."""
    if path is not None:
        return Path(path)
    if not (root := os.environ.get(ENVIRONMENT)):
        raise DataError(
            f"{name} is not part of this project: put {WHERE[name]} into a folder {name}, "
            f"and let the environment variable {ENVIRONMENT} name the folder above it, or give --data FOLDER"
        )
    return Path(root) / name


def clinc150(folder: Path, name: str) -> Published:
    """{"train": [[text, intent], ...], "test": ...} without what is out of scope.  domains.json: domain: intents."""
    file, found = parsed(folder, "data_full.json", name)
    parts = []
    for part in ("train", "test"):
        rows = found.get(part) if isinstance(found, dict) else None
        if not isinstance(rows, list) or not rows:
            raise DataError(f"'{file}': a list of [text, intent] is expected at key '{part}'")
        for i, row in enumerate(rows):
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(x, str) and x.strip() for x in row)):
                raise DataError(f"'{file}': {part}[{i}] is {json.dumps(row)[:60]}; [text, intent] is expected")
            if any(map(HALF.search, row)):
                raise DataError(f"'{file}': {part}[{i}] is {json.dumps(row)[:60]}, with half of a surrogate pair")
        parts.append([(text, label) for text, label in rows if label != "oos"])
    domains = {}
    if there(folder, "domains.json") is not None:
        file, domains = parsed(folder, "domains.json", name)
        lists = list(domains.values()) if isinstance(domains, dict) else [None]
        if not all(isinstance(labels, list) and all(isinstance(x, str) for x in labels) for labels in lists):
            raise DataError(f"'{file}' is {json.dumps(domains)[:60]}; {{domain: [intent, ...]}} is expected")
        if missing := sorted({label for _, label in parts[0]}.difference(*lists)):
            raise DataError(f"'{file}': intent '{missing[0]}' is in no domain; {{domain: [intent, ...]}} is expected")
    return Published(*parts, domains=domains)


def table(folder: Path, name: str, label: str, of: str) -> Pairs:
    """The rows of a CSV file with a header text,<label>: RFC 4180, so a field may hold lines."""
    file, text = contents(folder, name, of)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: Pairs = []
    try:
        head = next(rows, [])
        if head != ["text", label]:
            raise DataError(f"'{file}':1: the header is {','.join(head)[:60]!r}; 'text,{label}' is expected")
        for row in rows:
            if len(row) != 2 or not all(cell.strip() for cell in row):
                raise DataError(f"'{file}':{rows.line_num}: {len(row)} fields; a text and a {label} are expected")
            found.append((row[0], row[1]))
    except csv.Error as error:
        raise DataError(f"'{file}':{rows.line_num}: not CSV: {error}") from None
    if not found:
        raise DataError(f"'{file}': it has a header and no rows")
    return found


def parsed(folder: Path, name: str, of: str) -> tuple[Path, Any]:
    file, text = contents(folder, name, of)
    try:
        return file, json.loads(text)
    except (RecursionError, ValueError) as error:  # depth and length of numbers have a limit
        raise DataError(f"'{file}': not read as JSON: {error}") from None


def there(folder: Path, name: str) -> Path | None:
    """The file, as it is or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def contents(folder: Path, name: str, of: str) -> tuple[Path, str]:
    file = there(folder, name)
    if file is None:
        raise DataError(f"'{folder / name}' is not there, nor {name}.gz: {of} is {WHERE[of]}")
    try:
        data = file.read_bytes()
        return file, (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}': byte {error.start:,} is not UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{file}': {getattr(error, 'strerror', None) or error}") from None
