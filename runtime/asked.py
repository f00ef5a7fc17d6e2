"""What asks a run to save, or to save and end: signals, a limit of time, the end of its launcher, a clock."""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

from runtime.errors import Interrupted, Preempted
from runtime.signals import Stop

SAVE = 1  # below the numbers of the signals that end a run: of several wishes the largest is heard
LAUNCHER_IS_GONE = 1 << 15
TIME_IS_UP = 1 << 16


class Asked:
    """What is asked is a number, so that several processes can compare theirs."""

    def __init__(self, signals: Stop, seconds: float, every: float, launched: bool) -> None:
        """seconds: until the run ends; every: between two checkpoints; 0 is never.  launched: by another process."""
        self.signals, self.seconds, self.every = signals, seconds, every
        self.launcher = os.getppid() if launched else None
        self.began = self.saved = time.perf_counter()

    def now(self) -> int:
        """SAVE, a signal's number, LAUNCHER_IS_GONE, TIME_IS_UP, or 0 for nothing."""
        return self.end() or (SAVE if self.every and time.perf_counter() - self.saved > self.every else 0)

    def end(self) -> int:
        """The same, of what ends a run."""
        if self.seconds and time.perf_counter() - self.began > self.seconds:
            return TIME_IS_UP
        if self.launcher is not None and os.getppid() != self.launcher:
            return LAUNCHER_IS_GONE
        return self.signals.asked


def obey(asked: int, where: str) -> NoReturn:
    """End the run that was saved as `where` says."""
    if asked == TIME_IS_UP:
        raise Preempted(f"the time limit is over {where}")
    if asked == LAUNCHER_IS_GONE:
        raise Interrupted(f"what started this process has ended: stopped {where}", signal.SIGTERM)
    raise Interrupted(f"stopped by {signal.Signals(asked).name} {where}", asked)
