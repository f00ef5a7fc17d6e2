"""What stops a run on purpose: each error carries the message a user reads and the exit status of the command."""

from __future__ import annotations

DATA_MISSING = 4
RUN_FAILED = 1
PREEMPTED = 75
USAGE = 2


class RunError(Exception):
    """A run cannot go on, for a reason its user can act on.  `status` is the exit status."""

    def __init__(self, message: str, status: int = RUN_FAILED) -> None:
        super().__init__(message)
        self.status = status


class DataError(RunError):
    """The text to learn from is missing, empty, unreadable or too short."""

    def __init__(self, message: str, status: int = DATA_MISSING) -> None:
        super().__init__(message, status)


class CheckpointError(RunError):
    """A checkpoint is missing, torn or altered."""

    def __init__(self, message: str, status: int = DATA_MISSING) -> None:
        super().__init__(message, status)


class Unsaved(RunError):
    """What a run must keep cannot be written: the disk is full, or the folder read-only."""

    def __init__(self, message: str, status: int = DATA_MISSING) -> None:
        super().__init__(message, status)


class Diverged(RunError):
    """A loss, gradient or state is no longer finite.  Raised before any weight has taken it in.

    `rank`: of the process that saw it.
    """

    def __init__(self, message: str, rank: int = 0) -> None:
        super().__init__(message)
        self.rank = rank


class Lost(RunError):
    """A process that trains together with this one has ended."""


class Preempted(RunError):
    """The time limit is over; the run stopped at the end of a step, after saving."""

    def __init__(self, message: str) -> None:
        super().__init__(message, PREEMPTED)


class Interrupted(RunError):
    """SIGINT or SIGTERM asked the run to stop; it did, at the end of a step, after saving."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message, 128 + signal)


def short_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not get the memory they asked for."""
    words = ("not enough memory", "out of memory", "can't allocate memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
