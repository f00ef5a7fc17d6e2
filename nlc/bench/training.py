"""One step of a generated train.py, as it stands: batch, loss, gradients, and every level's update.

Its `main` is given a run of two steps on random text, of which the second is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nlc.bench.timing import Run, Seconds
from nlc.compile import Program
from runtime import program
from runtime.settings import Settings

WARM = 1  # steps before the one that counts


class TwoSteps:
    """What the loop of a generated train.py asks of its run."""

    device, unread, status = "cpu", True, 0

    def __init__(self, settings: Settings) -> None:
        self.settings = replace(settings, steps=WARM + 1)
        self.seconds = Seconds(0)

    def __enter__(self) -> TwoSteps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def data(self) -> TwoSteps:
        return self

    train: Any = None  # a text, of which nothing is read

    def crops(self, text: Any) -> Iterator[tuple[Tensor, Tensor, None]]:
        s, generator = self.settings, torch.Generator().manual_seed(0)
        while True:
            tokens = torch.randint(s.vocab, (s.batch, s.context + 1), generator=generator)
            yield tokens[:, :-1], tokens[:, 1:], None

    def steps(self, model: nn.Module, levels: Sequence[Any]) -> Iterator[int]:
        for step in range(self.settings.steps):
            began = time.perf_counter()
            yield step
            self.seconds = Seconds(time.perf_counter() - began)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def report(self, loss: Tensor, state: Any = None) -> None:
        pass


def step(made: Program) -> Run:
    """Seconds of a training step, by the wall; its model is made anew each time."""
    with TemporaryDirectory() as folder:
        module: ModuleType = program.load(Path(made.write(folder)))
    main: Callable[[], int] = module.main

    def run() -> Seconds:
        one = TwoSteps(module.settings)
        setattr(module, "Run", lambda *_: one)  # noqa: B010
        main()
        return one.seconds

    return run
