"""A run directory: where everything a run makes is kept.

runs/<name>/
    spec.yaml        the spec as its author wrote it         (run from a package: as resolved)
    resolved.yaml    the same with everything filled in
    lock.json        versions, seed, environment that mattered, spec and graph hash, digest of the data
    code/            the generated package that ran
    metrics.jsonl    one row a line                          (runtime.metrics)
    loss.png         loss against tokens                     (runtime.plot)
    report.html      the run as one page                     (nlc report)
    tensorboard/     the metrics again, where asked for      (runtime.mirror)
    checkpoints/     step-000100/ ... and latest             (runtime.checkpoint)
    diverged/        the step at which a number was no longer finite       (runtime.replay); renamed
                     diverged-step-000012 when the run has been resumed and got past it
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from runtime.errors import USAGE, RunError, Unsaved
from runtime.inherit import STARTS
from runtime.shape import misfit
from runtime.whole import digest, exchange, mend, replace_text, settle, sweep, sync

LOCK = "spec.lock.yaml"  # in the package: the spec with everything filled in
PACKAGE = ("model.py", "train.py", LOCK, "graph.json", STARTS)
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED")
LIBRARIES = ("nlc", "torch", "numpy", "safetensors")


TOKENIZER = {"file": str, "sha256": str, "vocab": int}
SHAPE = {  # of lock.json
    **{"name": str, "graph": str, "seed": int, "steps": int, "batch": int, "context": int, "device": str},
    **{"spec": dict, "code": dict, "resumed": list, "saved": int, "environment": dict},
    "data": {
        **{"path": (str, NoneType), "field": (str, NoneType), "pack": str, "tokenizer": (dict, NoneType)},
        **{"source": str, "sha256": str, "bytes_per_token": (float, int), "task": dict},
    },
}


class RunDirectory:
    """The paths of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.spec = self.path / "spec.yaml"
        self.resolved = self.path / "resolved.yaml"
        self.lock = self.path / "lock.json"
        self.code = self.path / "code"
        self.metrics = self.path / "metrics.jsonl"
        self.plot = self.path / "loss.png"
        self.checkpoints = self.path / "checkpoints"
        self.diverged = self.path / "diverged"

    @property
    def used(self) -> bool:
        """Whether a run has already written here; compiling into `code` is not yet a run."""
        return self.metrics.exists() or self.lock.exists() or self.checkpoints.exists()

    def begin(self, package: Path) -> None:
        """Keep a copy of the package that runs.  Raises RunError when it cannot be done.

        What it makes does not yet count as a run: that begins with its lock.
        """
        if self.used:
            raise RunError(f"'{self.path}' already holds a run: give another folder", USAGE)
        try:
            self.code.mkdir(parents=True, exist_ok=True)
            for name in PACKAGE:
                here, there = package / name, self.code / name
                if here.exists() and not (there.exists() and there.samefile(here)):
                    shutil.copyfile(here, there)
            for path in (self.spec, self.resolved):
                if not path.exists() and (self.code / LOCK).exists():
                    shutil.copyfile(self.code / LOCK, path)
        except OSError as error:
            raise Unsaved(f"cannot make the run directory '{self.path}': {error.strerror or error}") from None

    @contextmanager
    def unless_begun(self) -> Iterator[None]:
        """Code and spec that are made here while no run begins are gone afterwards; what was here before stays."""
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        before = set(self._made())
        try:
            yield
        finally:
            if not self.used:
                with suppress(OSError, RunError):  # another process that begins a run here needs what there is
                    os.close(self.claim())
                    for path in self._made():
                        if path not in before:
                            path.rmdir() if path.is_dir() else path.unlink()
                for folder in missing:
                    with suppress(OSError):  # something else is in it
                        folder.rmdir()

    def _made(self) -> list[Path]:
        """What is here before a run begins, insides first."""
        paths = (self.spec, self.resolved, self.code, *self.code.rglob("*"))
        return sorted((path for path in paths if path.exists()), reverse=True)

    def claim(self) -> int:
        """An open handle: while it is, and at most as long as this process lives, nobody else trains in this folder.

        Raises RunError where another process does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise Unsaved(f"cannot make the run directory '{self.path}': {error.strerror or error}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise RunError(f"another process trains in '{self.path}'", USAGE) from None
        except OSError:  # a file system that cannot tell
            pass
        return handle

    def write_lock(self, facts: Mapping[str, Any], resumed: Mapping[str, Any] | None = None) -> None:
        """`facts` of the run, and those of the machine it runs on.

        `resumed`: {"step", "before"}, after which step it goes on with them, and the lock until then, which is kept.
        """
        text = dict(facts) | {"environment": environment()}
        if resumed is not None:
            before = resumed["before"]
            text |= {name: before[name] for name in ("saved",) if name in before}
            text["resumed"] = [*before.get("resumed", []), resumed]
        replace_text(self.lock, json.dumps(text, indent=1) + "\n")

    def note_saved(self, step: int) -> None:
        """Keep that there are checkpoints, the first of them after this step: a run without any has lost them."""
        lock = self.read_lock()
        if "saved" not in lock:
            replace_text(self.lock, json.dumps(lock | {"saved": step}, indent=1) + "\n")

    def adopt(self, package: Path) -> None:
        """Let another package be this run's program from now on, where it is another, and its spec the run's spec."""
        names = [name for name in PACKAGE if (package / name).exists()]
        if all((self.code / n).exists() and digest(self.code / n) == digest(package / n) for n in names):
            return
        making = self.code.with_name(f".{self.code.name}.{os.getpid()}")
        try:
            making.mkdir()
            for name in names:
                shutil.copyfile(package / name, making / name)
                sync(making / name)
            exchange(making, self.code)
            for path in (self.spec, self.resolved):
                if (source := spec_of(package, path.name)).exists():
                    replace_text(path, source.read_text(encoding="utf-8"))
        except OSError as error:
            raise Unsaved(f"cannot put the program into '{self.path}': {error.strerror or error}") from None
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def sweep(self) -> None:
        """Put right what writers that were killed have left.  Only for the process that has claimed the folder."""
        for place in (self.code, self.spec, self.resolved, self.lock, self.metrics, self.diverged):
            mend(place)
        sweep(self.checkpoints)

    def read_lock(self) -> dict[str, Any]:
        """Raises RunError when there is no run here."""
        settle(self.code)
        try:
            found = json.loads(self.lock.read_text(encoding="utf-8"))
        except OSError:
            raise RunError(f"'{self.path}' is not a run directory: it has no lock.json", USAGE) from None
        except ValueError:
            raise RunError(f"'{self.lock}' is not JSON", USAGE) from None
        if not isinstance(found, dict):
            raise RunError(f"'{self.lock}' does not describe a run", USAGE)
        tokenizer = found["data"].get("tokenizer") if isinstance(found.get("data"), dict) else None
        wrong = misfit(found, SHAPE) or (misfit(tokenizer, TOKENIZER, "data.tokenizer.") if tokenizer else "")
        if wrong:
            raise RunError(f"'{self.lock}' does not describe a run: {wrong}", USAGE)
        return found


def spec_of(package: Path, name: str) -> Path:
    """What a package has as spec.yaml or resolved.yaml: the file beside it in a run directory, or its own lock."""
    beside = package.parent / name
    return beside if package.name == "code" and beside.exists() else package / LOCK


def no_run(path: Path) -> RunError:
    """Of a path that is no folder."""
    return RunError(
        f"'{path}' is a file, not a run directory" if path.exists() else f"no such run directory: '{path}'", USAGE
    )


def fresh(name: str, root: str | Path = "runs") -> Path:
    """runs/<name>, or the first of runs/<name>-2, runs/<name>-3 ... that no run has used."""
    path, n = Path(root) / name, 1
    while RunDirectory(path).used:
        n += 1
        path = Path(root) / f"{name}-{n}"
    return path


def environment() -> dict[str, Any]:
    """What of this machine can change a result."""
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "libraries": {name: version for name in LIBRARIES if (version := version_of(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def version_of(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
