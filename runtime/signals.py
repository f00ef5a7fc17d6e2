"""SIGINT and SIGTERM ask a run to stop at the end of its step.  SIGINT again: at once.

SIGTERM again is the same wish: who watches over processes may send it more than once before they use SIGKILL.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

ASKED = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """While entered, a signal is only noted in `asked`; from then on SIGINT has its usual effect."""

    def __init__(self) -> None:
        self.asked: int = 0  # the signal's number
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self.before = {number: signal.signal(number, self.note) for number in ASKED}
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)  # who started this process may have kept them back
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if (before := self.before.get(signal.SIGINT)) is not None:
            signal.signal(signal.SIGINT, before)

    def give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    @property
    def name(self) -> str:
        return signal.Signals(self.asked).name if self.asked else ""
