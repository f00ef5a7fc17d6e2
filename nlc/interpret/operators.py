"""What every operator does to the value of one token of one sequence: shapes here have neither batch nor time.

In: float64 tensors and an operator's options.  Out: a float64 tensor, or a tuple of them for `split`.
Operators act on the last axis; two operands align from the left, so [heads] scales the rows of [heads, head].
Operators with a history (conv, prev, rope, reads of memories) are in token.py: they need more than the token's values.
"""

from __future__ import annotations

import math
import operator as python
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from nlc.diagnostics import CompilerBug
from nlc.operators import OPERATORS

DTYPE = torch.float64
NORM_EPS = 1e-5  # added to the biased variance
UNIT_EPS = 1e-6  # the least norm l2norm divides by
QUINTIC = (3.4445, -4.7750, 2.0315)


def aligned(*values: Tensor) -> tuple[Tensor, ...]:
    """Axes of one appended to the shorter shapes, so that shapes align from the left."""
    rank = max(x.dim() for x in values)
    return tuple(x.reshape((*x.shape, *[1] * (rank - x.dim()))) for x in values)


def l2norm(x: Tensor) -> Tensor:
    """x / max(||x||, 1e-6), the maximum taken below the root so that zero has a derivative."""
    return x / x.square().sum(-1, keepdim=True).clamp(min=UNIT_EPS**2).sqrt()


def layernorm(x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5), without gain."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + NORM_EPS).sqrt()


