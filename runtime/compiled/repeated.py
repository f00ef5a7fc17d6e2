"""Steps that are the operations of a recorded one and nothing else: `nlc train --tape`.

What leads to an operation, Python code, autograd, autocast and memory that is asked for, is most of the time of a small
one.  It is left out: a tape (`runtime.compiled.tape`) becomes a list of calls (`runtime.compiled.calls`) on tensors
whose places in memory are chosen once.  An operation that only looks at a tensor in another way is none, what a step
makes twice of the same is made once, and what it makes of nothing that changes once for all steps.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from runtime.compiled.calls import UNWRITTEN, Call, Calls, name_of
from runtime.compiled.recorded import proven, recorded, uncollected, undirected
from runtime.compiled.tape import Made, Slot, Step, Tape, Unrecordable, needed
from runtime.recordings import Recordings

MOST = 400_000  # operations of a step: 150,000 take about a minute to record
MORE = 4 / 3  # of the places without it, up to which what is made twice is made once
LINE = 64  # bytes of a line of a cache, of which every place has its own


class Repeated(Recordings):
    """Repeated steps of one model.  `note` hears what is repeated, `say` why a step is not."""

    name = "--tape"

    def __init__(
        self,
        say: Callable[[str], None],
        note: Callable[[str], None] = lambda line: None,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.note = note
        super().__init__(say, self.repeated, apart)

    def repeated(self, run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """Raises RuntimeError for what cannot be recorded, or gives something else once it is repeated."""
        began = time.perf_counter()
        made, tape = recorded(run)

        def prepare() -> Callable[[], Made]:
            program = Program(tape)
            what = f"{len(program.calls):,} operations in {program.bytes / 2**20:,.0f} MiB, which are repeated"
            self.note(f"a step is {what} from now on ({time.perf_counter() - began:.0f} s once)")
            return program.run

        return proven(made, prepare, "what is repeated")


class Program:
    """A tape as calls on tensors that stay where they are, as must what it reads from outside.

    bytes: of the places that were chosen.  Raises Unrecordable where there are too many operations, or what is written
    is not on the tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape, self.bytes = tape, 0
        self.outside = [(x, x.data_ptr()) for x in tape.outside.values()]
        self.storages = {tape.storages[at]: x.untyped_storage() for at, x in tape.outside.items()}
        self.tensors: dict[Any, Tensor] = {}
        self.free = defaultdict[Any, list[UntypedStorage]](list)  # places that nobody reads any more, by their size
        with torch.no_grad(), undirected(), uncollected():
            self.calls = self._calls(shared(tape, [step for step in needed(tape) if not is_view(tape, step)]))
            self.made = [None if at is None else self._tensor(at) for at in tape.made]
        del self.tape, self.storages, self.tensors, self.free  # the calls keep what they use

    def run(self) -> Made:
        """Raises RuntimeError where what lies outside has moved."""
        if any(x.data_ptr() != at for x, at in self.outside):
            raise RuntimeError("a tensor that a recorded step reads is no longer where it was")
        with torch.no_grad(), undirected():
            for call in self.calls:
                call()
        return self.made

    def _calls(self, steps: Sequence[Step]) -> list[Call]:
        """The steps in their order; each place is free after the last that looks at it."""
        if len(steps) > MOST:
            raise Unrecordable(f"its {len(steps):,} operations are more than {MOST:,}")
        if unseen(self.tape, steps):
            raise Unrecordable("a kernel writes what no operation does")
        once, sizes, ended = constants(self.tape, steps), sizes_of(self.tape, steps), ends(self.tape, steps)
        found, calls = list[Call](), Calls()
        for step, last in zip(steps, ended, strict=True):
            given, named = self._held(step.given), {name: self._held(x) for name, x in step.named}
            if id(step) in once:
                made = step.operation(*given, **named)
                for at, x in zip(step.made, made if step.several else [made], strict=True):
                    if at is not None:
                        self.storages[self.tape.storages[at]] = x.untyped_storage()
                        del sizes[self.tape.storages[at]]  # nobody else's place
                continue
            for at in step.made:
                if at is not None and self.tape.storages[at] not in self.storages:
                    self._place(at, sizes[self.tape.storages[at]])
            places = [None if at is None else self._tensor(at) for at in step.made]
            found += calls.call(step.operation, given, named, places)
            for storage in last:
                if storage in sizes:
                    place = self.storages[storage]
                    self.free[place.nbytes(), place.device].append(place)
        return found

    def _place(self, at: int, size: int) -> None:
        """One for a storage: that of another of its size, or a new one."""
        device = self.tape.looks[at][4]
        free = self.free[size, torch.device(device)]
        if not free:
            self.bytes += size
            free.append(torch.empty(size, dtype=torch.uint8, device=device).untyped_storage())
        self.storages[self.tape.storages[at]] = free.pop()

    def _tensor(self, at: int) -> Tensor:
        """A slot, as it lies in its place; equal ones are one."""
        shape, strides, offset, dtype, device = look = self.tape.looks[at]
        storage = self.storages[self.tape.storages[at]]
        key = storage._cdata, look
        if key not in self.tensors:
            self.tensors[key] = torch.empty(0, dtype=dtype, device=device).set_(storage, offset, shape, strides)  # type: ignore[call-overload]
        return self.tensors[key]

    def _held(self, tree: Any) -> Any:
        if isinstance(tree, Slot):
            return self._tensor(tree.at)
        return [*map(self._held, tree)] if isinstance(tree, tuple) else tree


