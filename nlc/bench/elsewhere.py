"""A rival in a process of its own, as its users run it: without what `nlc` says to the allocator of its process.

with elsewhere("nlc.bench.titans:theirs", Scale(), threads=1) as run:
    run.ready()
    turns({"titans-pytorch": run, "nlc": ours}, 5)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from signal import SIGKILL

from nlc.bench.child import most, resident
from nlc.bench.rows import Missing, Scale
from nlc.bench.timing import Run, Seconds

READY, RUN, PEAK = "ready", "run", "peak"
MISSING, FAILED = "missing:", "failed:"


class Elsewhere:
    """What is called to have the work done there once.  It is prepared from the start; `ready` waits until it is.

    All raise Missing where the work does, and RuntimeError where it fails.
    """

    def __init__(self, work: str, process: subprocess.Popen[str]) -> None:
        self.work, self.process, self.prepared = work, process, False

    def ready(self) -> None:
        if not self.prepared:
            self._answer()
            self.prepared = True

    def __call__(self) -> Seconds:
        return Seconds(self._asked(RUN))

    def peak(self) -> int:
        """Resident bytes of the process at the peak of its first run, above those it had before."""
        return int(self._asked(PEAK))

    def _asked(self, what: str) -> str:
        self.ready()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which its answer will say
            os.write(self.process.stdin.fileno(), f"{what}\n".encode())
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if answer.startswith(MISSING):
            raise Missing(answer.removeprefix(MISSING).strip())
        if not answer and self.process.wait() == -SIGKILL:
            raise Missing("needs more memory than is free here")
        if answer.startswith(FAILED) or not answer:
            why = answer.removeprefix(FAILED).strip() or f"ended with status {self.process.wait()}"
            raise RuntimeError(f"{self.work}: {why}")
        return answer


@contextmanager
def elsewhere(work: str, scale: Scale, threads: int) -> Iterator[Elsewhere]:
    """work: "module:function", (Scale) -> a function that does it."""
    command = [sys.executable, "-m", "nlc.bench.elsewhere", work, str(scale.by), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            yield Elsewhere(work, process)
        finally:
            process.kill()


def main(work: str, by: str, threads: str) -> None:
    """Every line of the input is answered: by the seconds that the work took, of the processor for one thread, else by
    the wall; or by the bytes of its peak.  What the work itself says, in any language, goes with its errors."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(*what: object) -> None:
        print(*what, file=answers, flush=True)

    try:
        for said in answered(work, Scale(by=int(by)), int(threads)):
            answer(said)
    except Missing as missing:
        answer(MISSING, missing)
    except Exception as error:
        answer(FAILED, " ".join(f"{type(error).__name__}: {error}".split()))


def answered(work: str, scale: Scale, threads: int) -> Iterator[str | float | int]:
    import torch

    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    module, _, name = work.partition(":")
    run: Run = getattr(import_module(module), name)(scale)
    before, peak = resident(), 0
    yield READY
    for line in sys.stdin:
        if line.strip() == PEAK:
            yield peak
            continue
        began = clock()
        made = run()
        took = made if isinstance(made, Seconds) else clock() - began
        peak = peak or most() - before
        yield float(took)


if __name__ == "__main__":
    main(*sys.argv[1:])
