"""Weights by the names a spec gives them, and how each starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class Weights(nn.Module):
    """Parameters and further Weights by name.  A name may be any word, also one that nn.Module uses for itself."""

    # Of a block, by place: memories whose part chunk no call outlives: level, flush | drop, tokens of a period.
    tails: Mapping[str, tuple[str, str, int]] = MappingProxyType({})

    def __setattr__(self, name: str, value: object) -> None:
        """Whether the module trains is no weight, also where weights of that name are inside it."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Tensor:
        return self._parameters[name] if name in self._parameters else self._modules[name]  # type: ignore[return-value]

    def put(self, path: str, value: Tensor) -> None:
        """Register a parameter at a dotted path, making the Weights on the way."""
        head, _, rest = path.partition(".")
        if rest:
            self._modules.setdefault(head, Weights())
            self._modules[head].put(rest, value)  # type: ignore[union-attr, operator]
        else:
            self._parameters[head] = nn.Parameter(value)

    def parts(self, path: str, names: Iterable[str]) -> dict[str, Tensor]:
        """The parameters below a path, as the parts of one memory's state."""
        at: Weights = self
        for word in path.split(".") if path else ():
            at = at._modules[word]  # type: ignore[assignment]
        return {name: at._parameters[name] for name in names}  # type: ignore[misc]

    def unwritten(self, B: int, like: Tensor) -> dict[str, dict[str, Tensor]]:
        """Registers that a run adds at their first write, for B sequences: none, unless a block says otherwise."""
        return {}


def normal(scale: float, *shape: int) -> Tensor:
    """A weight drawn from N(0, scale^2)."""
    return torch.randn(shape) * scale


def constant(value: float, *shape: int) -> Tensor:
    return torch.full(shape, float(value))


def identity(like: Tensor, *shape: int) -> Tensor:
    """I on the last two axes."""
    return torch.eye(shape[-2], shape[-1], dtype=like.dtype, device=like.device).expand(shape)
