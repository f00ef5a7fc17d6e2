"""What a training step computes, as the operations that reach the processor, in their order.

A recording is made of one run, whatever Python code, autograd and autocast make of it: what is left are operations of
tensors, each a step.  A tape of them computes the same for other numbers of the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

Made = list[Tensor | None]
KINDS = (torch.dtype, torch.device, torch.layout, torch.memory_format)
UNSEEN = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__))  # of a tensor's numbers, by no operation
FIXED = (int, float, complex, bool, str, type(None), *KINDS)


class Unrecordable(RuntimeError):
    """A tape could not be answered for: what was asked that is not the same for other numbers."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of a tape by its number."""

    at: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on slots.  several: it makes a tuple.  changes: the storages that it writes to."""

    operation: Any
    given: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]
    made: tuple[int | None, ...]
    several: bool
    reads: tuple[int, ...]
    changes: frozenset[int]


@dataclass(slots=True)
class Tape:
    """steps, and the slots of what is given, of what lies outside (weights) and of what is made."""

    steps: list[Step] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    outside: dict[int, Tensor] = field(default_factory=dict)
    made: list[int | None] = field(default_factory=list)
    storages: list[int] = field(default_factory=list)  # of each slot
    looks: list[tuple[Any, ...]] = field(default_factory=list)  # of each slot


def look(x: Tensor) -> tuple[Any, ...]:
    return tuple(x.shape), x.stride(), x.storage_offset(), x.dtype, str(x.device)


class Recording(TorchDispatchMode):
    """While it lasts, every operation is a step of `tape`.  Raises Unrecordable where that would not be all of it."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.tape = Tape()
        self.slots: Any = WeakTensorKeyDictionary()
        self.moving: set[int] = set()  # storages that depend on what is given
        self.tape.given = [self.new(x) for x in given]
        self.moving |= set(self.tape.given)

    def __enter__(self) -> Recording:
        self.function_mode = Unseen()
        self.function_mode.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.function_mode.__exit__(*error)

    def new(self, x: Tensor, storage: int | None = None) -> int:
        at = len(self.tape.looks)
        self.slots[x] = at
        self.tape.looks.append(look(x))
        self.tape.storages.append(at if storage is None else storage)
        return at

    def slot(self, x: Tensor) -> int:
        if x not in self.slots:
            at = self.new(x)
            self.tape.outside[at] = x
            self.moving.add(at)
        return self.slots[x]  # type: ignore[no-any-return]

    def held(self, tree: Any) -> Any:
        if isinstance(tree, Tensor):
            return Slot(self.slot(tree))
        if isinstance(tree, list | tuple):
            return tuple(map(self.held, tree))
        if not isinstance(tree, FIXED):
            raise Unrecordable(f"an operation is given a {type(tree).__name__}")
        return tree

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        held, by_name = self.held(given), tuple((n, self.held(x)) for n, x in named.items())
        reads = tuple(slots_in((held, tuple(x for _, x in by_name))))
        found = operation(*given, **named)
        if torch.Tag.inplace_view in operation.tags:
            self.turned(operation, held, by_name, reads, found)
            return found
        several = isinstance(found, list | tuple)
        results = tuple(found) if several else (found,)
        moves = any(self.tape.storages[at] in self.moving for at in reads)
        if moves and counts(operation, given):
            raise Unrecordable(f"a shape depends on numbers ({operation})")
        if any(not isinstance(x, Tensor | None) for x in results):
            if moves:
                raise Unrecordable(f"a number is taken out of a tensor ({operation})")
            return found
        lies = {x.untyped_storage()._cdata: self.tape.storages[self.slot(x)] for x in tensors_in((given, named))}
        made = []
        for x in results:
            if x is None:
                made.append(None)
            elif x in self.slots:
                made.append(self.slots[x])
            else:
                made.append(self.new(x, lies.get(x.untyped_storage()._cdata)))
        changes = self.changed(operation, given, named)
        if moves:
            self.moving |= changes | {self.tape.storages[at] for at in made if at is not None}
        self.tape.steps.append(Step(operation, held, by_name, tuple(made), several, reads, changes))
        return found

    def turned(self, operation: Any, held: Any, named: Any, reads: tuple[int, ...], x: Tensor) -> None:
        """x.squeeze_(), after which x has another look: a view of it that takes its name."""
        twin = getattr(getattr(torch.ops.aten, operation._schema.name[6:-1], None), operation._overloadname, None)
        if twin is None or twin._schema.returns[0].alias_info is None or reads[0] in self.tape.outside:
            raise Unrecordable(f"a tensor is made to look otherwise ({operation})")
        at = self.new(x, self.tape.storages[reads[0]])
        self.tape.steps.append(Step(twin, held, named, (at,), False, reads, frozenset()))

    def changed(self, operation: Any, given: Any, named: Any) -> frozenset[int]:
        if not operation._schema.is_mutable:
            return frozenset()
        out: set[int] = set()
        for i, argument in enumerate(operation._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = given[i] if i < len(given) else named.get(argument.name)
                out |= {self.tape.storages[self.slot(x)] for x in tensors_in(value)}
        if out & {*self.tape.given, *self.tape.outside}:
            raise Unrecordable(f"it writes to a tensor that was there before it ({operation})")
        return frozenset(out)

    def outputs(self, made: Made) -> Tape:
        self.tape.made = [None if x is None else self.slot(x) for x in made]
        return self.tape


class Unseen(TorchFunctionMode):
    """Refuses what takes numbers out of a tensor without an operation: they would be the same for all others.

    Of what forward passes call: autograd runs backward passes outside of such modes.
    """

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if function in UNSEEN:
            raise Unrecordable(f"numbers are taken out of a tensor ({function.__name__})")
        return function(*given, **(named or {}))


def counts(operation: Any, given: Any) -> bool:
    """Whether the shape of what is made depends on numbers: by an index, where it is a mask."""
    masks = any(x.dtype in (torch.bool, torch.uint8) for x in tensors_in(given[1:]))
    return torch.Tag.dynamic_output_shape in operation.tags and (masks or operation._schema.name != "aten::index")


def tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors_in(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for x in tree:
            yield from tensors_in(x)


def slots_in(tree: Any) -> Iterator[int]:
    if isinstance(tree, Slot):
        yield tree.at
    elif isinstance(tree, tuple):
        for x in tree:
            yield from slots_in(x)


def needed(tape: Tape) -> list[Step]:
    """The steps that what is made depends on."""
    live = {tape.storages[at] for at in tape.made if at is not None}
    kept = []
    for step in reversed(tape.steps):
        made = {tape.storages[at] for at in step.made if at is not None}
        if made & live or step.changes & live:
            live |= made | {tape.storages[at] for at in step.reads}
            kept.append(step)
    return kept[::-1]


def functional(tape: Tape) -> None:
    """Steps that write over a tensor nobody else looks at make a new one instead: x.add_(y) is x = x + y."""
    steps = needed(tape)
    last = {at: i for i, step in enumerate(steps) for at in step.reads}
    last |= {at: len(steps) for at in tape.made if at is not None}
    outer = {tape.storages[at] for at in (*tape.given, *tape.outside)}
    sharing: dict[int, list[int]] = {}
    for at, storage in enumerate(tape.storages):
        sharing.setdefault(storage, []).append(at)
    now: dict[int, int] = {}  # slot -> the slot that has its numbers
    storage_of = list(tape.storages)
    tape.steps = []
    for i, step in enumerate(steps):
        own = step.reads[0] if step.reads else -1
        storage = tape.storages[own] if step.reads else -1
        alone = all(at == own or last.get(at, -1) <= i for at in sharing.get(storage, ()))
        twin = twin_of(tape, step) if step.changes == {storage} and alone and storage not in outer else None
        given, named = renamed(step.given, now), renamed(step.named, now)
        reads = tuple(now.get(at, at) for at in step.reads)
        if twin is not None:
            new = len(tape.looks)
            tape.looks.append(tape.looks[own])
            storage_of.append(new)
            now[own] = new
            tape.steps.append(Step(twin, given, named, (new,), False, reads, frozenset()))
            continue
        of = {tape.storages[at]: storage_of[now.get(at, at)] for at in step.reads}
        for at in step.made:
            if at is not None and at not in step.reads:
                storage_of[at] = of.get(tape.storages[at], storage_of[at])
        made = tuple(at if at is None else now.get(at, at) for at in step.made)
        changes = frozenset(of.get(s, s) for s in step.changes)
        tape.steps.append(Step(step.operation, given, named, made, step.several, reads, changes))
    tape.storages = storage_of
    tape.made = [at if at is None else now.get(at, at) for at in tape.made]


def renamed(tree: Any, now: dict[int, int]) -> Any:
    if isinstance(tree, Slot):
        return Slot(now.get(tree.at, tree.at))
    return tuple(renamed(x, now) for x in tree) if isinstance(tree, tuple) else tree


def twin_of(tape: Tape, step: Step) -> Any:
    """The operation that makes what this one leaves in its first argument; None where there may be none."""
    name, overload = step.operation._schema.name.removeprefix("aten::"), step.operation._overloadname
    looks = [tape.looks[at] for at in step.reads]
    shape, strides, _, dtype, _ = looks[0]
    dense = strides == torch.empty(shape, device="meta").stride()
    if not name.endswith("_") or step.made != step.reads[:1] or not dense or any(x[3] != dtype for x in looks):
        return None
    twin = getattr(getattr(torch.ops.aten, name[:-1], None), overload, None)
    return twin if twin is not None and kinds(twin) == kinds(step.operation) else None  # pow.Scalar raises a number


def kinds(operation: Any) -> list[str]:
    """The kinds of what an operation is given."""
    return [str(argument.type) for argument in operation._schema.arguments]
