"""What a search shows while it goes on, on stderr: trials done and running, the best so far, the time left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from nlc.variants.journal import Record
from nlc.variants.runs import Ask
from nlc.variants.standings import Standings, mean
from nlc.variants.table import said


class Quiet:
    """Nothing."""

    def planned(self, trial: Record) -> None:
        pass

    def begun(self, ask: Ask) -> None:
        pass

    def ended(self, run: Record, board: Standings, left: Sequence[Ask]) -> None:
        pass

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Plain(Quiet):
    """A line for every variant that is none and for every run that has ended."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: dict[str, Ask] = {}
        self.seconds: dict[str, tuple[float, int]] = {}  # of a task: in so many steps, with the process itself

    def planned(self, trial: Record) -> None:
        if trial["status"] == "duplicate":
            self.note(f"{trial['trial']}: the same as {trial['of']}")
        elif trial["status"] != "ok":
            first = trial["error"].splitlines()[0] if trial["error"] else ""
            self.note(f"{trial['trial']}: {trial['status']}: {first}")
        for line in trial["rescaled"]:
            self.note(f"{trial['trial']}: {line}")

    def begun(self, ask: Ask) -> None:
        self.running[ask.name] = ask

    def ended(self, run: Record, board: Standings, left: Sequence[Ask]) -> None:
        self.running.pop(run["run"], None)
        seconds, steps = self.seconds.get(run["task"], (0.0, 0))
        self.seconds[run["task"]] = seconds + run["cost"]["seconds"], steps + run["steps"]
        self.show(f"{run['run']}: {outcome(run)}", self.summary(board, left))

    def show(self, ended: str, summary: str) -> None:
        self.note(f"{ended}; {summary}")

    def summary(self, board: Standings, left: Sequence[Ask]) -> str:
        """3 of 24 trials have a score, 2 running; best t002 98.1 %; about 4 min left in this rung"""
        from runtime.progress import duration

        scored = sum(row.score is not None for row in board.rows)
        words = [f"{scored} of {len(board.rows)} trials have a score, {len(self.running)} running"]
        if (best := board.winner) is not None and best.score is not None:
            words.append(f"best {best.trial} {said(best.score, board.rank_by)}")
        words.append(f"{duration(self.remaining(left))} left in this rung")
        return "; ".join(words)

    def remaining(self, left: Sequence[Ask]) -> float:
        """Seconds, as runs of the same task took a step; those of a task that none has ended of, as the others."""
        all_seconds = sum(seconds for seconds, _ in self.seconds.values())
        all_steps = sum(steps for _, steps in self.seconds.values())
        found = 0.0
        for ask in left:
            seconds, steps = self.seconds.get(ask.task, (all_seconds, all_steps))
            found += ask.steps * seconds / max(1, steps)
        return found / self.jobs

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Live(Plain):
    """What has ended scrolls by; below it one line that renews itself, by rich."""

    def __init__(self, jobs: int) -> None:
        from rich.console import Console
        from rich.live import Live as Renewed

        super().__init__(jobs)
        self.latest = "none has ended yet"
        self.console = Console(stderr=True)
        self.line = Renewed("", console=self.console, refresh_per_second=4, transient=True)

    def begun(self, ask: Ask) -> None:
        super().begun(ask)
        self.line.update(f"{len(self.running)} running, {ask.name} the last; {self.latest}")

    def show(self, ended: str, summary: str) -> None:
        self.note(ended)
        self.latest = summary
        self.line.update(summary)

    def note(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Live:
        self.line.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.line.stop()


def outcome(run: Record) -> str:
    """A run in a few words: its first score, or what ended it."""
    if run["status"] != "ok":
        last = run.get("error", "").strip().splitlines()[-1:]
        return ": ".join([run["status"].replace("_", " "), *last])
    name, value = next(iter(run["scores"].items()))
    return f"{name} {said(mean([value]), name)}"


def watch(jobs: int, quiet: bool) -> Quiet:
    """For this stderr."""
    if quiet:
        return Quiet()
    if sys.stderr.isatty():
        try:
            return Live(jobs)
        except ModuleNotFoundError:
            pass
    return Plain(jobs)
