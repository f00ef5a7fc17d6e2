"""What a person sees while a run goes on, on stderr: one live line on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

BITS = 0.6931471805599453  # nats in a bit


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run is.  `step` counts steps done; `loss` is in nats a token, the mean since the last report.

    bits/byte = loss / ln 2 / bytes_per_token
    """

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    seconds_left: float
    bytes_per_token: float = 1.0  # of the text that is learned
    unit: str = "bits/byte"

    @property
    def bits_per_byte(self) -> float:
        return self.loss / BITS / self.bytes_per_token


class Display(Protocol):
    """`update` at every report, `judged` after a validation, `note` for a line that stays; entered while the run goes
    on."""

    def update(self, report: Report) -> None: ...
    def judged(self, words: str) -> None: ...
    def note(self, line: str) -> None: ...
    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Nothing."""

    def update(self, report: Report) -> None:
        pass

    def judged(self, words: str) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Plain(Silent):
    """A line a report."""

    def update(self, report: Report) -> None:
        self.note(
            f"step {report.step:{len(str(report.steps))}}/{report.steps}  loss {report.loss:.4f} nats"
            f"  {report.bits_per_byte:.4f} {report.unit}  {report.tokens_per_s:,.0f} tokens/s"
            f"  {duration(report.seconds_left)} left"
        )

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Live:
    """One line that renews itself, by rich."""

    def __init__(self, steps: int) -> None:
        self.progress = bar()
        self.task = self.progress.add_task(
            "", total=steps, loss="", bits="", unit="bits/byte", judged="", speed="", left=""
        )

    def update(self, report: Report) -> None:
        self.progress.update(
            self.task,
            completed=report.step,
            loss=f"{report.loss:.4f}",
            bits=f"{report.bits_per_byte:.4f}",
            unit=report.unit,
            speed=f"{report.tokens_per_s:,.0f}",
            left=duration(report.seconds_left),
        )

    def judged(self, words: str) -> None:
        self.progress.update(self.task, judged=words)

    def note(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


def bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24, style="bright_black", complete_style="cyan", finished_style="green"),
        TextColumn("[dim]loss[/dim] {task.fields[loss]}"),
        TextColumn("[bold]{task.fields[bits]}[/bold] {task.fields[unit]}"),
        TextColumn("[dim]validation[/dim] {task.fields[judged]}"),
        TextColumn("{task.fields[speed]} [dim]tokens/s[/dim]"),
        TextColumn("{task.fields[left]} [dim]left[/dim]"),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def display(steps: int, quiet: bool = False) -> Display:
    """The display for this stderr.  Without rich, plain lines."""
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        try:
            return Live(steps)
        except ModuleNotFoundError:
            pass
    return Plain()


def duration(seconds: float) -> str:
    """8 s, 2 min 05 s, 1 h 07 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
