"""Training steps that are recorded once and replayed: what CUDA graphs and compiled steps have in common.

    recordings.on = True                                a training step begins
    made = recordings.run(model, pattern, function, given)

What a step computes is recorded: the loss and all gradients; or, where a sequence is run in spans (`run.memory`), each
span and its gradient.  A recording freezes all that is no tensor on the device; a pattern says that: one recording for
each, and for shapes, types and precision.  What differs from step to step stays outside: the rules of levels that count
steps, whose rate (of the schedule) and count are numbers of Python; steps that log, which look inside; documents packed
in a row, whose borders give every step another shape; sequences that go on from a state, unless they are run in spans.
These run as always, and each reason is said once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb, format_exc
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runtime.ops.inputs import Summed
from runtime.ops.watch import Watched
from runtime.precision import exact

Made = list[Tensor | None]
Function = Callable[[list[Tensor]], Made]
Recorder = Callable[[Callable[[], Made]], tuple[Made, Callable[[], None]]]  # what a run makes; what makes it again


class Counted(Protocol):
    """A model: its weights, and how often each level has written."""

    fires: dict[str, int]

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was recorded: the places of what is given and made, and what it counts on the host."""

    given: list[Tensor]
    made: Made
    replay: Callable[[], None]
    fires: dict[str, int]

    def run(self, model: Counted, given: Sequence[Tensor]) -> Made:
        """Copied in, replayed, copied out: the next replay writes over what this one has made."""
        for place, now in zip(self.given, given, strict=True):
            place.copy_(now)
        self.replay()
        for level, count in self.fires.items():
            model.fires[level] = model.fires.get(level, 0) + count
        return [None if x is None else x.clone() for x in self.made]


class Recordings:
    """What was recorded of one model.  `say` hears why a step is run as always.

    name: of what is recorded.  warm: calls of a pattern before it is recorded.  apart: around what is recorded, whose
    time is no step's.

    on: a training step is running, of which nobody looks inside.  Nothing else is recorded or replayed.
    asked: whether there was such a step.  trace: of the step that could not be recorded.
    """

    name = "recordings"
    warm = 0

    def __init__(
        self,
        say: Callable[[str], None],
        record: Recorder,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.say, self.record, self.apart = say, record, apart
        self.on = self.failed = self.asked = False
        self.trace = ""
        self.calls: Counter[Hashable] = Counter()  # that were run as always
        self.graphs: dict[Hashable, Replayed] = {}
        self.known: dict[Hashable, Any] = {}  # what else is kept of a pattern
        self.said: set[str] = set()

    def wanted(self, why_not: str = "") -> bool:
        """Whether to record what is computed now.  `why_not`: what of it no recording can hold, "": nothing."""
        if not self.on or self.failed or not torch.is_grad_enabled():
            return False
        self.asked = True
        if why_not := why_not or looked_at():
            self.once(f"{why_not}: such steps are run as always")
        return not why_not

    def loss(self, model: Counted, given: list[Tensor], loss: Callable[..., Tensor]) -> Tensor:
        """loss(*given), a number, whose gradients are computed with it and handed out by a backward pass."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]

        def function(given: list[Tensor]) -> Made:
            value = loss(*given)
            with exact(value):  # as where a backward pass is run: outside of what the forward pass was in
                return [value.detach(), *torch.autograd.grad(value, weights, allow_unused=True)]

        value, *gradients = self.run(model, ("step", len(weights)), function, given)
        known: Tensor = _Known.apply(value, gradients, *weights)  # type: ignore[no-untyped-call]
        return known

    def run(self, model: Counted, pattern: Hashable, function: Function, given: list[Tensor]) -> Made:
        """function(given), replayed where it was recorded.

        `pattern`: all that its operations depend on, but for numbers on the device and the shapes of what is given.
        What the function uses beside what it is given must stay where it is: weights.
        """
        device = given[0].device.type
        kind = (pattern, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        key = (*kind, *((x.shape, x.dtype, x.requires_grad) for x in given))
        if self.failed or self.calls[key] < self.warm:
            self.calls[key] += 1
            return function(given)
        if key not in self.graphs:
            try:
                with self.apart():
                    self.graphs[key] = self.captured(model, function, given)
            except RuntimeError as error:
                self.failed, self.trace = True, format_exc()
                self.graphs.clear()  # and what they hold of the device's memory
                self.once(f"a step cannot be recorded ({told(error)}): all are run as always")
        return function(given) if self.failed else self.graphs[key].run(model, given)

    def captured(self, model: Counted, function: Function, given: list[Tensor]) -> Replayed:
        """Raises RuntimeError where the device refuses to record it."""
        places = [x.detach().clone().requires_grad_(x.requires_grad) for x in given]
        before = dict(model.fires)

        def run() -> Made:
            torch.clear_autocast_cache()  # weights that were rounded outside of it would stay as they are now
            return [None if x is None else x.detach() for x in function(places)]

        try:
            made, replay = self.record(run)
        finally:
            torch.clear_autocast_cache()  # nor is there anything yet in those that were rounded inside
            counted, model.fires = model.fires, before  # nothing has been computed yet
        fires = {level: count - before.get(level, 0) for level, count in counted.items()}
        return Replayed([x.detach() for x in places], made, replay, fires)

    def once(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.say(f"{self.name}: {message}")


def told(error: RuntimeError) -> str:
    """What was refused, and the line that asked for it."""
    library = str(Path(torch.__file__).parent)
    line = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(library)][-1]
    return f"{str(error).splitlines()[0]} {'/'.join(Path(line.filename).parts[-2:])}:{line.lineno}"


def looked_at() -> str:
    """Who looks into this step, if anybody does."""
    return "a rule asks for the inputs of layers" if Summed.by else "a step is watched" if Watched.by else ""


class _Known(torch.autograd.Function):
    """A loss whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Made, *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if g is None else g * share for g in ctx.gradients)
