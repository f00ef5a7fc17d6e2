"""Model, bytes -> mean loss over evenly spaced sequences: the same ones every time, for every seed and model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from runtime.batches import rows, spread


@dataclass(frozen=True, slots=True)
class Result:
    """loss in nats a token; tokens it is the mean of; writes made meanwhile, by level."""

    loss: float
    tokens: int
    fires: dict[str, int] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> float:
        return self.loss / math.log(2)

    def as_dict(self) -> dict[str, Any]:
        return {"bits_per_byte": self.bits_per_byte, **asdict(self)}


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Tensor, *, batch: int, context: int, tokens: int = 0, learn: bool = True
) -> Result:
    """The loss on about `tokens` tokens of `data` (0 is all of it that whole sequences cover).

    With `learn` the levels inside a sequence go on writing while they read, as in training; without it they never do.
    Every sequence begins anew, memories of `carry: stream` included.  The model's mode and firing counts are left
    as they were.
    """
    count = max(1, (tokens or len(data)) // context)
    starts = spread(data, count, context)
    fires: dict[str, int] = getattr(model, "fires", {})
    before, mode = dict(fires), model.training
    model.eval()
    total, seen = 0.0, 0
    try:
        for i in range(0, len(starts), batch):
            x_BT, y_BT = rows(data, starts[i : i + batch], context)
            loss, _ = model.loss(x_BT, y_BT, final=True, learn=learn)
            total += float(loss) * y_BT.numel()
            seen += y_BT.numel()
        made = {name: count - before.get(name, 0) for name, count in fires.items()}
    finally:
        model.train(mode)
        fires.clear()
        fires.update(before)
    return Result(total / seen, seen, made)
