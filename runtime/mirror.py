"""TensorBoard as a mirror of metrics.jsonl, which stays the truth: every number of every row, against tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import DATA_MISSING, RunError

FOLDER = "tensorboard"  # below the run directory


def library() -> Any:
    """What writes event files.  Raises RunError without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "--tensorboard needs the library tensorboard: pip install 'nlc[tensorboard]'"
        raise RunError(message, DATA_MISSING) from None
    return SummaryWriter


class Mirror:
    """Event files below a run directory.  Raises RunError without the library."""

    def __init__(self, run: Path, tokens: int = 0) -> None:
        """`tokens`: seen before the first row that is still to come; what a killed run showed after them goes."""
        self.writer = library()(str(run / FOLDER), purge_step=tokens + 1 if tokens else None)

    def write(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if "/" in name:
                self.writer.add_scalar(name, math.nan if value is None else value, row["tokens"])

    def close(self) -> None:
        self.writer.close()
