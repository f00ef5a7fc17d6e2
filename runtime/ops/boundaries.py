"""Registers that the backward pass makes again, instead of keeping every one of them.

A memory written at ticks has a state for every period of every sequence, each as large as its weights.  Autograd would
keep all of them, with what every write computed on its way.  Here a register remembers how it came about,

    start --- tokens, write --- Boundary 1 --- tokens, write --- Boundary 2 --- ...

and what autograd saves of it is replaced by a note.  Asked for it, a boundary goes back to the nearest one whose
register is at hand and repeats what was done since: it gathers what the tokens left, which is kept, and writes.
Registers 2, 5, 9, 14, ... stay: of N boundaries sqrt(2 N) are kept, at most as many lie between two of them, and every
period is gathered once more.  The same operations on the same numbers give the same numbers, so gradients, of any
order, are what they would be.  What is held for a nested memory is kept wherever its life begins.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from runtime.ops.history import past
from runtime.ops.rows import products_of
from runtime.ops.saving import Found, place

Register = dict[str, Tensor]
Parts = Mapping[str, Tensor]
Rate = Tensor | float
Step = Callable[[Register], Register]
Write = Callable[[Register, Parts, Rate], Register]
GATHERED = ("sum.", "gram.", "kept", "rate.", "param.")  # what a period gathers; all else is state
FEW = 64  # numbers: rates and the like


class Traced(Register):
    """A register that knows its boundary, and the steps that have led from there to here."""

    def __init__(self, register: Register, boundary: Boundary, since: tuple[Step, ...] = ()) -> None:
        super().__init__(register)
        self.boundary, self.since = boundary, since
        boundary.live = weakref.ref(self)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy remembers nothing


@dataclass
class Chain:
    """What the boundaries of one memory share, from where a call begins."""

    there: set[int]  # storages that are there anyway: of the first register, and of starts
    again: list[weakref.ref[Boundary]] = field(default_factory=list)  # who holds what was made again


@dataclass(frozen=True)
class Origin:
    """How a register came about: `steps` gathered a period upon the register of the boundary `before`; then a write."""

    before: Boundary
    steps: tuple[Step, ...]
    write: Write
    start: Parts
    lr: Rate
    moving: frozenset[str]  # what of the write's arguments has a gradient
    versions: tuple[int, ...]  # of the start

    def gathered(self, register: Register) -> Register:
        """The register to be written."""
        with torch.no_grad():
            for step in self.steps:
                register = step(register)
        return register

    def written(self, register: Register) -> tuple[Register, list[Tensor]]:
        """After the write, and what autograd saves in it, in its order."""
        self.check()
        saved: list[Tensor] = []
        lr = self._leaves("lr", {"": self.lr})[""] if isinstance(self.lr, Tensor) else self.lr
        with torch.enable_grad(), saved_tensors_hooks(partial(_append, saved), _never):
            out = self.write(self._leaves("register", register), self._leaves("start", self.start), lr)
        return plain(out), saved

    def check(self) -> None:
        """Raises RuntimeError if a start was changed in place after the forward pass."""
        if self.versions != tuple(x._version for x in self.start.values()):
            raise RuntimeError("the start of a memory was changed in place before the backward pass was over")

    def _leaves(self, kind: str, tensors: Parts) -> Register:
        return {name: x.detach().requires_grad_(f"{kind} {name}" in self.moving) for name, x in tensors.items()}


class Boundary:
    """A register after a write: at hand, or made again from the boundary before it."""

    def __init__(self, chain: Chain, index: int, origin: Origin | None = None) -> None:
        self.chain, self.index, self.origin = chain, index, origin
        self.live: Callable[[], Traced | None] = _nothing  # the register, while it is the memory's
        self.unfinished = False  # the register holds a part of a period
        self.data: Register | None = None  # its numbers, where they stay or have been made again
        self.ready: Register | None = None  # those of the register that was written, made again
        self.saved: dict[int, Tensor] = {}  # what autograd saved in the write, made again
        self.count = 0

    @property
    def stays(self) -> bool:
        """At 0, 2, 5, 9, 14, ...: gaps that grow by one."""
        return math.isqrt(8 * self.index + 9) ** 2 == 8 * self.index + 9

    def register(self) -> Register:
        """Its numbers."""
        path: list[tuple[Boundary, Origin]] = []
        at = self
        while (found := at._at_hand()) is None:
            assert at.origin is not None  # the first one's numbers stay
            path.append((at, at.origin))
            at = at.origin.before
        if path:
            self._forget()
        for boundary, origin in reversed(path):
            boundary.ready = origin.gathered(found)
            found, saved = origin.written(boundary.ready)
            boundary.data = found
            there = {place(x) for x in boundary.ready.values()}
            if all(place(x) in there or x.numel() <= FEW for x in saved):  # costs nothing to keep
                boundary.saved = dict(enumerate(saved))
            self.chain.again.append(weakref.ref(boundary))
        return found

    def _at_hand(self) -> Register | None:
        live = self.live()
        if self.data is not None or live is None:
            return self.data
        if self.unfinished:
            return None if live.since else plain(live)
        return plain({name: x for name, x in live.items() if not gathered(name)})

    def _forget(self) -> None:
        """What has been made again of the chain's boundaries goes."""
        for boundary in filter(None, (reference() for reference in self.chain.again)):
            boundary.data = boundary.data if boundary.stays else None
            boundary.ready, boundary.saved = None, {}
        self.chain.again.clear()

    def note(self, x: Tensor) -> int:
        """What stands for the next tensor that autograd saves in the write."""
        self.count += 1
        return self.count - 1

    def recall(self, noted: int) -> Tensor:
        """That tensor.  The write is done once more for all of them."""
        if noted not in self.saved:
            assert self.origin is not None
            if self.ready is None:
                self.ready = self.origin.gathered(self.origin.before.register())
                self.chain.again.append(weakref.ref(self))
            self.saved = dict(enumerate(self.origin.written(self.ready)[1]))
        return self.saved.pop(noted)


