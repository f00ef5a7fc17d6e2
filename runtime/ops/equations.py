"""Forms that a spec writes as equations: a function of linear layers, whose errors come back by autograd.

    def ttt(layer, x, gain, bias):              # y = x + layernorm(W @ x + b)
        b = layer("b")
        return x + layernorm(layer("W", x) + b, gain, bias)

    Equations(ttt, vectors=("b",), matrices=("W",)).given(gain=..., bias=...)

layer("W", a) is W a, layer("b") is b at every token: a vector is a layer whose input is 1.  Between two layers only
token-wise work stands, so an error comes back to every layer's output by a backward pass through that work alone, and
from a layer's output to its input by the layer's own product.

    B batch, T tokens, H heads, I width in, O width out.   x (B, T, H, I), or without heads (B, T, I)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runtime.ops.forms import Form, Layer, Product, Tap, Weights, product


class Taps(tuple[Tap, ...]):
    """Every layer's (input, output), and what is needed to go through the equations again."""

    x: Tensor
    inside: Taps  # of a HeadMajor form: the taps of the form inside


@dataclass(frozen=True)
class Equations(Form):
    """M(x) = function(layer, x, **weights).

    vectors, matrices: names of the state, the matrices in the order that the function applies them.
    headless: the function is written for values without an axis of heads.
    weights: what the equations use beside the state; they belong to an outer level and are given at each call.
    """

    function: Callable[..., Tensor]
    vectors: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()
    headless: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    layers: tuple[Layer, ...] = field(init=False)
    lean = False  # their other weights want gradients too

    def __post_init__(self) -> None:
        layers = (*(Layer(name, vector=True) for name in self.vectors), *(Layer(name) for name in self.matrices))
        object.__setattr__(self, "layers", layers)

    def given(self, **weights: Tensor) -> Equations:
        """The same form with the weights of its equations."""
        return replace(self, weights=weights)

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, Taps]:
        narrow = self.headless and x.dim() == 4
        parts = {part.weight: part for part in self.layers}
        found: dict[str, Tap] = {}

        def state(name: str, a: Tensor | None = None) -> Tensor:
            a = torch.ones_like(x[..., :1]) if a is None else a.unsqueeze(2) if narrow else a
            z = layer(parts[name], a)
            found[name] = (a, z)
            return z.squeeze(2) if narrow else z

        y = self.function(state, x.squeeze(2) if narrow else x, **self.weights)
        taps = Taps(found[part.weight] for part in self.layers)
        taps.x = x
        return (y.unsqueeze(2) if narrow else y), taps

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(taps, Taps)
        live, at = torch.is_grad_enabled(), {part: i for i, part in enumerate(self.layers)}
        with torch.enable_grad():
            # Aliases: an error is by a layer's output alone, not by what the output was made from.
            outputs = [z.view_as(z) if live and z.requires_grad else z.detach().requires_grad_() for _, z in taps]
            inputs: dict[int, Tensor] = {}

            def known(part: Layer, a: Tensor) -> Tensor:
                inputs[at[part]] = a
                return outputs[at[part]]

            y, _ = self.run(known, taps.x)
        errors = through(y, outputs, u, live)
        for i, part in reversed(list(enumerate(self.layers))):
            if i and inputs[i].requires_grad and inputs[i] is not taps.x:
                further = through(inputs[i], outputs[:i], back(part, errors[i]), live)
                errors[:i] = [a + b for a, b in zip(errors, further, strict=False)]
        return tuple(errors)

    def layer(self, W: Weights, part: Layer, a: Tensor) -> Tensor:
        w = W[part.weight]
        return product(w.unsqueeze(-1) if part.vector else w, a)

    def sums(
        self,
        taps: Sequence[Tap],
        errors: Sequence[Tensor],
        weights: Tensor | None = None,
        gram: bool = False,
        first_order: bool = False,
        upon: Weights | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As for every form; a vector's gradient is a vector, and it has no gram."""
        upon = dict(upon or {})
        upon |= {n: x.unsqueeze(-1) for n, x in upon.items() if n.startswith("sum.") and n[4:] in self.vectors}
        grads, grams = super().sums(taps, errors, weights, gram, first_order, upon)
        grads = {name: g.squeeze(-1) if name in self.vectors else g for name, g in grads.items()}
        return grads, {name: g for name, g in grams.items() if name not in self.vectors}


def through(y: Tensor, outputs: Sequence[Tensor], u: Tensor, live: bool) -> list[Tensor]:
    """Errors at `outputs` from the error u at y, 0 where y does not depend on them; `live`: differentiable."""
    found: Sequence[Tensor | None] = [None] * len(outputs)
    if y.requires_grad:
        found = torch.autograd.grad(y, outputs, u, create_graph=live, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(z) if e is None else e for z, e in zip(outputs, found, strict=True)]


@dataclass(frozen=True)
class HeadMajor(Form):
    """The same form where heads stand before the tokens, perhaps cut into blocks: x (B, H, T, I) or (B, H, n, L, I)."""

    form: Equations
    layers: tuple[Layer, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.form.layers)

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, Taps]:
        cut = x.shape[2:-1]

        def across(part: Layer, a: Tensor) -> Tensor:
            return token_major(layer(part, head_major(a, cut)))

        y, inside = self.form.run(across, token_major(x))
        taps = Taps((head_major(a, cut), head_major(z, cut)) for a, z in inside)
        taps.x, taps.inside = x, inside
        return head_major(y, cut), taps

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(taps, Taps)
        cut = taps.x.shape[2:-1]

        def across(part: Layer, e: Tensor) -> Tensor:
            return token_major(back(part, head_major(e, cut)))

        return tuple(head_major(e, cut) for e in self.form.pull(across, taps.inside, token_major(u)))


def token_major(x: Tensor) -> Tensor:
    """(B, H, ..., I) -> (B, T, H, I), blocks of tokens in a row."""
    return x.flatten(2, -2).transpose(1, 2)


def head_major(x: Tensor, cut: Sequence[int]) -> Tensor:
    """(B, T, H, I) -> (B, H, *cut, I)."""
    return x.transpose(1, 2).unflatten(2, cut)


def inside_blocks(form: Form) -> Form:
    """The form as the closed forms run it, heads first; most forms do not mind where heads stand."""
    return HeadMajor(form) if isinstance(form, Equations) else form
