"""What a training step computes, as the operations that reach the processor, in their order.

A recording is made of one run, whatever Python code, autograd and autocast make of it: what is left are operations of
tensors, each a step.  A tape of them computes the same for other numbers of the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


class Step(NamedTuple):
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
    return tuple(x.shape), x.stride(), x.storage_offset(), x.dtype, name_of(x.device)


@cache
def name_of(device: torch.device) -> str:
    return str(device)


class Recording(TorchDispatchMode):
    """While it lasts, every operation is a step of `tape`.  Raises Unrecordable where that would not be all of it."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.tape = Tape()
        self.slots: dict[int, Slot] = {}  # by where a tensor is, which no other one can be while it is referred to
        self.referred: list[Any] = []
        self.moving: set[int] = set()  # storages that depend on what is given
        self.tape.given = [self.new(x) for x in given]
        self.moving |= set(self.tape.given)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here: what keeps torch's compiler away takes as long as recording an operation."""
        return False

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
        self.slots[x._cdata] = Slot(at)
        self.referred.append(torch._C._WeakTensorRef(x))
        self.tape.looks.append(look(x))
        self.tape.storages.append(at if storage is None else storage)
        return at

    def slot(self, x: Tensor) -> Slot:
        if x._cdata not in self.slots:
            at = self.new(x)
            self.tape.outside[at] = x
            self.moving.add(at)
        return self.slots[x._cdata]

    def held(self, tree: Any, read: list[Tensor]) -> Any:
        """What an operation is given, with slots for tensors, which are added to `read`."""
        if isinstance(tree, Tensor):
            read.append(tree)
            return self.slot(tree)
        if isinstance(tree, list | tuple):
            return tuple([self.held(x, read) for x in tree])
        if not isinstance(tree, FIXED):
            raise Unrecordable(f"an operation is given a {type(tree).__name__}")
        return tree

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        read: list[Tensor] = []
        tape, named = self.tape, named or {}
        held, by_name = self.held(given, read), tuple([(n, self.held(x, read)) for n, x in named.items()])
        reads, kind = tuple([self.slots[x._cdata].at for x in read]), kind_of(operation)
        found = operation(*given, **named)
        if kind.turns:
            self.turned(operation, held, by_name, reads, found)
            return found
        several = isinstance(found, list | tuple)
        results = tuple(found) if several else (found,)
        moves = not self.moving.isdisjoint([tape.storages[at] for at in reads])
        if kind.counts and moves and counted(operation, given):
            raise Unrecordable(f"a shape depends on numbers ({operation})")
        if not all(x is None or isinstance(x, Tensor) for x in results):
            if moves:
                raise Unrecordable(f"a number is taken out of a tensor ({operation})")
            return found
        made: list[int | None] = []
        lies: dict[int, int] = {}
        for x in results:
            if x is not None and x._cdata not in self.slots:
                lies = lies or {y.untyped_storage()._cdata: tape.storages[i] for y, i in zip(read, reads, strict=True)}
                self.new(x, lies.get(x.untyped_storage()._cdata))
            made.append(None if x is None else self.slots[x._cdata].at)
        changes = self.changed(operation, given, named) if kind.changes else frozenset()
        if moves:
            self.moving |= changes
            self.moving.update([tape.storages[at] for at in made if at is not None])
        tape.steps.append(Step(operation, held, by_name, tuple(made), several, reads, changes))
        return found

    def turned(self, operation: Any, held: Any, named: Any, reads: tuple[int, ...], x: Tensor) -> None:
        """x.squeeze_(), after which x has another look: a view of it that takes its name."""
        twin = getattr(getattr(torch.ops.aten, operation._schema.name[6:-1], None), operation._overloadname, None)
        if twin is None or twin._schema.returns[0].alias_info is None or reads[0] in self.tape.outside:
            raise Unrecordable(f"a tensor is made to look otherwise ({operation})")
        at = self.new(x, self.tape.storages[reads[0]])
        self.tape.steps.append(Step(twin, held, named, (at,), False, reads, frozenset()))

    def changed(self, operation: Any, given: Any, named: Any) -> frozenset[int]:
        """The storages that it writes to."""
        out: set[int] = set()
        for i, argument in enumerate(operation._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = given[i] if i < len(given) else named.get(argument.name)
                out |= {self.tape.storages[self.slot(x).at] for x in tensors_in(value)}
        if out & {*self.tape.given, *self.tape.outside}:
            raise Unrecordable(f"it writes to a tensor that was there before it ({operation})")
        return frozenset(out)

    def outputs(self, made: Made) -> Tape:
        self.tape.made = [None if x is None else self.slot(x).at for x in made]
        return self.tape


class Unseen(TorchFunctionMode):
    """Refuses what takes numbers out of a tensor without an operation: they would be the same for all others.

    Of what forward passes call: autograd runs backward passes outside of such modes.
    """

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if function in UNSEEN:
            raise Unrecordable(f"numbers are taken out of a tensor ({function.__name__})")
        return function(*given, **(named or {}))


class Kind(NamedTuple):
    """Of an operation: whether it makes a tensor look otherwise, its shapes may depend on numbers, it writes."""

    turns: bool
    counts: bool
    changes: bool


@cache
def kind_of(operation: Any) -> Kind:
    tags = operation.tags
    return Kind(torch.Tag.inplace_view in tags, torch.Tag.dynamic_output_shape in tags, operation._schema.is_mutable)


def counted(operation: Any, given: Any) -> bool:
    """Whether the shape of what is made does depend on numbers: by an index, where it is a mask."""
    masks = any(x.dtype in (torch.bool, torch.uint8) for x in tensors_in(given[1:]))
    return masks or operation._schema.name != "aten::index"


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
