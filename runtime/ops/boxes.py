"""Memories that are written alike, from the same pairs at the same rates, computed as the heads of one memory.

boxes = Boxes(WRITE, {"key": register, "value": register}, start={"key": parts, "value": parts})
key_k, value_k = boxes.read(k, ("key", "value"))        at the first state of the running chunk
boxes.write(k, v, rate, keep, phase=0)                  one call of `memory` for all of them

B batch, T tokens, H heads of each box, N boxes, I width in, O width out.   Inside, head h of box n is head
h N + n: states (B, H N, O, I).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runtime.ops.forms import read
from runtime.ops.memories import Write, memory
from runtime.ops.segment import Register, held


class Boxes:
    """The boxes of a walk over the chunks of some tokens."""

    def __init__(
        self,
        write: Write,
        registers: Mapping[str, Register],
        start: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """write: of the first box.  registers, start: of each, as `memory` takes them."""
        self.names = tuple(registers)
        level = write.name.rpartition(".")[0]
        self.write_as = replace(write, boxes=tuple(f"{level}.{name}" for name in self.names))
        self.register = together(list(registers.values()))
        self.start = None if start is None else together([start[name] for name in self.names], axis=1)

    def read(self, q: Tensor, names: Sequence[str]) -> tuple[Tensor, ...]:
        """M(q) of these boxes at the running chunk's first state: q (B, T, H, I) to (B, T, H, O) each."""
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

    def registers(self) -> dict[str, Register]:
        """Each box's own, after the last write."""
        apart = {part: x.unflatten(1, (-1, len(self.names))).unbind(2) for part, x in self.register.items()}
        return {name: {part: xs[n] for part, xs in apart.items()} for n, name in enumerate(self.names)}


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