def traced(register: Register) -> Traced:
    """The register, or where a call begins with it."""
    if isinstance(register, Traced):
        return register
    first = Boundary(Chain({place(x) for x in register.values()}), 0)
    first.data = plain(register)
    return Traced(register, first)


def marked(register: Register) -> Register:
    """The register as read of earlier tokens: see `past`."""
    found = {name: past(x) for name, x in register.items()}
    return Traced(found, register.boundary, register.since) if isinstance(register, Traced) else found


def handed_over(register: Register) -> Register:
    """The register as one call hands it to another: what the next one collects is also its tensors' gradient."""
    if all(products_of(x) is None for x in register.values()):
        return register
    found = {name: x if products_of(x) is None else x.view_as(x) for name, x in register.items()}
    return Traced(found, register.boundary, register.since) if isinstance(register, Traced) else found


def followed(register: Register, step: Callable[[], Step], out: Register) -> Register:
    """`out`, which a step has made of the register; `step` tells how to repeat it on plain numbers."""
    if not torch.is_grad_enabled():
        return out
    before = traced(register)
    return Traced(out, before.boundary, (*before.since, step()))


def written(write: Write, register: Register, start: Parts, lr: Rate) -> Register:
    """write(register, start, lr), of which the backward pass makes again what it needs."""
    if not torch.is_grad_enabled():
        return write(register, start, lr)
    before = traced(register)
    given = {"register": register, "start": start, "lr": {"": lr} if isinstance(lr, Tensor) else {}}
    moving = frozenset(f"{kind} {name}" for kind, xs in given.items() for name, x in xs.items() if x.requires_grad)
    rate = lr.detach() if isinstance(lr, Tensor) else lr
    versions = tuple(x._version for x in start.values())
    origin = Origin(before.boundary, before.since, write, plain(start), rate, moving, versions)
    chain = before.boundary.chain
    chain.there |= {place(x) for x in start.values()}
    boundary = Boundary(chain, before.boundary.index + 1, origin)
    with saved_tensors_hooks(boundary.note, boundary.recall):
        out = Traced(write(register, start, lr), boundary)
    boundary.unfinished = any(map(gathered, out))
    boundary.data = plain(out) if boundary.stays else None
    return out


def sources(register: Register | None) -> Found:
    """What reads see of a register, and how it is found again."""
    if not isinstance(register, Traced):
        return ()
    boundary, there = register.boundary, register.boundary.chain.there
    names = [name for name in register if not gathered(name) and not name.startswith("rule.")]
    names.sort(key=lambda name: name.startswith("held."))  # what is held may be the state itself
    return [(register[name], partial(_part, boundary, name)) for name in names if place(register[name]) not in there]


def _part(boundary: Boundary, name: str) -> Tensor:
    return boundary.register()[name]


def gathered(name: str) -> bool:
    """Whether a period gathers it; all else is state."""
    return name.startswith(GATHERED)


def unread(name: str) -> bool:
    """Whether only a write looks at it."""
    return gathered(name) or name.startswith("rule.")


def plain(tensors: Parts) -> Register:
    """Their numbers, without the graph."""
    return {name: x.detach() for name, x in tensors.items()}


def _append(found: list[Tensor], x: Tensor) -> None:
    found.append(x.detach())


def _never(_: Any) -> Tensor:
    raise RuntimeError("nothing goes back through a write that is only repeated")


def _nothing() -> None:
    return None
