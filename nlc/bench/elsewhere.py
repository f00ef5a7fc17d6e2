"""A rival in a process of its own, as its users run it: without what `nlc` says to the allocator of its process.

with elsewhere("nlc.bench.titans:theirs", Scale(), threads=1) as run:
    turns({"titans-pytorch": run, "nlc": ours}, 5)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module

from nlc.bench.rows import Missing, Scale
from nlc.bench.timing import Run, Seconds

MISSING = "missing:"


@contextmanager
def elsewhere(work: str, scale: Scale, threads: int) -> Iterator[Run]:
    """work: "module:function", (Scale) -> a function that does it.  What is yielded has it done there once.

    Raises Missing where the work does, and RuntimeError where the process ends.
    """
    command = [sys.executable, "-m", "nlc.bench.elsewhere", work, str(scale.by), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:

        def run() -> Seconds:
            assert process.stdin is not None and process.stdout is not None
            print("run", file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if answer.startswith(MISSING):
                raise Missing(answer.removeprefix(MISSING).strip())
            if not answer:
                raise RuntimeError(f"{work} ended with status {process.wait()}")
            return Seconds(float(answer))

        try:
            yield run
        finally:
            process.kill()


def main(work: str, by: str, threads: str) -> None:
    """For every line of the input the seconds that the work took: of the processor for one thread, else by the wall."""
    import torch

    torch.set_num_threads(int(threads))
    clock = time.process_time if threads == "1" else time.perf_counter
    module, _, name = work.partition(":")
    answers, run = sys.stdout, None
    for _ in sys.stdin:
        try:
            with redirect_stdout(sys.stderr):
                run = run or getattr(import_module(module), name)(Scale(by=int(by)))
                began = clock()
                made = run()
                took = made if isinstance(made, Seconds) else clock() - began
        except Missing as missing:
            print(MISSING, missing, file=answers, flush=True)
            return
        print(float(took), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
