"""Steps of a generated train.py, as they stand: batch, loss, gradients, and every level's update.

Its `main` is given a run of a few steps on random text, each of which is timed.  They may be repeated from a tape, as
`nlc train --tape` does: then the model stays the same from run to run, as its weights must.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from nlc.bench.timing import Run, Seconds
from nlc.compile import Program
from runtime import program
from runtime.cuda_graphs import on_own_stream
from runtime.precision import autocast
from runtime.recordings import Recordings
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.compiled import Repeated


class Steps:
    """What the loop of a generated train.py asks of its run.  seconds: of every step, by the wall."""

    unread, status = True, 0
    state: Any = None  # of streams

    def __init__(self, settings: Settings, count: int, device: str = "cpu", graphs: Recordings | None = None) -> None:
        self.settings, self.device, self.graphs = replace(settings, steps=count), device, graphs
        self.seconds: list[float] = []
        self.stream = on_own_stream(graphs)

    def __enter__(self) -> Steps:
        self.stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.__exit__(kind, error, trace)

    def data(self) -> Steps:
        return self

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.settings.precision, self.device)

    train: Any = None  # a text, of which nothing is read

    def crops(self, text: Any) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        s, generator = self.settings, torch.Generator().manual_seed(0)
        while True:
            tokens = torch.randint(s.vocab, (s.batch, s.context + 1), generator=generator).to(self.device)
            yield tokens[:, :-1], tokens[:, 1:], None

    def lanes(self, text: Any) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Every batch begins its lanes: of a stream only the first is read."""
        starts = torch.zeros(self.settings.batch, self.settings.context, dtype=torch.bool)
        starts[:, 0] = True
        for tokens, targets, _ in self.crops(text):
            yield tokens, targets, starts

    def steps(self, model: nn.Module, levels: Sequence[Any]) -> Iterator[int]:
        model.recordings = self.graphs  # type: ignore[assignment]
        for step in range(self.settings.steps):
            if self.graphs is not None:
                self.graphs.on = True
            began = self.now()
            yield step
            self.seconds.append(self.now() - began)

    def now(self) -> float:
        """Seconds of the wall, when the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def backward(self, loss: Tensor, state: Any = None) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def report(self, loss: Tensor, state: Any = None) -> None:
        pass


def from_tape() -> Repeated:
    """What repeats the steps of a model, or raises RuntimeError where they cannot be."""
    from runtime.compiled import Repeated  # with torch's compiler, which takes seconds to import

    return Repeated(refused)


def taped(run: Callable[[], Iterable[Tensor]]) -> Run:
    """The same from a tape: what it makes lies where the next turn's will."""
    return from_tape().repeated(lambda: [*run()])[1]


def refused(line: str) -> None:
    raise RuntimeError(line)


def step(made: Program) -> Run:
    """Seconds of a training step from a tape, by the wall; the first run records it."""
    module, recordings = loaded(made), from_tape()
    model = module.build(module.settings.seed)
    module.build = lambda seed: model  # type: ignore[attr-defined]

    def run() -> Seconds:
        steps = Steps(module.settings, 1, graphs=recordings)
        through(module, steps)
        return Seconds(steps.seconds[-1])

    return run


def loaded(made: Program) -> ModuleType:
    """Its train.py."""
    with TemporaryDirectory() as folder:
        return program.load(Path(made.write(folder)))


def through(module: ModuleType, run: Any) -> None:
    """The `main` of a generated train.py, which is given this run."""
    with patch.object(module, "Run", lambda *_: run):
        module.main()
