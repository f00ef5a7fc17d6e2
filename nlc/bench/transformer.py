"""A Transformer as one would write it in PyTorch, to measure against: pre-norm, causal attention, 4x MLP."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """x + W_o attention(norm(x)), then x + W_2 gelu(W_1 norm(x)); scaled_dot_product_attention, no biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(self.norm_attention(x_BTD)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        o_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(o_BHTK.transpose(1, 2).reshape(B, T, D))
        made: Tensor = x_BTD + self.down(F.gelu(self.up(self.norm_mlp(x_BTD))))
        return made


class Transformer(nn.Module):
    """Layers between an embedding and a head tied to it."""

    def __init__(self, width: int, heads: int, layers: int, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def loss(self, tokens: Tensor, targets: Tensor, final: bool = True) -> tuple[Tensor, None]:
        """Called as a generated model's is; there is no state."""
        x = self.norm(self.layers(self.embedding(tokens)))
        return F.cross_entropy((x @ self.embedding.weight.T).mT, targets), None


def seeded(made: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made(*sizes)
