"""Records, each a document: lines of JSON, or the rows of a Hugging Face dataset that was saved to disk.

A tenth of them is held out by the hash of their text, so that the same text is never in both parts; a dataset that
has a split of its own for validation keeps it.
"""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from runtime.data.pieces import PARTS, TENTH, Part, Piece, Source, held_out, missing, not_utf8, unreadable
from runtime.errors import DataError

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")  # endings of files that hold a JSON object a line
BOM = b"\xef\xbb\xbf"
ROWS = 1000  # of a dataset, read at a time
SPLITS: dict[str, Part] = {"train": "train", "validation": "validation", "valid": "validation", "test": "validation"}


class Record(NamedTuple):
    """The text of one, and the part it was made for, if for any."""

    text: bytes
    part: Part | None = None


@dataclass(frozen=True)
class Records(Source):
    """A subclass gives the records, empty ones left out."""

    field: str = "text"  # with dots where it is inside of others
    documents: ClassVar[bool] = True

    def records(self) -> Iterator[Record]:
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        return {"kind": type(self).__name__.lower(), "field": self.field, **super().identity()}

    def pieces(self, utf8: bool) -> Iterator[Piece]:
        part_of = self._split()
        for number, (text, part) in enumerate(self.records()):
            yield Piece(part or part_of(number, text), text, True)

    def _split(self) -> Callable[[int, bytes], Part]:
        """By the hash of the text; of so few that a part would be empty, the last tenth and at least one."""
        seen, count = set(), 0
        for count, (text, part) in enumerate(self.records(), 1):
            seen.add(by_hash(count, text))
            if part or len(seen) == len(PARTS):
                return by_hash
        if count == 1:
            raise DataError(f"{self.name} holds one record: two are needed, one of them to validate on")
        first = count - max(1, count // TENTH)
        return lambda number, text: "train" if number < first else "validation"


def by_hash(number: int, text: bytes) -> Part:
    return "validation" if held_out(text) else "train"


# ---- lines of JSON --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines(Records):
    """Files with a JSON object a line; empty lines are skipped."""

    @property
    def size(self) -> int | None:
        return None if any(map(zipped, self.paths)) else super().size

    def records(self) -> Iterator[Record]:
        for path in self.paths:
            for number, offset, line in numbered(path):
                if line.strip():
                    text = self._text(line, f"{path}:{number}", offset)
                    if text:
                        yield Record(text)

    def _text(self, line: bytes, place: str, offset: int) -> bytes:
        try:
            record = json.loads(line.rstrip(b"\r\n").decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: {not_utf8(line, error, offset)}") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{place}:{error.colno}: not a line of JSON: {error.msg.lower()}") from None
        except (RecursionError, ValueError) as error:  # depth and length of numbers have a limit
            raise DataError(f"{place}: not read as JSON: {str(error).lower()}") from None
        if not isinstance(record, dict):
            raise DataError(f"{place}: an object is expected, this is {said(record)}")
        return text_at(record, self.field, place)


def lines_of_json(name: str) -> bool:
    return name.lower().endswith(LINES)


def zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def numbered(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, offset in bytes, line) of every line of a file, unpacked where it is packed."""
    number = offset = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                mark = len(BOM) if number == 1 and line.startswith(BOM) else 0
                yield number, offset + mark, line[mark:]
                offset += len(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: the packed file is damaged: {str(error).lower().rstrip('.')}") from None
    except OSError as error:
        raise unreadable(path, error) from None


def opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if zipped(path) else path.open("rb")  # type: ignore[return-value]


# ---- datasets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows(Records):
    """What `save_to_disk` of the library datasets wrote; `paths` are its files."""

    folder: Path = Path()

    @property
    def size(self) -> int | None:
        return None  # its files may be packed

    def records(self) -> Iterator[Record]:
        try:
            yield from self._records()
        except (OSError, ValueError) as error:  # of pyarrow
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"cannot read the dataset '{self.folder}': {' '.join(str(error).split())}")

    def _records(self) -> Iterator[Record]:
        first, _, _ = self.field.partition(".")
        for name, table in self._splits().items():
            part = SPLITS[name] if name else None
            where = f"{self.folder}: " + (f"split {name}, " if name else "")
            wanted = self.field if self.field in table.column_names else first
            if wanted not in table.column_names:
                raise DataError(f"{where}{absent(self.field, table.column_names, 'column')}")
            rows = (row for block in table.select_columns([wanted]).iter(ROWS) for row in block[wanted])
            for number, value in enumerate(rows, 1):
                text = text_at({wanted: value}, self.field, f"{where}row {number:,}")
                if text:
                    yield Record(text, part)

    def _splits(self) -> Mapping[str, Any]:
        """Splits by their names, the one to train on first; one alone, without a name."""
        try:
            import datasets
        except ModuleNotFoundError:
            raise missing(f"reading the dataset '{self.folder}'", "datasets") from None
        try:
            table = datasets.load_from_disk(str(self.folder))
        except Exception as error:  # whatever pyarrow makes of a damaged file
            raise self._damaged(error) from None
        if isinstance(table, datasets.Dataset):
            return {"": table}
        if len(table) == 1:
            return {"": next(iter(table.values()))}
        held = next((name for name in SPLITS if name != "train" and name in table), None)
        if "train" not in table or held is None:
            known = ", ".join(table)
            raise DataError(f"the dataset '{self.folder}' has the splits {known}: train and validation are needed")
        return {"train": table["train"], held: table[held]}


def dataset(folder: Path) -> bool:
    """Whether the library datasets saved something in this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def saved(folder: Path) -> tuple[Path, ...]:
    """The files of a dataset; what the library computed from it since is no part of it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("cache-"))
    return tuple(sorted(path for path in paths if path.suffix in (".arrow", ".json")))


# ---- a field of a record --------------------------------------------------------------------------------------------


def text_at(record: Mapping[str, Any], name: str, place: str) -> bytes:
    """The text of a field, as UTF-8.  Raises DataError that says what is there instead."""
    value: Any = record
    for part in (name,) if name in record else name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(f"{place}: {absent(name, value if isinstance(value, Mapping) else (), 'field', part)}")
        value = value[part]
    if not isinstance(value, str):
        raise DataError(f"{place}: field '{name}' is {said(value)}, text is expected")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise DataError(f"{place}: field '{name}' holds {half}, half of a character of UTF-16") from None


def absent(name: str, known: Any, what: str, part: str = "") -> str:
    """no field 'text': did you mean 'texts'?  fields: id, texts"""
    inside = f" (nothing called '{part}')" if part not in ("", name) else ""
    names = [str(one) for one in known]
    near = difflib.get_close_matches(part or name, names, 1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    rest = f"; {guess}{what}s: {', '.join(names)}" if names else ""
    return f"no {what} '{name}'{inside}{rest} (--field names another)"


def said(value: object) -> str:
    """a number | null | a list: what JSON calls a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
    return "an object"
