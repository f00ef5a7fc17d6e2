"""Several processes of one generated program on this machine, started and watched by torch's launcher (torchrun)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

FAILED = 1


def launch(program: Path, arguments: Sequence[str], processes: int) -> int:
    """The exit status of the first process that failed, or 0.  When one fails, the others are ended."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # every process says itself what is wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=str(os.getpid()), rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", max_restarts=0, monitor_interval=0.5,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(str(program), *arguments)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        code: int = first.exitcode
        return code if code > 0 else FAILED  # it was killed
    return 0
