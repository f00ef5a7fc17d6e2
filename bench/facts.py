"""What a result file says of the place it was made in, and how it is written."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from cell import processor

import nlc
from runtime.data import Data
from runtime.errors import USAGE, RunError
from runtime.whole import replace_text

REFERENCES = (  # bits per byte on Python 3.11's library
    ("order-4 byte counter", 2.03),
    ("best adaptive counter", 1.615),
    ("xz", 1.41),
)


def place(data: Data) -> dict[str, Any]:
    """The machine, the versions, the day and the text."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "nlc": nlc.__version__,
            "commit": commit(),
        },
        "corpus": {
            "source": data.source,
            "digest": data.digest,
            "training_bytes": len(data.train),
            "validation_bytes": len(data.validation),
        },
    }


def together(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One place for runs made at several times: the last, with the revisions of all."""
    last = max(places, key=lambda one: one["date"])
    revisions = sorted({one["versions"]["commit"] for one in places} - {""})
    return {**last, "versions": {**last["versions"], "commit": ", ".join(revisions)}}


def commit() -> str:
    """The revision that ran; "+" says that files had been changed.  Empty outside a git checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def said(place: Mapping[str, Any]) -> str:
    """`place` as a paragraph."""
    machine, versions, corpus = place["machine"], place["versions"], place["corpus"]
    return (
        f"{place['date']}, {machine['processor']} ({machine['cores']} cores), Python {versions['python']}, "
        f"torch {versions['torch']}, nlc {versions['nlc']} ({versions['commit'] or 'no checkout'}). "
        f"Text: {corpus['source']}, {corpus['training_bytes']:,} training and {corpus['validation_bytes']:,} "
        f"validation bytes, digest {corpus['digest'][:16]}."
    )


def references() -> str:
    """The yardsticks, as a sentence."""
    return "For comparison, on Python 3.11's library: " + ", ".join(f"{name} {bits}" for name, bits in REFERENCES)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    width = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, width, strict=True)))
            + " |"
        )

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(width)) + "|"
    return "\n".join([line(columns), rule, *map(line, rows)])


def write(path: Path, record: Mapping[str, Any], markdown: str) -> None:
    """`path`.json and `path`.md, each whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path.with_name(path.name + ".json"), json.dumps(record, indent=1) + "\n")
    replace_text(path.with_name(path.name + ".md"), markdown)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While entered, no other command may work in `folder`.  Raises RunError when one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another command works in '{folder}': wait for it, or give another --work", USAGE) from None
        yield
