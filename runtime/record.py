"""What a run writes about itself as it goes: its rows of metrics, and the clocks they are told by."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from runtime import metrics, mirror, plot
from runtime.directory import RunDirectory
from runtime.errors import Diverged
from runtime.level import Level
from runtime.processes import Processes
from runtime.trends import Trends


class Record:
    """The rows of a run whose steps are of so many tokens.  The first of its processes writes; all of them count.

    loss: mean of the losses at the last row.  training: seconds spent in steps, up to the last row.
    """

    def __init__(self, tokens: int, processes: Processes) -> None:
        self.tokens, self.processes = tokens, processes
        self.metrics: metrics.Metrics | None = None
        self.mirror: mirror.Mirror | None = None
        self.trends = Trends()
        self.losses: list[Tensor] = []  # of the steps since the last row
        self.loss = math.nan
        self.training = 0.0

    # ---- from a beginning, or from a checkpoint ---------------------------------------------------------------------

    def scalars(self) -> dict[str, Any]:
        """As JSON, what a checkpoint keeps."""
        return {
            "losses": [float(loss) for loss in self.losses],
            "loss": self.loss if math.isfinite(self.loss) else None,
            "rows": len(self.metrics.rows) if self.metrics else 0,
            "training": self.training,
            "seconds": self.seconds,
        }

    def restore(self, scalars: Mapping[str, Any], device: torch.device) -> None:
        self.losses = [torch.tensor(loss, device=device) for loss in scalars["losses"]]
        self.loss, self.training = scalars["loss"] or math.nan, scalars["training"]

    def open(self, directory: RunDirectory, rows: int, step: int, mirrored: bool, lenient: bool) -> None:
        """Go on after so many rows.  `mirrored`: for TensorBoard too.  Raises RunError (Unsaved)."""
        if mirrored:
            self.mirror = mirror.Mirror(directory.path, step * self.tokens)
        self.metrics = metrics.Metrics(directory.metrics, rows, lenient=lenient)
        for row in self.metrics.rows:
            self.trends.see(row)

    def start(self, step: int, seconds: float) -> None:
        """The clocks run; the run has taken so many seconds before."""
        self.clock, self.clocked = time.perf_counter(), step  # when, and after which step, the last row was made
        self.began = self.clock - seconds

    @property
    def seconds(self) -> float:
        """Of the run, all there was before it was resumed included."""
        return time.perf_counter() - self.began

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here does not count as training."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.clock += time.perf_counter() - began

    # ---- rows -------------------------------------------------------------------------------------------------------

    def row(self, step: int, state: Any, levels: Sequence[Level], more: Mapping[str, float]) -> float | None:
        """A row of the steps since the last one; its tokens a second.  None, and no row, where no loss was finite.

        Raises Diverged where their mean is not.
        """
        if not self.losses:
            return None
        mean = torch.stack(self.losses).mean()
        norms = metrics.norms(state or {})
        squares = torch.tensor(list(norms.values())).square()
        self.processes.mean([mean, squares])
        loss = float(mean)
        if not math.isfinite(loss):
            raise Diverged("the loss is not finite")
        now = time.perf_counter()
        speed = (step - self.clocked) * self.tokens / (now - self.clock)
        self.training += now - self.clock
        values: dict[str, float] = {"train/loss": loss, "perf/tokens_per_s": speed}
        for level in levels:
            values |= level.seen()
        values |= {f"memory/{name}/norm": norm for name, norm in zip(norms, squares.sqrt().tolist(), strict=True)}
        self.write(step, {**values, **more})
        self.losses, self.loss = [], loss
        return speed

    def next_row(self, step: int) -> None:
        """It is of the steps after this one, from now on."""
        self.clock, self.clocked = time.perf_counter(), step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.write(step, step * self.tokens, self.seconds, values)
            if self.mirror is not None:
                self.mirror.write(self.metrics.rows[-1])

    def warnings(self, levels: Sequence[Level]) -> list[str]:
        """A line for every memory that is about to vanish or explode since the last row; `levels`: those that count
        steps, one of which may be what moved it."""
        found = self.trends.see(self.metrics.rows[-1]) if self.metrics else {}
        return [f"memory {memory} {words}; look at {self.cause(memory, levels)}" for memory, words in found.items()]

    def cause(self, memory: str, levels: Sequence[Level]) -> str:
        """What decides a memory's norm: its writes, or, where its start has gone the same way, who trains that."""
        level, begun = start(memory, levels)
        first, last = self.trends.first[memory], self.trends.recent[memory][-1]
        same = begun < 2 * last if last < first else begun > last / 2
        return f"the rate of level {level}, which trains its start" if level and same else "its rate and retention"

    def draw(self, directory: RunDirectory, title: str, bytes_per_token: float, unit: str) -> bool:
        """The loss as a picture; False where matplotlib, which draws it, is missing."""
        assert self.metrics is not None
        try:
            plot.loss(self.metrics.rows, directory.plot, title, bytes_per_token, unit)
        except ModuleNotFoundError:
            return False
        return True

    def close(self) -> None:
        if self.metrics is not None:
            with suppress(OSError):  # every row was written when it was made
                self.metrics.close()
        if self.mirror is not None:
            self.mirror.close()


def start(memory: str, levels: Sequence[Level]) -> tuple[str, float]:
    """The level that trains a memory's start ("": none does) and the norm of that, root mean square over layers."""
    layers: dict[str, float] = {}
    owner = ""
    for level in levels:
        for weight in level.weights:
            layer, _, name = weight.name.removeprefix("blocks.").partition(".")
            if name == f"{memory}.start" or name.startswith(f"{memory}.start."):
                owner = level.name
                layers[layer] = layers.get(layer, 0.0) + float(weight.value.detach().float().square().sum())
    return owner, math.sqrt(sum(layers.values()) / max(len(layers), 1))
