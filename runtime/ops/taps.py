"""What a read of a form leaves for the write of its memory: every layer's input and output, and little to keep."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from runtime.ops.forms import Form, Layer, Tap, Weights
from runtime.ops.saving import Found, Saving, place
from runtime.precision import half, mixed, same

Seen = Mapping[str, tuple[Tensor, Tensor]]


class Enough(Exception):
    """What is asked for is there: the rest of a form need not run."""


class Readings(tuple[Tap, ...]):
    """Taps of a read that knows how to make them again.  seen: as in `leanly`."""

    left: Left
    seen: Seen


class Left:
    """The input of a read and the output of every layer but the last; every layer's input follows, pointwise."""

    def __init__(self, form: Form, x: Tensor) -> None:
        self.form, self.x, self.mode = form, x.detach(), same(x)
        self.outputs: dict[Layer, Tensor] = {}  # in the order in which the layers are run
        self.alive: dict[Layer, weakref.ref[Tensor]] = {}  # inputs that somebody still has

    def taps(self) -> Sequence[Tap]:
        """As they were, but for the last output, which is blank."""
        *_, last = self.outputs
        inputs = self.inputs(last)
        return [(inputs[part], self.outputs[part]) for part in self.form.layers]

    def inputs(self, last: Layer) -> dict[Layer, Tensor]:
        """Of all layers up to `last`."""
        found: dict[Layer, Tensor] = {}

        def layer(part: Layer, a: Tensor) -> Tensor:
            found[part] = a
            if part is last:
                raise Enough
            return self.outputs[part]

        with torch.no_grad(), self.mode(), suppress(Enough):
            self.form.run(layer, self.x)
        return found

    def input(self, part: Layer) -> Tensor:
        known = self.alive[part]()
        return self.inputs(part)[part] if known is None else known.detach()


def leanly(form: Form, W: Weights, x: Tensor, again: Found, seen: Seen) -> tuple[Tensor, tuple[Tap, ...]]:
    """`form.read(W, x)`, of which autograd, which is on, keeps no layer's input and nothing that is found again.

    seen: of the tensors of a register, by name, each one and what this read has of it.
    """
    left, given = Left(form, x), [x]
    with Saving(again) as saving:
        if mixed(x):  # here, to be known by their place: autocast would do it unseen
            W = dict(W) | {part: halved(saving, W[part]) for part in form.matrices if saving.knows(W[part])}

        def layer(part: Layer, a: Tensor) -> Tensor:
            if all(place(a) != place(z) for z in given):
                left.alive[part] = weakref.ref(a)
                saving.follows(a, partial(left.input, part))
            z = form.layer(W, part, a)
            if not z.requires_grad:  # made of nothing that wants a gradient: the error at it is asked for all the same
                z.requires_grad_()
            given.append(z)
            left.outputs[part] = z.detach()
            return z

        y, found = form.run(layer, x)
    *_, last = left.outputs
    left.outputs[last] = blank(left.outputs[last])  # no layer's input needs it
    taps = Readings(found)
    taps.left, taps.seen = left, seen
    return y, taps


def halved(saving: Saving, W: Tensor) -> Tensor:
    """W as products under autocast take it."""
    found = half(W)
    saving.follows(found, saving.sources[place(W)])
    return found


def without_graph(taps: Sequence[Tap]) -> Callable[[], Sequence[Tap]]:
    """How to make taps again, without their graph and with no output to rely on."""
    if isinstance(taps, Readings):
        return taps.left.taps
    numbers = [(a.detach(), blank(z)) for a, z, *_ in taps]
    return lambda: numbers


def blank(x: Tensor) -> Tensor:
    """Zeros in the shape of `x` that take no memory."""
    return x.new_zeros(()).expand_as(x)
