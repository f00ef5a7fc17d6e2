"""How a run ends: what its user reads of the error that ended it, and the exit status of the command."""

from __future__ import annotations

from runtime import checkpoint
from runtime.directory import RunDirectory
from runtime.errors import DATA_MISSING, Lost, RunError, Unsaved, short_of_memory

INTERRUPTED = 130


def told(error: BaseException, directory: RunDirectory, name: str, step: int) -> tuple[str, int]:
    """A message and a status; "" and 0 of an error that is a fault of ours.  `step`: the one that was running."""
    match error:
        case Lost() | Unsaved():
            return f"{error}; {last(directory)}", error.status
        case RunError():
            return str(error), error.status
        case MemoryError() | RuntimeError() if short_of_memory(error):
            return f"not enough memory for {name}: make sizes or run.batch smaller", DATA_MISSING
        case OSError():
            return f"{error.filename or directory.path}: {error.strerror or error}; {last(directory)}", DATA_MISSING
        case KeyboardInterrupt():  # asked for twice
            return f"stopped at once in step {step}; {last(directory)}", INTERRUPTED
    return "", 0


def last(directory: RunDirectory) -> str:
    """The checkpoint to go on from."""
    try:
        return f"the newest checkpoint is {checkpoint.newest(directory.checkpoints)}"
    except RunError:
        return "no checkpoint was written yet"
