"""What a result file says of the place it was made in, and how it is written."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlc.bench import place as here
from nlc.bench.record import table
from nlc.diagnostics import SpecError
from runtime.data import Data
from runtime.errors import USAGE, RunError
from runtime.whole import replace_text

__all__ = ["REFERENCES", "alone", "ended", "place", "references", "said", "table", "together", "write"]

REFERENCES = (  # bits per byte on Python 3.11's library
    ("order-4 byte counter", 2.03),
    ("best adaptive counter", 1.615),
    ("xz", 1.41),
)


def place(data: Data) -> dict[str, Any]:
    """The machine, the versions, the day and the text."""
    return {
        **here.place(),
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


def ended(main: Callable[[], int]) -> int:
    """The status of a command that can be given again: what was wrong with its use is a line, and so is a stop."""
    try:
        return main()
    except (RunError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "status", USAGE)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is written", file=sys.stderr)
        return 130
