"""Memories that are written alike, from the same pairs at the same rates, computed as the heads of one memory.

boxes = Boxes(WRITE, {"key": register, "value": register}, start={"key": parts, "value": parts})
key_k, value_k = boxes.read(k, ("key", "value"))        at the first state of the running chunk
boxes.write(k, v, rate, keep, phase=0)                  one call of `memory` for all of them

B batch, T tokens, H heads of each box, N boxes, I width in, O width out.   Inside, head h of box n is head
h N + n: states (B, H N, O, I).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runtime.ops.forms import read
from runtime.ops.memories import Write, memory
from runtime.ops.rows import collected
from runtime.ops.segment import Register, held

Starts = Mapping[str, Mapping[str, Tensor]]


class Boxes:
    """The boxes of a walk over the chunks of some tokens."""

    def __init__(
        self,
        write: Write,
        registers: Mapping[str, Register],
        start: Starts | None = None,
    ) -> None:
        """write: of the first box.  registers, start: of each, as `memory` takes them."""
        self.names = tuple(registers)
        level = write.name.rpartition(".")[0]
        self.write_as = replace(write, boxes=tuple(f"{level}.{name}" for name in self.names))
        self.given, known = start, whole_of(registers)
        self.register = together(list(registers.values())) if known is None else known.register
        if known is None or not alike(known.given, start):
            parts = {} if start is None else together([start[name] for name in self.names], axis=1)
            self.start = None if start is None else {part: collected(x) for part, x in parts.items()}
        else:
            self.start = known.start

    def read(self, q: Tensor, names: Sequence[str]) -> tuple[Tensor, ...]:
        """M(q) of these boxes at the running chunk's first state: q (B, T, H, I) to (B, T, H, O) each."""
        if tuple(names) == self.names:
            self._collect()
        W, N = held(self.register), len(names)
        if tuple(names) != self.names:
            at = [self.names.index(name) for name in names]
            W = {part: x.unflatten(1, (-1, len(self.names)))[:, :, at].flatten(1, 2) for part, x in W.items()}
        y = read(self.write_as.form, W, q.repeat_interleave(N, 2))
        return y.unflatten(2, (-1, N)).unbind(3)

    def write(
        self, k: Tensor, v: Tensor, rate: Tensor | float, keep: Tensor | None, *, learn: bool = True, **more: Any
    ) -> None:
        """Every box, by `memory`.  rate and keep are broadcastable to (B, T, H)."""
        rate, keep = (self._spread(x) for x in (rate, keep))
        _, self.register = memory(
            self.write_as, self.register, k, v, rate, keep, start=self.start, learn=learn, **more
        )  # fmt: skip

    def _spread(self, x: Any) -> Any:
        """For the heads of every box."""
        return x.repeat_interleave(len(self.names), -1) if isinstance(x, Tensor) and x.dim() == 3 else x

    def _collect(self) -> None:
        """The state that is read now sums its gradient (runtime.ops.rows)."""
        for part in self.write_as.form.matrices:
            x = self.register.get(f"held.{part}", self.register[part])
            same = [name for name in (part, f"held.{part}") if self.register.get(name) is x]
            self.register = self.register | dict.fromkeys(same, collected(x))

    def registers(self) -> dict[str, Register]:
        """Each box's own, after the last write."""
        apart = {part: x.unflatten(1, (-1, len(self.names))).unbind(2) for part, x in self.register.items()}
        whole = Whole(self.names, self.register, self.given, self.start, torch.is_grad_enabled())
        return {
            name: Apart(whole, name, {part: xs[n] for part, xs in apart.items()}) for n, name in enumerate(self.names)
        }


@dataclass(frozen=True)
class Whole:
    """The boxes after a walk, as the next one goes on with them.  given: the starts that `start` is made of."""

    names: tuple[str, ...]
    register: Register
    given: Starts | None
    start: Register | None
    recorded: bool  # by autograd


class Apart(Register):
    """The register of one box that knows the whole."""

    def __init__(self, whole: Whole, name: str, register: Register) -> None:
        super().__init__(register)
        self.whole, self.name = whole, name

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy is itself alone


def whole_of(registers: Mapping[str, Register]) -> Whole | None:
    """What all of the registers are parts of, if they are."""
    first = next(iter(registers.values()))
    if not isinstance(first, Apart) or first.whole.recorded != torch.is_grad_enabled():
        return None
    mine = all(isinstance(r, Apart) and r.whole is first.whole and r.name == name for name, r in registers.items())
    return first.whole if mine and first.whole.names == tuple(registers) else None


def alike(mine: Starts | None, other: Starts | None) -> bool:
    """Whether starts are the same tensors."""
    if mine is None or other is None:
        return mine is other
    return all(x is other[name].get(part) for name, parts in mine.items() for part, x in parts.items())


def together(parts: Sequence[Mapping[str, Tensor]], axis: int = 2) -> dict[str, Tensor]:
    """The parts of every box as those of one: heads at `axis` - 1, those of a start without a batch at 0."""
    found: dict[str, Tensor] = {}
    for part in parts[0]:
        mine = [p[part] for p in parts]
        now = part.removeprefix("held.")
        if now != part and all(x is p[now] for x, p in zip(mine, parts, strict=True)):
            found[part] = found[now]  # as it is at the border of a chunk
        else:
            found[part] = torch.stack(mine, axis).flatten(axis - 1, axis)
    return found