def is_view(tape: Tape, step: Step) -> bool:
    """Whether all it makes lies where what it reads does, and it changes nothing."""
    made = {tape.storages[at] for at in step.made if at is not None}
    return not step.changes and bool(made) and made <= {tape.storages[at] for at in step.reads}


def unseen(tape: Tape, steps: Sequence[Step]) -> bool:
    """Whether a step reads what was asked for and no step has written."""
    asked = {tape.storages[at] for step in steps if name_of(step.operation) in UNWRITTEN for at in step.made
             if at is not None and prod(tape.looks[at][0])}  # fmt: skip
    read = {tape.storages[at] for step in steps if name_of(step.operation) not in UNWRITTEN for at in step.reads}
    return bool(asked & read - {storage for step in steps for storage in step.changes})


def shared(tape: Tape, steps: Sequence[Step]) -> Sequence[Step]:
    """The steps, without what they make twice, unless that takes too much memory: a backward pass makes it again so as
    not to keep it."""
    apart = tape.storages
    before, found = room(tape, steps), distinct(tape, steps)
    if room(tape, found) <= MORE * before:
        return found
    tape.storages = apart
    return steps


def room(tape: Tape, steps: Sequence[Step]) -> int:
    """Bytes of the places of so many steps."""
    sizes, free, found = sizes_of(tape, steps), Counter[int](), 0
    waiting = set(sizes)
    for step, last in zip(steps, ends(tape, steps), strict=True):
        for storage in {tape.storages[at] for at in step.made if at is not None}:
            if storage in waiting:
                waiting.remove(storage)
                size = sizes[storage]
                found += 0 if free[size] else size
                free[size] -= bool(free[size])
        free.update([sizes[storage] for storage in last if storage in sizes])
    return found


def distinct(tape: Tape, steps: Sequence[Step]) -> list[Step]:
    """The steps but those that make again what one before them has made, of the same tensors.  What they make lies
    where that does; nobody changes either."""
    changed = {storage for step in steps for storage in step.changes}
    times, first, same, found = Counter[int](), dict[Any, Step](), dict[int, int](), list[Step]()

    def key(tree: Any) -> Any:
        if isinstance(tree, Slot):
            storage = tape.storages[tree.at]
            storage = same.get(storage, storage)
            return storage, times[storage], tape.looks[tree.at]
        return tuple(map(key, tree)) if isinstance(tree, tuple) else (type(tree), repr(tree))  # 0.0 == -0.0

    for step in steps:
        times.update(step.changes)
        made = [at for at in step.made if at is not None]
        if not changed.isdisjoint(tape.storages[at] for at in made):
            found.append(step)
            continue
        before = first.setdefault((step.operation, key(step.given), key(step.named)), step)
        if before is step:
            found.append(step)
        else:
            same |= {tape.storages[a]: tape.storages[b] for a, b in zip(step.made, before.made, strict=True)
                     if a is not None and b is not None}  # fmt: skip
    tape.storages = [same.get(storage, storage) for storage in tape.storages]
    return found


def constants(tape: Tape, steps: Sequence[Step]) -> set[int]:
    """Steps, by identity, that make the same whatever lies outside, and of which nobody changes what they make."""
    changed = {storage for step in steps for storage in step.changes}
    known, found = set[int](), set[int]()
    for step in steps:
        made = {tape.storages[at] for at in step.made if at is not None}
        if not step.changes and made.isdisjoint(changed) and known.issuperset(tape.storages[at] for at in step.reads):
            known |= made
            found.add(id(step))
    return found


def sizes_of(tape: Tape, steps: Sequence[Step]) -> dict[int, int]:
    """Bytes of the storages that are made, in whole lines of a cache."""
    outside = {tape.storages[at] for at in tape.outside}
    sizes = defaultdict[int, int](int)
    for at in {at for step in steps for at in (*step.reads, *step.made) if at is not None}:
        sizes[tape.storages[at]] = max(sizes[tape.storages[at]], reach(tape.looks[at]))
    return {storage: size for storage, size in sizes.items() if storage not in outside}


@lru_cache(1 << 16)
def reach(look: tuple[Any, ...]) -> int:
    """Bytes up to the end of the last line of a cache that a tensor lies in."""
    shape, strides, offset, dtype, _ = look
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = (last + 1) * dtype.itemsize if prod(shape) else 0
    return max(-(-size // LINE) * LINE, LINE)


def ends(tape: Tape, steps: Sequence[Step]) -> list[list[int]]:
    """Of each step, the storages that no later one looks at and that are not given out."""
    last = {tape.storages[at]: i for i, step in enumerate(steps) for at in (*step.reads, *step.made) if at is not None}
    kept = {tape.storages[at] for at in (*tape.outside, *tape.made) if at is not None}
    found: list[list[int]] = [[] for _ in steps]
    for storage, i in last.items():
        if storage not in kept:
            found[i].append(storage)
    return found
