"""Several processes of one generated program on this machine, started and watched by what torchrun is made of."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, start_processes
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

FAILED = 1
HOST = "127.0.0.1"
PERIOD = 0.2  # seconds between two looks at the processes


def launch(program: Path, arguments: Sequence[str], processes: int) -> int:
    """0, or the exit status of the process that the others failed after.  When one fails, the others are ended.

    SIGINT and SIGTERM are theirs: each of them hears every signal once, saves, and ends.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # every process says itself what is wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # those that can save first are handled here
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # where the processes find one another
    with TemporaryDirectory() as folder, Forward() as forward:  # the folder: where each keeps why it failed
        context = start_processes(
            "train", sys.executable,
            args={rank: (str(program), *arguments) for rank in range(processes)},
            envs={rank: environment(rank, processes, store.port) for rank in range(processes)},
            logs_specs=DefaultLogsSpecs(folder),
        )  # fmt: skip
        forward.to(context)
        ended = context.wait(period=PERIOD)
        failures = list(ended.failures.values()) if ended is not None else []
        return status(failures, forward.asked) if failures else 0


def environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What a process among others is told, by the names that torchrun has for it."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": HOST, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": str(True),
    }  # fmt: skip


class Forward:
    """While entered, SIGINT and SIGTERM go on to the processes of a context, those too that came before there were any.

    The processes begin with SIGINT blocked: it waits until they listen (runtime.signals), and breaks no import off.
    """

    def __enter__(self) -> Forward:
        self.asked = 0
        self.context: PContext | None = None
        self.before = {number: signal.signal(number, self.send) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return self

    def to(self, context: PContext) -> None:
        self.context = context
        if self.asked:
            self.send(self.asked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def send(self, number: int, frame: FrameType | None = None) -> None:
        self.asked = self.asked or number
        for process in self.context.pids().values() if self.context else ():
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in self.before.items():
            signal.signal(number, handler)


def status(failures: Sequence[ProcessFailure], asked: int = 0) -> int:
    """The exit status of a run of which these processes failed: that of the first one that knew why.

    The one that fails first need not end first: it says why and closes its connections, the others lose it, and may be
    gone before it is.  So what a process kept (runtime.summary.keep) counts before how and when it ended.  `asked`: the
    signal that all were sent, which ends those that do not listen yet.
    """
    kept = [failure.error_file_data for failure in failures if "status" in failure.error_file_data]
    if kept:
        return int(min(kept, key=lambda why: float(why["seconds"]))["status"])
    code: int = min(failures, key=lambda failure: failure.timestamp).exitcode
    if code > 0:
        return code
    return 128 + asked if code == -asked else FAILED  # it was killed
