"""The weights of a level as stacks: what one call of an update rule updates.

A rule that treats every entry alike gets a weight as it is, parts of a large one, or small ones end to end.  Any other
gets weights of one shape together, as stacks of matrices on their last two axes: one batched product instead of one for
each weight.  A weight of one axis is a column, a single number 1 x 1.  On a CPU all are short enough that what the rule
computes on the way stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ENTRIES = {"cpu": 1 << 18}  # of a run, and of a stack
JOINED = {"cpu": 1 << 14}  # a weight of more is no part of a run: copying it costs more than a call of the rule
MOST = 1 << 26  # elsewhere

Rule = Callable[..., tuple[Tensor, dict[str, Tensor]]]  # a generated function: codegen.rules says what it is given
View = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Weight:
    """A parameter, whether weight decay touches it, and the rule's state beside it, which starts at zero."""

    name: str
    value: nn.Parameter
    decays: bool
    state: dict[str, Tensor] = field(default_factory=dict)
    gram: Tensor | None = None  # sum of x x^T over its layer's inputs since the last update, weighed as its gradient is
    step: Tensor | None = None  # the same of a step that does not count yet


@dataclass(frozen=True, slots=True)
class Stack:
    """Pieces of weights that meet a rule together: each a weight and how its tensors are looked at."""

    pieces: list[tuple[Weight, View]]
    joined: Callable[[Sequence[Tensor]], Tensor]
    apart: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]  # the inverse: a result, as these pieces are

    @property
    def decays(self) -> bool:
        return self.pieces[0][0].decays

    def update(self, rule: Rule, share: Tensor | None = None, **given: Any) -> None:
        """One step of the rule, of this share of the gradients: weights and states in place, the gradients are gone."""
        weights = [view(weight.value.detach()) for weight, view in self.pieces]
        dtype = at_least_float32(weights[0].dtype)
        grads = [view(weight.value.grad).to(dtype) for weight, view in self.pieces if weight.value.grad is not None]
        states = {name: [view(w.state[name]) for w, view in self.pieces] for name in self.pieces[0][0].state}
        start = states.pop("start", None)
        grams = [weight.gram for weight, _ in self.pieces if weight.gram is not None]
        whole = self.joined(weights).to(dtype)
        grad = self.joined(grads)
        delta, after = rule(
            grad=grad if share is None else grad.mul_(share),
            weight=whole,
            kept=whole,
            state={name: self.joined(parts) for name, parts in states.items()},
            **given,
            **({} if start is None else {"start": self.joined(start)}),
            **({} if not grams else {"gram": self.joined(grams)}),
        )
        after = own(states, after, [*weights, *grads]) if len(self.pieces) == 1 else after
        torch._foreach_add_(weights, list(self.apart(delta.to(weights[0].dtype), weights)))
        for name, parts in states.items():
            self.keep(name, parts, self.apart(after[name], parts))

    def keep(self, name: str, parts: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """The state after a step: in place of the old one where it is the whole of a weight's, else copied into it."""
        (weight, _), *more = self.pieces
        if len(new) == 1 and new[0].data_ptr() == parts[0].data_ptr():  # the rule wrote it there
            return
        if not more and parts[0].numel() == weight.value.numel():
            weight.state[name] = new[0].reshape(weight.state[name].shape)
        else:
            torch._foreach_copy_(list(parts), list(new))


def own(states: Mapping[str, list[Tensor]], after: Mapping[str, Tensor], others: Iterable[Tensor]) -> dict[str, Tensor]:
    """The states of one piece after a step, each in memory of its own: what a rule gives may be the weight (`last =
    weight`), its gradient or another state, all of which change after it."""
    taken = {x.untyped_storage().data_ptr() for x in (*others, *(parts[0] for parts in states.values()))}
    found = {}
    for name, (old,) in states.items():
        new = after[name]
        if new.untyped_storage().data_ptr() in taken and new.data_ptr() != old.data_ptr():
            new = new.clone()
        taken.add(new.untyped_storage().data_ptr())
        found[name] = new
    return found


def stacks(weights: Iterable[Weight], entrywise: bool) -> Iterator[Stack]:
    """All of the weights, those that decay apart from those that do not."""
    groups: dict[Any, list[Weight]] = {}
    for weight in weights:
        kind = (weight.decays, weight.value.dtype, weight.value.device)
        groups.setdefault(kind if entrywise else (*kind, weight.value.shape), []).append(weight)
    for group in groups.values():
        if entrywise:
            device = group[0].value.device.type
            for run in runs(group, ENTRIES.get(device, MOST), JOINED.get(device, MOST)):
                yield Stack(run, end_to_end, cut)
        else:
            most = ENTRIES.get(group[0].value.device.type, MOST)
            count = max(most // max(group[0].value.numel(), 1), 1)
            for i in range(0, len(group), count):
                yield Stack([(weight, matrix) for weight in group[i : i + count]], on_top, split)


def runs(weights: Iterable[Weight], most: int, joined: int) -> Iterator[list[tuple[Weight, View]]]:
    """Weights of more than `joined` entries alone, in parts of `most`; the others in order, about `most` together."""
    run: list[tuple[Weight, View]] = []
    room = most
    for weight in weights:
        count = weight.value.numel()
        if joined < count <= most or not weight.value.is_contiguous():
            yield [(weight, lambda x: x)]
        elif count > most:
            for begin in range(0, count, most):
                yield [(weight, entries(begin, min(begin + most, count)))]
        else:
            if count > room:
                yield run
                run, room = [], most
            run.append((weight, entries(0, count)))
            room -= count
    if run:
        yield run


def entries(begin: int, end: int) -> View:
    return lambda x: x.reshape(-1)[begin:end]


def end_to_end(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def cut(x: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    return [x] if len(like) == 1 else x.split([part.numel() for part in like])


def matrix(x: Tensor) -> Tensor:
    return x if x.dim() > 1 else x.reshape(-1, 1)


def on_top(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(list(parts))


def split(x: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    return x.unbind(0)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def no_gram(weight: Weight) -> Tensor:
    """Of a weight that multiplies nothing, or has not yet: (..., cols, cols)."""
    like = matrix(weight.value.detach())
    return like.new_zeros(*like.shape[:-2], like.shape[-1], like.shape[-1], dtype=at_least_float32(like.dtype))