def rmsnorm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-5), without gain."""
    return x / (x.square().mean(-1, keepdim=True) + NORM_EPS).sqrt()


def gelu(x: Tensor) -> Tensor:
    """The exact one: x times the normal distribution function at x."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x (+ bias): one W per index of the leading axes, W (*leading, out, in)."""
    y = (W @ x.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


def rope(x: Tensor, position: int, base: float = 10000.0) -> Tensor:
    """Rotate the pairs (i, i + d/2) of the last axis by position * base^(-2 i / d)."""
    half = x.shape[-1] // 2
    angle = position * base ** (-torch.arange(half, dtype=DTYPE, device=x.device) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


def newton_schulz(G: Tensor, steps: int = 5) -> Tensor:
    """X = G / (||G|| + 1e-7), then X <- a X + (b A + c A A) X with A = X X^T, `steps` times; transposed where tall."""
    a, b, c = QUINTIC
    tall = G.shape[-2] > G.shape[-1]
    X = G.mT if tall else G
    length: Tensor = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)
    X = X / (length + 1e-7)
    for _ in range(int(steps)):
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    return X.mT if tall else X


def norm(x: Tensor, p: float = 2.0) -> Tensor:
    """(sum |x|^p)^(1/p) over the last axis."""
    length: Tensor = torch.linalg.vector_norm(x, float(p), dim=-1)
    return length


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """[.., n, m] @ [.., m] -> [.., n]; [.., n] @ [.., n, m] -> [.., m]; or the matrix product of the last two axes."""
    if b.dim() == a.dim() - 1:
        return (a @ b.unsqueeze(-1)).squeeze(-1)
    if a.dim() == b.dim() - 1:
        return (a.unsqueeze(-2) @ b).squeeze(-2)
    return a @ b


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    condition, a, b = aligned(condition, a, b)
    return torch.where(condition != 0, a, b)


def least(*values: Tensor) -> Tensor:
    """Of one value: over its last axis.  Of several: element by element."""
    return values[0].amin(-1) if len(values) == 1 else reduce(pairwise(torch.minimum), values)


def greatest(*values: Tensor) -> Tensor:
    """Of one value: over its last axis.  Of several: element by element."""
    return values[0].amax(-1) if len(values) == 1 else reduce(pairwise(torch.maximum), values)


def heads(x: Tensor, n: int) -> Tensor:
    return x.reshape(*x.shape[:-1], n, x.shape[-1] // n)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x).  torch's own is x from 20 on, which is off by 2e-9 there; from 40 on x is exact."""
    return torch.nn.functional.softplus(x, threshold=40)


def split(x: Tensor, n: int | Sequence[int]) -> tuple[Tensor, ...]:
    """n equal parts of the last axis, or parts of these sizes."""
    sizes = [x.shape[-1] // n] * n if isinstance(n, int) else n
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(x[..., end - size : end] for size, end in zip(sizes, ends, strict=True))


def piece(parts: Sequence[Tensor], index: int, size: int | None = None) -> Tensor:
    return parts[index]


def part(x: Tensor, start: int | None = None, stop: int | None = None, single: bool = False) -> Tensor:
    """v[start:stop] of the last axis, or v[start]."""
    return x[..., start] if single else x[..., start:stop]


def outer(a: Tensor, b: Tensor) -> Tensor:
    """a b^T over the last axes; those in front align from the left."""
    leading = max(a.dim(), b.dim()) - 1
    a, b = (x.reshape(*x.shape[:-1], *[1] * (leading + 1 - x.dim()), x.shape[-1]) for x in (a, b))
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def numbers(size: int) -> Tensor:
    return torch.arange(size, dtype=DTYPE)


def dropout(x: Tensor, p: float) -> Tensor:
    """The value itself: the meaning of a spec is what it computes when nothing is dropped."""
    return x


def pairwise(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator on two values of which either may be a plain number; tensors align from the left."""

    def apply(a: Any, b: Any) -> Any:
        return operator(*aligned(a, b)) if isinstance(a, Tensor) and isinstance(b, Tensor) else operator(a, b)

    return apply


def comparison(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """1 where it holds, else 0."""
    compare = pairwise(operator)

    def apply(a: Any, b: Any) -> Any:
        holds = compare(a, b)
        return holds.to(DTYPE) if isinstance(holds, Tensor) else float(holds)

    return apply


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": pairwise(python.add), "sub": pairwise(python.sub), "mul": pairwise(python.mul),
    "div": pairwise(python.truediv), "pow": pairwise(python.pow), "matmul": matmul,
    "lt": comparison(python.lt), "le": comparison(python.le), "gt": comparison(python.gt), "ge": comparison(python.ge),
    "eq": comparison(python.eq), "ne": comparison(python.ne),
}  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **ARITHMETIC,
    "neg": python.neg, "slice": part, "item": piece,
    "l2norm": l2norm, "softmax": lambda x: torch.softmax(x, -1),
    "silu": silu, "gelu": gelu, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "softplus": softplus, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "abs": torch.abs, "sign": torch.sign,
    "min": least, "max": greatest, "where": where, "norm": norm,
    "mean": lambda x: x.mean(-1), "sum": lambda x: x.sum(-1),
    "poly": lambda x, degree: torch.cat([x**i for i in range(1, degree + 1)], -1),
    "index": numbers, "eye": lambda n: torch.eye(n, dtype=DTYPE),
    "outer": outer, "transpose": lambda x: x.mT, "trace": lambda x: x.diagonal(dim1=-2, dim2=-1).sum(-1),
    "concat": lambda *xs: torch.cat(xs, -1), "split": split, "heads": heads, "merge": lambda x: x.flatten(-2),
    "fold": lambda x, axes: x.flatten(0, axes - 1), "unfold": lambda x, sizes: x.unflatten(0, sizes),
    "dropout": dropout, "stop": lambda x: x.detach(), "newton_schulz": newton_schulz,
}  # fmt: skip


def weighted(op: str, x: Tensor, weights: Sequence[Tensor], options: Mapping[str, Any]) -> Tensor:
    """The operators that have weights and no history: linear, rmsnorm, layernorm."""
    match op:
        case "linear":
            y = (weights[0] @ x.unsqueeze(-1)).squeeze(-1)
            y = y.squeeze(-1) if options.get("out") == 1 else y
            return y + weights[1] if options.get("bias") else y
        case "rmsnorm":
            return rmsnorm(x) * weights[0]
        case "layernorm":
            return layernorm(x) * weights[0] + weights[1]
    raise CompilerBug(f"the interpreter has no operator {op!r}")


def call(op: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """An operator as a rule or an objective calls it: operands first, then options by place or by name."""
    if op not in FUNCTIONS or op not in OPERATORS:
        raise CompilerBug(f"operator {op!r} cannot stand in a rule or an objective")
    count = OPERATORS[op].operands[1]
    operands, rest = (args, []) if count is None else (args[:count], args[count:])
    options = dict(zip((option.name for option in OPERATORS[op].options), rest, strict=False))
    values = [x if isinstance(x, Tensor) else torch.tensor(float(x), dtype=DTYPE) for x in operands]
    return FUNCTIONS[op](*values, **options, **keywords)
