"""A path as given -> where its text is: plain files, or records."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from runtime.data import plain, records
from runtime.data.pieces import Source, in_order
from runtime.errors import USAGE, DataError


def find(path: str | Path | None, field: str | None = None) -> Source:
    """The text of a file, a folder, a pattern such as 'corpus/*.txt' or a saved dataset; the built-in corpus of None.

    `field` is that of records.  Raises DataError where there is nothing to read.
    """
    source = named(path, field)
    if field is not None and not isinstance(source, records.Records):
        raise DataError(f"--field {field} names a field of records, and {source.name} is plain text", USAGE)
    return source


def named(path: str | Path | None, field: str | None) -> Source:
    if path is None:
        return plain.standard_library()
    given, path = str(path), Path(path)
    if path.is_dir():
        if records.dataset(path):
            return records.Rows(given, records.saved(path), field or "text", path)
        return among(given, path, plain.files(path), field)
    if path.is_file():
        return among(given, path.parent, [path.name], field, alone=True)
    if glob.has_magic(given):
        root = Path(*unmagical(path.parts))
        names = [found for found in glob.glob(given, recursive=True) if os.path.isfile(found)]
        if not names:
            raise DataError(f"no file matches '{given}'")
        return among(given, root, in_order([Path(name).relative_to(root).as_posix() for name in names]), field)
    if path.exists():
        raise DataError(f"'{path}' is a pipe or a device, which can be read only once: write it to a file")
    raise DataError(f"no such file or folder: '{path}'")


def unmagical(parts: Sequence[str]) -> list[str]:
    """The folders before the first part of a pattern."""
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return list(parts[:first])


def among(given: str, root: Path, names: Sequence[str], field: str | None, alone: bool = False) -> Source:
    """The files as records, where they are that, or as text, where they are that.  `alone`: the one that was named."""
    lines = [name for name in names if records.lines_of_json(name)]
    texts = [name for name in names if name not in set(lines) and (alone or not plain.binary(root / name))]
    if lines and texts:
        both = f"records ({lines[0]}) and plain text ({texts[0]})"
        raise DataError(f"'{given}' holds {both}: name one kind, as in '{root}/*{Path(lines[0]).suffix}'", USAGE)
    count = "" if alone else f" ({len(lines or texts):,} file{'s' * (len(lines or texts) != 1)})"
    if lines:
        return records.Lines(f"{given}{count}", tuple(root / name for name in lines), field or "text")
    if alone:
        return plain.single(root / names[0])
    if not texts:
        raise DataError(f"'{given}' holds no text file")
    return plain.several(f"{given}{count}", root, texts)
