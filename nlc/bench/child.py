"""The peak memory of a piece of work, in a process of its own.

peak("nlc.bench.titans:ours", Scale())          bytes
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from importlib import import_module

from nlc.bench.rows import Missing, Scale

FAILED, LACKING = 1, 4


def peak(work: str, scale: Scale, limit: int = 0) -> dict[str, float]:
    """Resident bytes of the process at its peak, and those it had before the work began.

    work: "module:function", (Scale) -> a function that does it.  limit: bytes it may have, where above 0.
    Raises Missing where it does not fit, or needs what is not here.
    """
    command = [sys.executable, "-m", "nlc.bench.child", work, str(scale.by), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode == LACKING:
        raise Missing(done.stderr.strip().splitlines()[-1])
    if done.returncode < 0 or "MemoryError" in done.stderr or "can't allocate memory" in done.stderr:
        raise Missing(f"needs more memory than the {limit / 1e9:.0f} GB that are free here")
    if done.returncode:
        raise RuntimeError(f"{work} failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def free() -> int:
    """Bytes of memory that nothing uses."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most() -> int:
    """Resident bytes of this process at its peak.  What getrusage says may be that of the process that started it."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def main(work: str, by: str, limit: str) -> int:
    import torch

    if int(limit):
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    torch.set_num_threads(1)
    module, _, name = work.partition(":")
    try:
        run = getattr(import_module(module), name)(Scale(by=int(by)))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return LACKING
    before = resident()
    run()
    peak = most()
    print(json.dumps({"before": before, "peak": peak, "work": peak - before}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
