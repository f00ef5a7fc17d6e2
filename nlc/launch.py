"""Several processes of one generated program on this machine, started and watched by torch's launcher (torchrun)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

FAILED = 1


def launch(program: Path, arguments: Sequence[str], processes: int) -> int:
    """0, or the exit status of the process that the others failed after.  When one fails, the others are ended."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # every process says itself what is wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with TemporaryDirectory() as folder:  # where each process keeps why it failed
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=str(os.getpid()), rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0", max_restarts=0, monitor_interval=0.5, logs_specs=DefaultLogsSpecs(folder),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)(str(program), *arguments)
        except ChildFailedError as error:
            return status(list(error.failures.values()))
    return 0


def status(failures: Sequence[ProcessFailure]) -> int:
    """The exit status of a run of which these processes failed: that of the first one that knew why.

    The one that fails first need not end first: it says why and closes its connections, the others lose it, and may be
    gone before it is.  So what a process kept (runtime.summary.keep) counts before how and when it ended.
    """
    kept = [failure.error_file_data for failure in failures if "status" in failure.error_file_data]
    if kept:
        return int(min(kept, key=lambda why: float(why["seconds"]))["status"])
    code: int = min(failures, key=lambda failure: failure.timestamp).exitcode
    return code if code > 0 else FAILED  # it was killed
