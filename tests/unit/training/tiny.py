"""A model with the interface of a generated one, small enough to train in a blink.

Its text is also the model.py of the packages that tests write; its parameters have the names of `graphs.two_levels`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Part(nn.Module):
    """Parameters by name."""

    def __init__(self, **values: Tensor | nn.Module) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, value if isinstance(value, nn.Module) else nn.Parameter(value))


class Tiny(nn.Module):
    """Predicts the next byte from this one; one memory follows the mean of what it sees."""

    streams: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        D = 8
        self.fires = {"titans": 0}
        self.embedding = nn.Parameter(0.02 * torch.randn(256, D))
        self.rmsnorm = nn.Parameter(torch.ones(D))
        self.blocks = nn.ModuleList(
            Part(
                q=Part(linear=torch.randn(D, D) * D**-0.5),
                h=Part(conv=torch.randn(4, D)),
                titans=Part(key=Part(start=torch.eye(D))),
                cms=Part(slow=Part(W_in=torch.randn(D, D) * D**-0.5, b_in=torch.zeros(D))),
            )
            for _ in range(2)
        )

    def loss(self, tokens, targets, state=None, starts=None, mask=None, final=False, learn=True):
        nats, after = self.nats(tokens, targets, state, starts, mask, final, learn)
        return nats.mean(), after

    def nats(self, tokens, targets, state=None, starts=None, mask=None, final=False, learn=True):
        x_BTD = F.embedding(tokens, self.embedding)
        after = {"clock": {"sequence": torch.full((len(tokens),), tokens.shape[1])}}
        for i, block in enumerate(self.blocks):
            h_BTD = x_BTD * block.h.conv[3] @ block.q.linear.mT @ block.titans.key.start.mT
            x_BTD = x_BTD + torch.tanh(h_BTD @ block.cms.slow.W_in.mT + block.cms.slow.b_in)
            before = 0 if state is None else state[f"blocks.{i}.titans.key"]["M"]
            after[f"blocks.{i}.titans.key"] = {"M": before + x_BTD.mean(1)}
        if learn:
            self.fires["titans"] += tokens.shape[1]
        logits_BTV = F.rms_norm(x_BTD, x_BTD.shape[-1:], self.rmsnorm) @ self.embedding.mT
        return F.cross_entropy(logits_BTV.mT, targets, reduction="none"), after
