"""Files and folders that a reader finds whole or as they were, whatever ends their writer.

A folder is written beside its place as .NAME.PID, synced, and renamed; one that is replaced is .NAME.PID.old between
two renames.  A writer that is killed leaves these names: `mend` finishes what was complete, takes back what was not,
and removes the rest.  The manifest, written last, says that a folder is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import Unsaved

MANIFEST = "manifest.json"
FORMAT = 1
LEFT = re.compile(r"\.(?P<name>.+)\.\d+(\.old)?")  # beside NAME, by a writer that lives or was killed


# ---- folders --------------------------------------------------------------------------------------------------------


def write_folder(
    place: Path, tensors: Mapping[str, Mapping[str, Tensor]], scalars: Mapping[str, Mapping[str, Any]]
) -> Path:
    """A folder of <name>.safetensors and <name>.json, with a manifest: it appears whole, replacing one that is there.

    Raises Unsaved where it cannot be written; what was there is then as it was.
    """
    making = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        mend(place)
        making.mkdir(parents=True)
        fill(making, tensors, scalars)
        exchange(making, place)
    except (OSError, SafetensorError) as error:
        raise Unsaved(f"cannot save '{place}': {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return place


def fill(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], scalars: Mapping[str, Mapping[str, Any]]) -> None:
    """The files of a folder, each on the disk before the manifest names it."""
    for name, values in tensors.items():
        put_tensors(folder / f"{name}.safetensors", values)
    for name, facts in scalars.items():
        put_text(folder / f"{name}.json", json.dumps(facts, indent=1) + "\n")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in sorted(folder.iterdir())}
    put_text(folder / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")
    sync(folder)


def exchange(making: Path, place: Path) -> None:
    """Put a finished folder in its place; what was there comes back when anything, a signal too, gets in between."""
    old = making.with_name(f"{making.name}.old")
    handle = lock(making)  # alive: nobody mends what is only half done
    try:
        if place.exists():
            place.rename(old)
        making.rename(place)
        sync(place.parent)
    except BaseException:
        if old.exists():
            if place.exists():
                place.rename(making)
            old.rename(place)
        raise
    finally:
        if handle is not None:
            os.close(handle)
    shutil.rmtree(old, ignore_errors=True)


def mend(place: Path) -> None:
    """Finish or take back what a writer of `place` that was killed had begun, and remove what else it left."""
    for making in sorted({path.with_name(path.name.removesuffix(".old")) for path in left(place.parent, place.name)}):
        old = making.with_name(f"{making.name}.old")
        handle = lock(making, wait=old.exists() and not place.exists())  # between two renames: it is done in a moment
        if handle is None and making.exists():
            continue
        complete = not damage(making)
        if not place.exists() and (complete or old.exists()):
            (making if complete else old).rename(place)
        for path in (making, old):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def settle(place: Path) -> None:
    """`mend` for one who reads: where the folder is not there, and as far as this process may write beside it."""
    if not place.exists():
        with suppress(OSError):
            mend(place)


def sweep(folder: Path) -> None:
    """`mend` for every name in a folder that nobody writes into at the moment."""
    for path in left(folder):
        if found := LEFT.fullmatch(path.name):
            mend(folder / found["name"])


def left(folder: Path, name: str = "") -> list[Path]:
    """What writers of `name`, or of anything, have beside it."""
    found = ((path, LEFT.fullmatch(path.name)) for path in folder.glob(".*"))
    return [path for path, match in found if match and name in ("", match["name"])]


def lock(folder: Path, wait: bool = False) -> int | None:
    """An open handle that tells others that this process is at work here, and goes when it does; None if one is."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system that cannot tell
        pass
    return handle


def damage(place: Path) -> str:
    """Why a folder with a manifest cannot be trusted; "" when it is whole."""
    if not place.is_dir():
        return "is a file, not a folder" if place.exists() else "is not there"
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"is of format {manifest['format']}: this version reads {FORMAT}"
        for name, record in manifest["files"].items():
            path = place / name
            if not path.is_file():
                return f"is torn: {name} is missing"
            if path.stat().st_size != record["bytes"] or digest(path) != record["sha256"]:
                return f"is altered: {name} is not what was written"
    except FileNotFoundError:
        return f"is torn: {MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"is altered: {MANIFEST} cannot be read"
    return ""


# ---- files ----------------------------------------------------------------------------------------------------------


def put_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)
    sync(path)


def put_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    sync(path)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never less."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        put_text(making, text)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
