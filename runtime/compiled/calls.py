"""An operation of a tape as a call on tensors that stay where they are: what it reads, and where its results go.

Most operations of torch can be told where to put what they make (`out=`), by the function of Python's torch where there
is one, which takes a third of the time of the same operation by name.  That it is the same operation is tried once, on
its first numbers, to the bit; one that writes over a tensor has its name from there.  What cannot be told so makes its
results as always, and they are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
Places = Sequence[Tensor | None]  # of results; None: of one that is not made
UNWRITTEN = frozenset("empty empty_like empty_strided new_empty new_empty_strided".split())
FILLED = {"zeros": 0, "zeros_like": 0, "new_zeros": 0, "ones": 1, "ones_like": 1, "new_ones": 1}
COPIES = frozenset(("clone", "_to_copy"))
SCALED = frozenset("add sub rsub mul div lt le gt ge eq ne add_ sub_ mul_ div_".split())  # a tensor by a number
EXACT = torch.float32, torch.float64  # of fewer bits a number is rounded where a tensor of it was before
SPACES = (torch, torch._C._nn, torch._C._linalg, torch._C._special)  # of functions


class Calls:
    """Operations -> calls, each of which has been made once; `known`: what was tried."""

    def __init__(self) -> None:
        self.known: dict[Any, Callable[..., Any] | None] = {}

    def call(self, operation: Any, given: Sequence[Any], named: Mapping[str, Any], made: Places) -> list[Call]:
        """What to call for operation(*given, **named) to put its results there: nothing, one call, or several."""
        calls = self._calls(operation, given, named, made)
        for one in calls:
            one()
        return calls

    def _calls(self, operation: Any, given: Sequence[Any], named: Mapping[str, Any], made: Places) -> list[Call]:
        name, first = name_of(operation), made[0] if made else None
        if operation._schema.is_mutable:
            given = of_tensors(name, given)[1] if name.endswith("_") else given
            return [partial(self._changing(operation, name, given, named), *given, **named)]
        if name in UNWRITTEN:
            return []
        if first is not None and len(made) == 1:
            if name in FILLED:
                return [partial(first.fill_, FILLED[name])]
            if name in COPIES:
                return [partial(first.copy_, given[0])]
            if name == "constant_pad_nd" and max(given[1], default=1) <= 0:  # cuts off, and puts nothing around
                return [partial(first.copy_, inside(given[0], [-n for n in given[1]]))]
            if (part := within(name, first, given)) is not None:
                return [partial(first.fill_, given[2] if name == "constant_pad_nd" and len(given) > 2 else 0),
                        partial(part.copy_, given[0])]  # fmt: skip
        return [self._making(operation, name, given, named, made)]

    def _changing(
        self, operation: Any, name: str, given: Sequence[Any], named: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """x.add_(y), or add(x, y, out=z): the same schema by the same name, but for lists with gaps."""
        if any(isinstance(x, list) and any(y is None for y in x) for x in given):
            return operation
        found = getattr(torch.Tensor, name, None) if name.endswith("_") else function(name) if "out" in named else None
        return operation if found is None else found

    def _making(self, operation: Any, name: str, given: Sequence[Any], named: Mapping[str, Any], made: Places) -> Call:
        twin = told_where(operation)
        if twin is None or any(x is None for x in made):
            return partial(copied, operation, given, named, made)
        places: Any = made[0] if len(made) == 1 else tuple(made)
        name, tensors = of_tensors(name, given)
        key = operation, name, *named, *(type(x) for x in tensors)
        if key not in self.known:
            self.known[key] = tried(operation, function(name), given, tensors, named, places)
        if (found := self.known[key]) is not None:
            return partial(found, *tensors, **named, out=places)
        outs = [argument.name for argument in twin._schema.arguments if argument.is_out]
        return partial(twin, *given, **named, **dict(zip(outs, made, strict=True)))


def name_of(operation: Any) -> str:
    """add of aten::add.Tensor."""
    name: str = operation._schema.name
    return name.removeprefix("aten::")


def function(name: str) -> Callable[..., Any] | None:
    """Of Python's torch."""
    return next((getattr(space, name) for space in SPACES if hasattr(space, name)), None)


@cache
def told_where(operation: Any) -> Any:
    """The same operation with places for all its results; None where there is none."""
    want, count = [str(x.type) for x in operation._schema.arguments], len(operation._schema.returns)
    if any(str(x.type) != "Tensor" for x in operation._schema.returns):  # a list of them
        return None
    packet = operation.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        arguments = overload._schema.arguments
        outs = sum(x.is_out for x in arguments)
        if outs == count and [str(x.type) for x in arguments if not x.is_out] == want:
            return overload
    return None


def tried(
    operation: Any,
    function: Callable[..., Any] | None,
    given: Sequence[Any],
    tensors: Sequence[Any],
    named: Mapping[str, Any],
    places: Any,
) -> Callable[..., Any] | None:
    """The function where it puts there, to the bit, of these tensors what the operation makes of what it is given."""
    if function is None:
        return None
    want = operation(*given, **named)
    try:
        function(*tensors, **named, out=places)
    except (TypeError, RuntimeError):
        return None
    pairs = [(want, places)] if isinstance(want, Tensor) else list(zip(want, places, strict=True))
    return function if all(bits(a).equal(bits(b)) for a, b in pairs) else None


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(-1).view(torch.uint8)


def within(name: str, whole: Tensor, given: Sequence[Any]) -> Tensor | None:
    """The part of `whole` that takes all that is given, if nothing but zeros or a number is around it."""
    if name == "slice_backward":
        _, _, axis, first, last, step = given
        return whole[(*[slice(None)] * (axis % whole.dim()), slice(first, last, step))]
    if name == "select_backward":
        return whole.select(given[2], given[3])
    if name == "constant_pad_nd" and min(given[1], default=-1) >= 0:
        return inside(whole, given[1])
    return None


def inside(x: Tensor, border: Sequence[int]) -> Tensor:
    """What is left of x without so much before and after on its last axis, on the one before it, ..."""
    for i in range(0, len(border), 2):
        axis, (before, after) = -1 - i // 2, border[i : i + 2]
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def of_tensors(name: str, given: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """A function of a tensor and a number, and both as tensors: every call would make one of the number anew."""
    if name not in SCALED or len(given) != 2 or type(given[1]) not in (int, float) or given[0].dtype not in EXACT:
        return name, given
    x, y = given[0], torch.tensor(given[1], dtype=given[0].dtype, device=given[0].device)
    return ("sub", (y, x)) if name == "rsub" else (name, (x, y))


def copied(operation: Any, given: Sequence[Any], named: Mapping[str, Any], made: Places) -> None:
    found = operation(*given, **named)
    for place, x in zip(made, (found,) if isinstance(found, Tensor) else found, strict=True):
        if place is not None:
            place.copy_(x)
