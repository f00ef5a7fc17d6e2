"""What a bare program is: a layer for somebody's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime.precision import in_float32
from runtime.sequenced import Sequenced
from runtime.spans import Run, in_spans
from runtime.state import Clock, State, count, layer_of, with_layer


class Layer(Sequenced):
    """A bare program: named streams of vectors in, named outputs and the state out.  A subclass gives forward."""

    inputs: Mapping[str, tuple[int, ...]]  # axes of each after batch and token
    span: int | None = None  # tokens whose activations are in memory at a time; None: those of all

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(in_float32, with_kwargs=True)

    def start(self, B: int, like: Tensor) -> State:
        raise NotImplementedError

    def begun(self, state: State | None, **inputs: Tensor) -> tuple[State, Clock]:
        """The state to go on from, and its clocks.

        Raises ValueError for inputs that do not fit the program or one another, and for a state whose rows are not
        those of the inputs or have fallen out of step.
        """
        self._check(inputs)
        like = next(iter(inputs.values()))
        if state is None:
            state = self.start(len(like), like) | {"clock": self.fresh_clock(len(like))}
        if count(state) != len(like):
            raise ValueError(f"state: it holds {count(state)} sequences, the batch has {len(like)}")
        state = self.opened(state)
        if not self.shared_clock(state):
            raise ValueError(
                "state: its sequences have different lengths; a bare program takes them one group at a time"
            )
        return state, self.clock(state)

    def spanned(
        self, inputs: Sequence[Tensor], state: State, clock: Clock, *asked: Any
    ) -> tuple[Tensor | tuple[Tensor, ...], State]:
        """The block over all tokens; to be differentiated it goes span by span, each run again for its gradient.

        `asked`: what the block is told beside: the levels that write, whether nobody reads the state."""
        if self.span is None or not torch.is_grad_enabled():
            out, registers = self.blocks[0](*inputs, layer_of(state, 0), clock, *asked)
            return out, with_layer(state, 0, registers)
        T = inputs[0].shape[1]

        def part(a: int, b: int, at: Clock) -> Run:
            return partial(self._part, at, (asked[0], *(final and b == T for final in asked[1:])))

        weights = [weight for weight in self.parameters() if weight.requires_grad]
        whole, state = in_spans(part, list(inputs), T, state, clock, self.span, weights)
        return tuple(whole) if len(whole) > 1 else whole[0], state

    def _part(
        self, clock: Clock, asked: Sequence[Any], inputs: list[Tensor], state: State
    ) -> tuple[list[Tensor], State]:
        out, registers = self.blocks[0](*inputs, layer_of(state, 0), clock, *asked)
        return [out] if isinstance(out, Tensor) else [*out], with_layer(state, 0, registers)

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        first, like = next(iter(inputs.items()))
        dtype = next((p.dtype for p in self.parameters()), like.dtype)
        for name, x in inputs.items():
            shape = self.inputs[name]
            said = ", ".join(map(str, ("batch", "time >= 1", *shape)))
            if x.dim() != 2 + len(shape) or tuple(x.shape[2:]) != shape or x.shape[1] < 1:
                raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected ({said})")
            if x.shape[:2] != like.shape[:2]:
                raise ValueError(
                    f"{name}: got shape {tuple(x.shape)}, but {first} has {tuple(like.shape[:2])} in front"
                )
            if x.dtype != dtype:
                raise ValueError(f"{name}: got {x.dtype}, but the weights are {dtype}")
