"""A spec of this package, or a shipped one, as a model at the sizes of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from nlc.compile import Program, compile
from nlc.spec import load

SPECS = Path(__file__).parent / "specs"
EXACT = 1e-10  # relative, in float64


def program(name: str, settings: Mapping[str, object]) -> Program:
    """`name`: a file of specs/ beside this one, or a shipped spec."""
    own = SPECS / f"{name}.yaml"
    return compile(load(own if own.is_file() else name, dict(settings)))


def model(name: str, settings: Mapping[str, object], dtype: torch.dtype = torch.float32) -> nn.Module:
    return program(name, settings).model(seed=0, dtype=dtype)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, grad: bool = True) -> torch.Tensor:
    """Normal numbers, the same in every type."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)


def difference(got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> float:
    """The largest of ||a - b|| / ||b||.  Raises ArithmeticError above EXACT: the two do not compute the same."""
    with torch.no_grad():
        worst: float = max(((a - b).norm() / b.norm()).item() for a, b in zip(got, want, strict=True))
    if worst > EXACT:
        raise ArithmeticError(f"what is compared differs by {worst:.1e} in float64")
    return worst
