"""Model, text -> mean loss over evenly spaced sequences: the same ones every time, for every seed and model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from runtime.batches import rows, spread
from runtime.data import Text
from runtime.device import sent
from runtime.precision import autocast


@dataclass(frozen=True, slots=True)
class Result:
    """loss in nats a token; tokens it is the mean of, and their bytes of text; writes made meanwhile, by level."""

    loss: float
    tokens: int
    bytes: int
    fires: dict[str, int] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> float:
        return self.loss / math.log(2) * (self.tokens / self.bytes)

    def metrics(self) -> dict[str, float]:
        """As a row of metrics has it."""
        return {"val/loss": self.loss, "val/bits_per_byte": self.bits_per_byte, "val/tokens": self.tokens}

    def result(self) -> dict[str, Any]:
        """As the result of a run has it."""
        return {"val_loss": self.loss, "val_bits_per_byte": self.bits_per_byte, "val_tokens": self.tokens}

    @property
    def brief(self) -> str:
        return f"{self.bits_per_byte:.4f}"

    def __str__(self) -> str:
        return f"{self.bits_per_byte:.4f} bits/byte on {self.tokens:,} tokens"

    def as_dict(self) -> dict[str, Any]:
        return {"bits_per_byte": self.bits_per_byte, **asdict(self)}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    text: Text,
    *,
    batch: int,
    context: int,
    tokens: int = 0,
    learn: bool = True,
    precision: str = "float32",
    between: Callable[[], None] = lambda: None,
) -> Result:
    """The loss on about `tokens` tokens of `text` (0 is all of it that whole sequences cover).

    With `learn` the levels inside a sequence go on writing while they read, as in training; without it they never do.
    Every sequence begins anew, memories of `carry: stream` included.  `between` is called before every batch; what it
    raises ends the evaluation.  The model's weights, mode and firing counts are left as they were, whatever happens.
    """
    count = max(1, (tokens or len(text)) // context)
    firsts = spread(text, count, context)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    total, seen, size = 0.0, 0, 0
    with left_alone(model) as made:
        for i in range(0, len(firsts), batch):
            between()
            x_BT, y_BT, starts_BT = sent(rows(text, firsts[i : i + batch], context), device)
            with autocast(precision, device):
                loss, _ = model.loss(x_BT, y_BT, starts=starts_BT, final=True, learn=learn)
            total += float(loss) * y_BT.numel()
            seen += y_BT.numel()
            size += sum(text.bytes_of(first + 1, first + context + 1) for first in firsts[i : i + batch])
    return Result(total / seen, seen, size, made)


@contextmanager
def left_alone(model: nn.Module) -> Iterator[dict[str, int]]:
    """Mode and firing counts of a model are afterwards as they were; what fired meanwhile is in the mapping given."""
    fires: dict[str, int] = getattr(model, "fires", {})
    before, mode, made = dict(fires), model.training, dict[str, int]()
    model.eval()
    try:
        yield made
    finally:
        made.update({name: count - before.get(name, 0) for name, count in fires.items()})
        model.train(mode)
        fires.clear()
        fires.update(before)
