"""Memories inside a rule: maps trained on the columns of two matrices, one step at each of the rule's updates.

W <- W - lr sum_j d/dW L(M(k_j), v_j),   k_j and v_j the columns of `keys` and `values`;  for every matrix of a stack.

Source: arXiv 2512.24695, eqs. 50-51.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runtime.ops.forms import Form, Matrix, Swiglu
from runtime.ops.naive import objective_slope

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Remembered:
    """A memory of gradients.

    name: of the memory; its parts are the rule's states <name>_<part>.
    inner, outer: widths, as multiples of (rows, cols).  hidden: a width, or a multiple of `inner` where it is a float
    identity: it begins as the identity (0 where a residual is added), else as 0.
    """

    name: str
    form: Form
    inner: tuple[int, int]
    outer: tuple[int, int]
    hidden: int | float = 1.0
    objective: str = "l2"
    identity: bool = True

    def begin(self, like: Tensor) -> Parts:
        """The states before any update, for a stack `like` (..., rows, cols)."""
        rows, cols = like.shape[-2:]
        inner, outer = (a * rows + b * cols for a, b in (self.inner, self.outer))
        hidden = self.hidden if isinstance(self.hidden, int) else max(1, round(self.hidden * inner))
        layers, found = self.form.layers, {}
        for i, layer in enumerate(layers):
            first, last = i == 0 or (i == 1 and isinstance(self.form, Swiglu)), i == len(layers) - 1
            n, m = outer if last else hidden, inner if first else hidden
            zero = not self.identity or (last and getattr(self.form, "residual", False) and inner == outer)
            one = torch.zeros(n, m, dtype=like.dtype, device=like.device)
            one = one if zero else one + torch.eye(n, m, dtype=like.dtype, device=like.device)
            found[f"{self.name}_{layer.weight}"] = one.expand(*like.shape[:-2], n, m)
        return found

    def parts(self, state: Mapping[str, Tensor], like: Tensor) -> Parts:
        """The memory's parts among a rule's states."""
        names = [f"{self.name}_{layer.weight}" for layer in self.form.layers]
        fresh = self.begin(like) if any(name not in state for name in names) else state
        return {layer.weight: fresh[name] for layer, name in zip(self.form.layers, names, strict=True)}

    def write(self, parts: Parts, keys: Tensor, values: Tensor, lr: Tensor | float) -> Parts:
        """The parts after one step on the columns of keys (..., n, c) and values (..., m, c)."""
        form, W = self._fitting(keys, values.shape[-2]), flat(parts)
        p, taps = form.read(W, columns(keys))
        u = objective_slope(self.objective, p, columns(keys), columns(values), ())
        grads, _ = form.sums(taps, form.errors(W, taps, u))
        return {name: x - lr * grads[name].reshape(x.shape) for name, x in parts.items()}

    def read(self, parts: Parts, x: Tensor) -> Tensor:
        """M of every column of x (..., n, c)."""
        outer = parts[self.form.layers[-1].weight].shape[-2]
        y, _ = self._fitting(x, outer).read(flat(parts), columns(x))
        return y.mT.reshape(*x.shape[:-2], outer, x.shape[-1])

    def where(self, due: Tensor, new: Parts, old: Parts) -> Parts:
        """The parts after an update that is due for some of the stacked memories; due (B, 1, ...)."""
        return {name: torch.where(due, new[name], x) for name, x in old.items()}

    def states(self, parts: Parts) -> Parts:
        return {f"{self.name}_{name}": x for name, x in parts.items()}

    def _fitting(self, x: Tensor, outer: int) -> Form:
        """The form, with its residual where the widths agree."""
        if isinstance(self.form, Matrix) or not getattr(self.form, "residual", False) or x.shape[-2] == outer:
            return self.form
        return replace(self.form, residual=False)  # type: ignore[type-var]


def columns(x: Tensor) -> Tensor:
    """(..., n, c) as c tokens of width n: (B, c, n)."""
    return x.mT.reshape(-1, x.shape[-1], x.shape[-2])


def flat(parts: Parts) -> Parts:
    return {name: x.reshape(-1, *x.shape[-2:]) for name, x in parts.items()}
