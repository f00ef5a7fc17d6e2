"""A run as a tape, and whether what the tape makes is what the run made."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from runtime.compiled.tape import Made, Recording, Tape, Unrecordable
from runtime.precision import DEVICES

FAR = (1e-3, 1e-9)  # of a result's norm, in float32 and shorter types and in float64, as in nlc verify


def recorded(run: Callable[[], Made]) -> tuple[Made, Tape]:
    """What a run makes, and the tape of it.  Raises RuntimeError for what cannot be recorded."""
    before, recording = random_state(), Recording([])
    with recording, uncollected():
        made = run()
    if not all(a.equal(b) for a, b in zip(before, random_state(), strict=True)):
        drawn_again(before)
        raise Unrecordable("it draws random numbers")
    return made, recording.outputs(made)


@contextmanager
def uncollected() -> Iterator[None]:
    """Nobody looks for circles of what is no longer used: of a million objects that stay that takes seconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def drawn_again(state: list[Tensor]) -> None:
    """The random numbers since `state` come once more, for the step that is run as always."""
    cpu, *gpus = state
    torch.set_rng_state(cpu)
    for i, gpu in enumerate(gpus):
        torch.cuda.set_rng_state(gpu, i)


def undirected() -> ExitStack:
    """Without autocast: what it has made of a step is recorded."""
    stack = ExitStack()
    for kind in DEVICES:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def proven(made: Made, prepare: Callable[[], Callable[[], Made]], what: str) -> tuple[Made, Callable[[], None]]:
    """`made`, and what makes it again.  Raises Unrecordable where `what` was prepared fails or gives something else."""
    try:
        run = prepare()
        found = run()
    except Unrecordable:
        raise
    except Exception as error:
        raise Unrecordable(f"{what} fails: {error}") from error
    if not alike(made, found):
        raise Unrecordable(f"{what} gives other numbers")

    def replay() -> None:
        made[:] = run()

    return made, replay


def alike(made: Made, found: Made) -> bool:
    """Whether results are what was recorded, but for rounding."""
    largest = max((float(a.double().nan_to_num().norm()) for a in made if a is not None), default=0.0)
    pairs = [(a, b) for a, b in zip(made, found, strict=True) if a is not None and b is not None]
    return all(same(a, b, largest) for a, b in pairs)


def same(a: Tensor, b: Tensor, largest: float) -> bool:
    """Whether a result is what was recorded, but for rounding; numbers that are not finite are alike.

    largest: norm of all that a step makes; what is so much smaller that only rounding is left of it may be anything.
    """
    if not a.is_floating_point():
        return a.equal(b)
    part, least = FAR[a.dtype == torch.float64], torch.finfo(a.dtype).eps * largest
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).norm()) <= part * float(a.norm()) + least
