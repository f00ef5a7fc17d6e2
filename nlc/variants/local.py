"""Runs as processes of this machine, so many at a time, each within its limits.

workers = Local(jobs, folder)
workers.free                     whether another may begin
workers.begin(request)
workers.ended() -> [(request, outcome), ...]      those that have ended since; waits a moment where none has
workers.close()                  ends those that are going on

A process is ended when it takes too long or too much memory, and ends itself when the one that started it is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from nlc.variants.runs import CRASHED, OVERMEMORY, OVERTIME, UNABLE, Outcome, Request

CHILD = "nlc.cli.variant"  # the module that a process runs
MISSING = 4  # its exit status where something of the machine is
PERIOD = 0.05  # seconds between two looks
LAST = 2_000  # characters of what a process said that are kept


@dataclass(eq=False)
class Process:
    """One run.  log: what it says; peak: bytes of resident memory, as seen from outside."""

    request: Request
    folder: Path
    log: IO[bytes]
    process: subprocess.Popen[bytes]
    begun: float
    peak: int = 0

    @classmethod
    def begin(cls, request: Request, folder: Path) -> Process:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(asdict(request)), encoding="utf-8")
        log = (folder / "log.txt").open("wb")
        threads = str(request.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NO_COLOR": "1"}
        command = [sys.executable, "-m", CHILD, str(folder), str(os.getpid())]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        return cls(request, folder, log, process, time.monotonic())

    def outcome(self) -> Outcome | None:
        """What came of it; None while it is going on."""
        seconds = time.monotonic() - self.begun
        if (status := self.process.poll()) is not None:
            return replace(self._said(status), seconds=seconds)
        self.peak = max(self.peak, resident(self.process.pid))
        r = self.request
        if self.peak > r.memory_mib * 2**20:
            self.end()
            said = f"{self.peak / 2**20:,.0f} MiB of memory, and {r.memory_mib:,.0f} are allowed"
            return Outcome(OVERMEMORY, said, seconds=seconds, peak_memory=self.peak)
        if seconds > r.seconds:
            self.end()
            return Outcome(OVERTIME, f"longer than {r.seconds:g} s", seconds=seconds, peak_memory=self.peak)
        return None

    def _said(self, status: int) -> Outcome:
        """The outcome that it wrote; without one, how it ended and the end of its log."""
        try:
            told: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text(encoding="utf-8"))
            return Outcome.read(told)
        except (OSError, ValueError, TypeError):
            log = (self.folder / "log.txt").read_bytes().decode("utf-8", "replace")
            if status == MISSING:
                return Outcome(UNABLE, log[-LAST:].strip() or f"it cannot write in '{self.folder}'")
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            return Outcome(CRASHED, f"{log[-LAST:].strip()}\n({how})".strip(), peak_memory=self.peak)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def clear(self) -> None:
        """Its folder goes, or keeps only what the run made."""
        self.log.close()
        if not self.request.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


class Local:
    def __init__(self, jobs: int, folder: Path) -> None:
        self.jobs, self.folder = jobs, folder
        self.running: list[Process] = []

    @property
    def free(self) -> bool:
        return len(self.running) < self.jobs

    def begin(self, request: Request) -> None:
        self.running.append(Process.begin(request, self.folder / request.name))

    def ended(self) -> list[tuple[Request, Outcome]]:
        found = []
        for one in list(self.running):
            if (outcome := one.outcome()) is not None:
                self.running.remove(one)
                one.clear()
                found.append((one.request, outcome))
        if not found and self.running:
            time.sleep(PERIOD)
        return found

    def close(self) -> None:
        for one in self.running:
            one.end()
            one.clear()
        self.running.clear()


def alone(request: Request, folder: Path) -> Outcome:
    """The outcome of one run, waited for."""
    one = Process.begin(request, folder)
    try:
        while (outcome := one.outcome()) is None:
            time.sleep(PERIOD)
        return outcome
    finally:
        one.end()
        one.clear()


def resident(process: int) -> int:
    """Bytes of memory that a process holds now; 0 where it is gone, or the system does not say."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
