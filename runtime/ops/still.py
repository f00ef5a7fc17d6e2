"""What `shared_product` leaves of tokens that write nothing: boxes to read, and chunks that go on holding them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.forms import product
from runtime.ops.history import past
from runtime.precision import exact

Register = Mapping[str, Tensor]


@dataclass(frozen=True)
class Still:
    """Boxes that stay as they are.  states: before the tokens; head: how many of these belong to a chunk that had begun
    before them; state: after the last token, as `Shared` has it."""

    states: Mapping[str, Register]
    head: int
    state: dict[str, dict[str, Tensor]]
    k: None = None
    v: None = None
    rate: None = None
    keep: None = None

    @classmethod
    def of(cls, states: Mapping[str, Register], T: int, chunk: int, phase: int) -> Still:
        head = min(T, -phase % chunk)
        if phase + T < chunk and all("held.M" in register for register in states.values()):
            return cls(states, head, dict(states))
        held = "M" if phase + T >= chunk else "held.M"
        after = {box: {"M": s["M"]} | ({"held.M": s[held]} if chunk > 1 else {}) for box, s in states.items()}
        return cls(states, head, after)

    def read(self, box: str, q: Tensor) -> Tensor:
        """S_{t'} q_t of one box: q (B, T, H, K) to (B, T, H, rows)."""
        if q.dim() == 3:  # no heads
            return self.read(box, q.unsqueeze(2)).squeeze(2)
        register, head = self.states[box], self.head
        with exact(q):
            if head in (0, q.shape[1]):
                return product(past(register["held.M" if head else "M"]), q)
            spans = (("held.M", q[:, :head]), ("M", q[:, head:]))
            return torch.cat([product(past(register[part]), x) for part, x in spans], 1)
