"""Training steps as CUDA graphs: `nlc train --cuda-graphs`.

A step of a nested model is thousands of short kernels, each of which Python starts: on a GPU the host is what is waited
for.  Here the loss of a step and all its gradients are recorded once, after a few steps that were run as always, and
then started by one call:

    graphs.ready()                                  the next loss is that of a training step
    model.loss(tokens, targets, final=True)         copies the batch in, replays, copies loss and gradients out

The same kernels run on the same numbers, so results are those of a step that is run as always.  A graph freezes all
that is no tensor on the device, so there is one for each pattern: shape and type of the batch, precision, levels that
write.  What differs from step to step stays outside of it: the rules of levels that count steps, whose rate (of the
schedule) and count are numbers of Python; steps that log, which look inside; documents packed in a row, whose borders
give every step another shape; sequences that go on from a state; spans that are run again (`run.memory`).  All these
run as always, and each reason is said once.

A graph keeps the memory of a step's activations for itself, beside what steps that are run as always take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runtime.ops.inputs import Summed
from runtime.ops.watch import Watched

WARM = 3  # steps of a pattern before it is recorded: they compile kernels, and make what libraries keep

Step = Callable[[Tensor, Tensor], Tensor]  # tokens and targets -> loss
Made = tuple[Tensor, list[Tensor | None]]  # loss, and the gradient of every weight
Recorder = Callable[[Callable[[], Made]], tuple[Made, Callable[[], None]]]  # what a run makes; what makes it again


def recorded(run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
    """A CUDA graph of `run`: where its results will lie, and a call that computes them there."""
    graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            made = run()
    except RuntimeError:
        torch.cuda.set_stream(here)
        raise
    return made, graph.replay


class Counted(Protocol):
    """A model: its weights, and how often each level has written."""

    fires: dict[str, int]

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True, slots=True)
class Graph:
    """A recorded step: the places of its batch and results, and what it counts on the host."""

    batch: tuple[Tensor, Tensor]
    loss: Tensor
    gradients: list[Tensor | None]
    replay: Callable[[], None]
    fires: dict[str, int]


class CudaGraphs:
    """The recorded steps of one model.  `say` hears why a step is not one of them."""

    def __init__(self, say: Callable[[str], None], record: Recorder = recorded) -> None:
        self.say, self.record = say, record
        self.patterns: Counter[Any] = Counter()  # steps of each that were run as always
        self.graphs: dict[Any, Graph] = {}
        self.failed = self.awaited = False
        self.said: set[str] = set()

    def ready(self, wanted: bool = True) -> None:
        """Whether the next loss is that of a training step.  A loss that is asked for otherwise is never replayed."""
        self.awaited = wanted

    def loss(self, model: Counted, tokens: Tensor, targets: Tensor, step: Step, why_not: str) -> Tensor | None:
        """The loss by `step`, whose gradients a backward pass hands out; None: run it as always.

        `why_not`: what of this step no graph can hold, "" where there is nothing.
        """
        if not self.awaited or self.failed or not torch.is_grad_enabled():
            return None
        self.awaited = False
        if why_not := why_not or looked_at():
            self.once(f"{why_not}: such steps are run as always")
            return None
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        pattern = (tokens.shape, tokens.dtype, targets.dtype, len(weights), *mode(tokens.device.type))
        if self.patterns[pattern] < WARM:
            self.patterns[pattern] += 1
            return None
        if pattern not in self.graphs and (graph := self.captured(model, tokens, targets, step, weights)):
            self.graphs[pattern] = graph
        return None if self.failed else replayed(model, self.graphs[pattern], tokens, targets, weights)

    def captured(
        self, model: Counted, tokens: Tensor, targets: Tensor, step: Step, weights: list[nn.Parameter]
    ) -> Graph | None:
        """The graph of a step; None, and no other is tried, where it cannot be recorded."""
        batch = (tokens.clone(), targets.clone())
        before = dict(model.fires)

        def run() -> Made:
            torch.clear_autocast_cache()  # weights that were rounded outside of the graph would stay as they are now
            loss = step(*batch)
            return loss.detach(), list(torch.autograd.grad(loss, weights, allow_unused=True))

        try:
            (loss, gradients), replay = self.record(run)
        except RuntimeError as error:
            self.failed = True
            self.once(f"a step cannot be recorded ({str(error).splitlines()[0]}): all are run as always")
            return None
        finally:
            counted, model.fires = model.fires, before  # nothing has been computed yet
        fires = {level: count - before.get(level, 0) for level, count in counted.items()}
        return Graph(batch, loss, gradients, replay, fires)

    def once(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.say(f"CUDA graphs: {message}")


def looked_at() -> str:
    """Who looks into this step, if anybody does."""
    return "a rule asks for the inputs of layers" if Summed.by else "a step is watched" if Watched.by else ""


def mode(device: str) -> tuple[Any, ...]:
    """What precision a forward pass is in now."""
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def replayed(model: Counted, graph: Graph, tokens: Tensor, targets: Tensor, weights: list[nn.Parameter]) -> Tensor:
    for place, now in zip(graph.batch, (tokens, targets), strict=True):
        place.copy_(now)
    graph.replay()
    for level, count in graph.fires.items():
        model.fires[level] = model.fires.get(level, 0) + count
    loss: Tensor = _Known.apply(graph.loss, graph.gradients, *weights)  # type: ignore[no-untyped-call]
    return loss


class _Known(torch.autograd.Function):
    """A loss whose gradients are there already: all are copied out, since the next replay writes over them."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *weights: Tensor) -> Tensor:
        ctx.used = [g is not None for g in gradients]
        ctx.gradients = torch._foreach_mul([g for g in gradients if g is not None], 1.0)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(torch._foreach_mul(ctx.gradients, share))
        return None, None, *(next(found) if used else None for used in ctx.used)
