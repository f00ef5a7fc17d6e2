"""A long sequence, of whose activations only those of some tokens at a time are in memory.

    outputs, state = in_spans(part, inputs, tokens, state, clock, span, weights)

Between two spans nothing is kept but the state of every memory.  In the backward pass a span is run again from the
state before it, then its gradient is taken: one forward pass more, the same gradient (arXiv 1604.06174, with the states
of the memories as the only borders).  The last span too: what it saved would be there until the whole step is done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime.ops.inputs import unseen
from runtime.ops.watch import unwatched
from runtime.precision import exact, same
from runtime.recordings import Function, Made, Recordings
from runtime.state import Clock, State

Leaves = list[Tensor]
Run = Callable[[Leaves, State], tuple[Leaves, State]]  # inputs, the state before -> outputs, the state after
Perform = Callable[[Hashable, Function, list[Tensor]], Made]  # what is computed, the function, what it is given


def as_always(what: Hashable, function: Function, given: list[Tensor]) -> Made:
    return function(given)


def made_again(
    function: Callable[[Leaves], Leaves],
    given: Sequence[Tensor],
    weights: Sequence[Tensor],
    perform: Perform = as_always,
) -> Leaves:
    """function(given), whose activations are made again in the backward pass.

    `weights`: leaves that `function` uses beside what it is given.  `perform`: how the function, and its gradient, are
    computed.  No gradient of the gradient.
    """
    return list(_MadeAgain.apply(function, perform, len(given), *given, *weights))  # type: ignore[no-untyped-call]


def in_spans(
    part: Callable[[int, int, Clock], Run],
    inputs: Leaves,
    tokens: int,
    state: State,
    clock: Clock,
    span: int,
    weights: Sequence[Tensor],
    graphs: Recordings | None = None,
) -> tuple[Leaves, State]:
    """The outputs of all tokens, and the state after them, span by span, each run again for its gradient.

    `part(a, b, clock)` runs tokens a to b, of which the first stands at `clock`; inputs and outputs are (B, T, ...).
    `graphs`: spans are recorded and replayed; each part then says its `model` and its `pattern`.
    """
    found: list[Leaves] = []
    for a, b in borders(tokens, clock["sequence"], span):
        run = part(a, b, {name: ticks + a for name, ticks in clock.items()})
        outputs, state = passed(run, [x[:, a:b] for x in inputs], state, weights, graphs)
        found.append(outputs)
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)], state


def passed(
    run: Run,
    inputs: Leaves,
    state: State,
    weights: Sequence[Tensor],
    graphs: Recordings | None = None,
) -> tuple[Leaves, State]:
    """run(inputs, state), whose activations are made again in the backward pass: its outputs, and the state after it.

    A part of the state that is a view of a weight, as every memory is at its start, stays one.
    """
    own = {id(weight) for weight in weights}
    parts = {(place, part): x for place, register in state.items() for part, x in register.items()}
    starts = {name: x for name, x in parts.items() if id(x) in own or id(x._base) in own}
    moved = [name for name, x in parts.items() if name not in starts and x.device == inputs[0].device]
    made, perform = Parts(), as_always
    if graphs is not None:
        one: Any = run
        pattern = (one.pattern, tuple(parts), tuple(moved), *map(of_weight, starts.values()))
        made = graphs.known.setdefault(pattern, made)
        perform = partial(recorded, graphs, one.model, pattern)

    def function(given: Leaves) -> Leaves:
        before = {place: dict(register) for place, register in state.items()}
        for (place, part), x in zip(moved, given[len(inputs) :], strict=True):
            before[place][part] = x
        outputs, after = run(given[: len(inputs)], before)
        made.outputs = len(outputs)
        return [*outputs, *made.new(before, after)]

    found = made_again(function, [*inputs, *(state[place][part] for place, part in moved)], weights, perform)
    return found[: made.outputs], made.state(state, found[made.outputs :])


def recorded(
    graphs: Recordings, model: Any, pattern: Hashable, what: Hashable, function: Function, given: list[Tensor]
) -> Made:
    return graphs.run(model, (what, pattern), function, given)


def of_weight(x: Tensor) -> Hashable:
    """Which numbers of which weight a view shows."""
    return id(x if x._base is None else x._base), x.shape, x.stride(), x.storage_offset()


class Parts:
    """Which parts of a state a run has made; the others are those it was given."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, bool]] = {}  # place -> part -> whether it is new
        self.outputs = 0  # of the run, beside the state

    def new(self, before: State, after: State) -> Leaves:
        """Those that are new, in an order that stays the same."""
        self.found = self.found or {
            place: {part: before.get(place, {}).get(part) is not x for part, x in register.items()}
            for place, register in after.items()
        }
        return [after[place][part] for place, parts in self.found.items() for part, new in parts.items() if new]

    def state(self, before: State, new: Leaves) -> State:
        """The state after the run, outside of it."""
        left = iter(new)
        return {
            place: {part: next(left) if new else before[place][part] for part, new in parts.items()}
            for place, parts in self.found.items()
        }


class _MadeAgain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, perform: Perform, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function, ctx.perform, ctx.count = function, perform, count
        ctx.around = Around(tensors[-1])
        ctx.save_for_backward(*tensors)
        outputs = perform("forward", function, [x.detach() for x in tensors[:count]])
        return tuple(y.detach() for y in outputs if y is not None)  # its own, even where it is a view of a weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        count, weights = ctx.count, [x for x in tensors[ctx.count :] if x.requires_grad]
        moving, taught = [x.requires_grad for x in tensors[:count]], [g is not None for g in grads]

        def function(given: list[Tensor]) -> Made:
            """The gradients of what can move, and of the weights."""
            inputs = [x.detach().requires_grad_(moves) for x, moves in zip(given, moving, strict=False)]
            with torch.enable_grad():
                outputs = ctx.function(inputs)
            ends = [y for y, known in zip(outputs, taught, strict=True) if known]
            pairs = [(y, g) for y, g in zip(ends, given[count:], strict=True) if y.requires_grad]
            sources = [x for x in (*inputs, *weights) if x.requires_grad]
            if not pairs or not sources:
                return [None] * len(sources)
            ends, shares = [y for y, _ in pairs], [g for _, g in pairs]
            with exact(sources[0]):  # as where a backward pass is run: outside of what the forward pass was in
                return list(torch.autograd.grad(ends, sources, shares, allow_unused=True))

        with ctx.around.again():
            given = [*(x.detach() for x in tensors[:count]), *(g for g in grads if g is not None)]
            found = iter(ctx.perform(("backward", *moving, *taught), function, given))
        return None, None, None, *(next(found) if x.requires_grad else None for x in tensors)


class Again:
    """Whether what is computed now was computed before, and counts nothing."""

    now = False


class Around:
    """What a computation depends on beside its inputs: the random numbers that come, and autocast."""

    def __init__(self, x: Tensor) -> None:
        self.mode = same(x)
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state() if x.is_cuda else None

    @contextmanager
    def again(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=None if self.cuda is not None else []):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda)
            with self.mode(), unwatched(), unseen():
                Again.now = True
                try:
                    yield
                finally:
                    Again.now = False


def borders(tokens: int, at: int, span: int) -> list[tuple[int, int]]:
    """The spans of so many tokens, the first of which is token `at` of its sequence."""
    ends = [*range(span - at % span, tokens, span), tokens]
    return list(zip([0, *ends], ends, strict=False))
