"""Forms: the maps a memory can be, as linear layers with pointwise work between them.

A form says how a layer's outputs follow from its inputs (`run`) and how an error at the form's output comes back to
every layer's output (`pull`), by hand-written factors: gradients of a write are then sums of error input^T.  Both
take the layer's product as a function, so that the same lines serve shared weights, weights per sequence, states
mixed with their start and states in the middle of a chunk.  `read`, `errors` and `sums` are those for plain weights;
a form that is called reads weights that nothing writes, and keeps little for its gradient.

    B batch, T tokens, H heads, I width in, O width out.   x (B, T, H, I); a weight (H, O, I), or (B, H, O, I) per
    sequence; a bias (H, O) or (B, H, O); W is a dict of them by part name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.basic import (
    gelu,
    gelu_pull,
    l2norm_pull,
    layernorm,
    layernorm_pull,
    rmsnorm,
    rmsnorm_pull,
    scaled_pull,
    silu_pull,
    softplus,
    unit_and_scale,
)
from runtime.ops.history import Past, past
from runtime.ops.inputs import seen
from runtime.ops.one import Reading, affine, alone
from runtime.ops.rows import by_weight
from runtime.ops.watch import squared
from runtime.precision import mixed, same, wide

Weights = Mapping[str, Tensor]
Tap = tuple[Tensor, ...]  # a layer's input, its output and, where what is made of that is l2-normalised, 1 / its length


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer of a form: the names of its parts.  `bias` is "" where there is none.

    vector: the weight is a vector (H, O), a layer whose input is 1."""

    weight: str
    bias: str = ""
    vector: bool = False


Product = Callable[[Layer, Tensor], Tensor]

Act = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
ACTS: dict[str, Act] = {  # act, and error at z from the error d at act(z)
    "gelu": (gelu, gelu_pull),
    "silu": (F.silu, silu_pull),
    "relu": (F.relu, lambda z, d: d * (z > 0).to(z.dtype)),
    "tanh": (torch.tanh, lambda z, d: d * (1 - torch.tanh(z) ** 2)),
    "sigmoid": (torch.sigmoid, lambda z, d: d * torch.sigmoid(z) * (1 - torch.sigmoid(z))),
    "softplus": (softplus, lambda z, d: d * torch.sigmoid(z)),
    "identity": (lambda z: z, lambda z, d: d),
}
NORMS: dict[str, Act] = {  # norm without gain, and error at x from the error d at it
    "none": (lambda x: x, lambda x, d: d),
    "layernorm": (layernorm, layernorm_pull),
    "rmsnorm": (rmsnorm, rmsnorm_pull),
}


def product(W: Tensor, a: Tensor) -> Tensor:
    """W a for every token.  a (B, T, H, I); W (H, O, I) or (B, H, O, I); returns (B, T, H, O).  Without heads: no
    axis H."""
    seen(W, a)
    if a.dim() == 3:
        return wide(F.linear(a, W) if W.dim() == 2 else by_weight(a, W))
    if W.dim() == 3 and W.shape[0] == 1:
        return wide(F.linear(a, W[0]))
    if W.dim() == 4:
        if Reading.token and a.shape[1] == 1:  # by the shortest way, whose views a tape takes once
            return torch.bmm(a[0].transpose(0, 1), W[0].mT).transpose(0, 1)[None]
        return wide(by_weight(a.transpose(1, 2), W)).transpose(1, 2)
    return wide(a.transpose(1, 2) @ W.mT).transpose(1, 2)


def _of_one(part: Layer, W: Weights) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias for one sequence, which they may be the state of."""
    weight, bias = W[part.weight], W[part.bias] if part.bias else None
    return (weight[0], bias if bias is None else bias[0]) if weight.dim() == 3 else (weight, bias)


def bias_of(b: Tensor, z: Tensor) -> Tensor:
    """A bias as it meets z: shared (H, O), or per sequence (B, H, O) with an axis for the tokens; likewise without
    heads."""
    return b.unsqueeze(1) if b.dim() == z.dim() - 1 else b


def across(e: Tensor, a: Tensor, upon: Tensor | None = None) -> Tensor:
    """sum_t e_t a_t^T [+ upon]: (B, T, H, O), (B, T, H, I) -> (B, H, O, I); likewise without heads."""
    if upon is not None and e.dim() == 3 and upon.dtype == e.dtype and not mixed(e):
        return torch.baddbmm(upon, e.mT, a)
    found = wide(e.mT @ a if e.dim() == 3 else e.transpose(1, 2).mT @ a.transpose(1, 2))
    return found if upon is None else upon + found


class Form:
    """What all forms share.  A form has `layers` and defines `run` and `pull`."""

    layers: tuple[Layer, ...]
    lean = True  # its layers are products and biases, no more: a call goes by `Lean`, one token by `affine`

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        """The form's value at `x`, and every layer's tap, where layer(l, a) is the product of layer l."""
        raise NotImplementedError

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        """Error at every layer's output from the error `u` at the form's, where back(l, e) is W_l^T e."""
        raise NotImplementedError

    def enter(self, back: Product, x: Tensor, errors: Sequence[Tensor], u: Tensor) -> Tensor:
        """Error at the form's input `x` from what `pull` has found; of a form that is `lean`."""
        raise NotImplementedError

    def given(self, **weights: Tensor) -> Form:
        """The form with the weights that its equations use; only one written as equations has any."""
        raise TypeError(f"{type(self).__name__} takes no weights")

    @cached_property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for layer in self.layers for name in (layer.weight, layer.bias) if name)

    @property
    def matrices(self) -> tuple[str, ...]:
        """The parts that multiply a layer's input as matrices."""
        return tuple(layer.weight for layer in self.layers)

    def layer(self, W: Weights, part: Layer, a: Tensor) -> Tensor:
        """A layer's output for its input `a`."""
        z = product(W[part.weight], a)
        return z + bias_of(W[part.bias], z) if part.bias else z

    def vector(self, part: str) -> bool:
        """Whether a part is a vector of each head: a bias, or m of a vector memory."""
        return any(part == layer.bias or (part == layer.weight and layer.vector) for layer in self.layers)

    def read(self, W: Weights, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        """M(x) with the weights W, and every layer's tap: (B, T, H, I) -> (B, T, H, O)."""
        if self.lean and x.dim() == 3 and alone(x):
            return self.run(lambda part, a: affine(a, *_of_one(part, W)), x)
        return self.run(lambda part, a: self.layer(W, part, a), x)

    def moving(self, W: Weights) -> bool:
        """Whether a part's gradient may be asked for: if none is, autograd keeps little by itself."""
        return any(W[name].requires_grad for name in self.parts)

    def __call__(self, W: Weights, x: Tensor) -> Tensor:
        """M(x) at weights that all sequences share, as `read` has it, for one who needs no taps."""
        if not (self.lean and torch.is_grad_enabled() and self.moving(W)):
            return self.read(W, x)[0]
        return Lean.apply(self, x, *(W[name] for name in self.parts))

    def errors(self, W: Weights, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        """d L / d output of every layer, from u = d L / d M(x), by hand-written factors; differentiable like any
        value."""
        return self.pull(lambda part, e: product(W[part.weight].mT, e), taps, u)

    def sums(
        self,
        taps: Sequence[Tap],
        errors: Sequence[Tensor],
        weights: Tensor | None = None,
        gram: bool = False,
        first_order: bool = False,
        upon: Weights | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Gradient of every part, summed over the tokens, and (`gram`) the sum of input input^T of every layer.

        grad W = sum_t w_t error_t input_t^T,  grad b = sum_t w_t error_t,  gram W = sum_t w_t input_t input_t^T.
        weights (B, T, H), 1 if not given.  `first_order`: the gradients are constants; weights and gram are not.
        upon: {"sum.<part>", "gram.<part>": ...}, to which these are added.
        Returns ({part: (B, H, O, I) or (B, H, O)}, {weight part: (B, H, I, I)}); a bias has no gram.
        """
        grads: dict[str, Tensor] = {}
        grams: dict[str, Tensor] = {}
        upon = upon or {}
        for part, (a, *_), e in zip(self.layers, taps, errors, strict=True):
            w = 1 if weights is None else weights.unsqueeze(-1)
            if gram:
                grams[part.weight] = across(w * a, a, upon.get(f"gram.{part.weight}"))
            if first_order:
                a, e = a.detach(), e.detach()
            e = e if weights is None else w * e
            grads[part.weight] = across(e, a, upon.get(f"sum.{part.weight}"))
            if part.bias:
                found = e.sum(1)
                grads[part.bias] = upon[f"sum.{part.bias}"] + found if f"sum.{part.bias}" in upon else found
        return grads, grams

    def surprise(self, inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> Tensor:
        """Squared norm of each token's gradient, from every layer's input and the error at its output.

        |g|^2 = sum_layers |error|^2 (|input|^2 [+ 1, of a bias]); the last axis goes.
        """
        terms = [
            squared(e) * (squared(a) + bool(part.bias)) for part, a, e in zip(self.layers, inputs, errors, strict=True)
        ]
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Matrix(Form):
    """M(x) = M x.  Parts: M."""

    layers: tuple[Layer, ...] = field(default=(Layer("M"),), init=False)

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        y = layer(self.layers[0], x)
        return y, ((x, y),)

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        return (u,)

    def enter(self, back: Product, x: Tensor, errors: Sequence[Tensor], u: Tensor) -> Tensor:
        return back(self.layers[0], errors[0])


@dataclass(frozen=True)
class Mlp(Form):
    """M(x) = [x +] W_out h, h = act(W_in n(x) + b_in), with further layers W_2, W_3, ... between them for depth > 2.

    n: `norm` without gain.  `normalise_hidden`: every h is l2-normalised.  Parts: W_in [b_in] W_2 [b_2] ... W_out
    [b_out]; depth 1 is W_out alone.
    """

    act: str = "gelu"
    residual: bool = True
    norm: str = "none"
    bias: bool = False
    depth: int = 2
    normalise_hidden: bool = False

    def __post_init__(self) -> None:
        names = [] if self.depth == 1 else ["in", *(str(i) for i in range(2, self.depth))]
        layers = tuple(Layer(f"W_{n}", f"b_{n}" if self.bias else "") for n in (*names, "out"))
        object.__setattr__(self, "layers", layers)

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        act, _ = ACTS[self.act]
        a, taps = NORMS[self.norm][0](x), []
        for part in self.layers:
            tap = a, layer(part, a)
            a = tap[1] if part is self.layers[-1] else act(tap[1])
            if self.normalise_hidden and part is not self.layers[-1]:
                a, scale = unit_and_scale(a)
                tap = *tap, scale
            taps.append(tap)
        return (x + a if self.residual else a), tuple(taps)

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        act, pull = ACTS[self.act]
        errors = [u]
        for i in range(len(taps) - 1, 0, -1):
            d, (y, *_), (_, z, *scale) = back(self.layers[i], errors[-1]), taps[i], taps[i - 1]
            if self.normalise_hidden:
                d = scaled_pull(y, *scale, d) if scale else l2norm_pull(act(z), d)
            errors.append(pull(z, d))
        return tuple(reversed(errors))

    def enter(self, back: Product, x: Tensor, errors: Sequence[Tensor], u: Tensor) -> Tensor:
        d = NORMS[self.norm][1](x, back(self.layers[0], errors[0]))
        return u + d if self.residual else d


@dataclass(frozen=True)
class Swiglu(Form):
    """M(x) = [x +] W_out (silu(W_gate n(x)) * (W_in n(x))).  Parts: W_gate, W_in, W_out and, with `bias`, b_gate,
    b_in, b_out."""

    residual: bool = True
    norm: str = "none"
    bias: bool = False
    normalise_hidden: bool = False

    def __post_init__(self) -> None:
        layers = tuple(Layer(f"W_{n}", f"b_{n}" if self.bias else "") for n in ("gate", "in", "out"))
        object.__setattr__(self, "layers", layers)

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        gate, up, down = self.layers
        n = NORMS[self.norm][0](x)
        z_gate, z_up = layer(gate, n), layer(up, n)
        h, gated = F.silu(z_gate) * z_up, (n, z_gate)
        if self.normalise_hidden:
            h, scale = unit_and_scale(h)
            gated = *gated, scale
        z = layer(down, h)
        return (x + z if self.residual else z), (gated, (n, z_up), (h, z))

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        (_, z_gate, *scale), (_, z_up), (h, _) = taps
        d = back(self.layers[2], u)
        if self.normalise_hidden:
            d = scaled_pull(h, *scale, d) if scale else l2norm_pull(F.silu(z_gate) * z_up, d)
        return silu_pull(z_gate, d * z_up), d * F.silu(z_gate), u

    def enter(self, back: Product, x: Tensor, errors: Sequence[Tensor], u: Tensor) -> Tensor:
        gate, up, _ = self.layers
        d = NORMS[self.norm][1](x, back(gate, errors[0]) + back(up, errors[1]))
        return u + d if self.residual else d


@dataclass(frozen=True)
class Vector(Form):
    """M(x) = m * x, entry by entry.  Parts: m (H, I), or (B, H, I) per sequence.  No layer input, so no gram."""

    layers: tuple[Layer, ...] = field(default=(Layer("m", vector=True),), init=False)
    lean = False

    def run(self, layer: Product, x: Tensor) -> tuple[Tensor, tuple[Tap, ...]]:
        y = layer(self.layers[0], x)
        return y, ((x, y),)

    def pull(self, back: Product, taps: Sequence[Tap], u: Tensor) -> tuple[Tensor, ...]:
        return (u,)

    @property
    def matrices(self) -> tuple[str, ...]:
        return ()

    def layer(self, W: Weights, part: Layer, a: Tensor) -> Tensor:
        return bias_of(W["m"], a) * a

    def sums(
        self,
        taps: Sequence[Tap],
        errors: Sequence[Tensor],
        weights: Tensor | None = None,
        gram: bool = False,
        first_order: bool = False,
        upon: Weights | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """grad m = sum_t w_t error_t * input_t; there is no gram."""
        ((a, _),), (e,) = taps, errors
        terms = (e * a).detach() if first_order else e * a
        found = (terms if weights is None else weights.unsqueeze(-1) * terms).sum(1)
        return {"m": upon["sum.m"] + found if upon and "sum.m" in upon else found}, {}

    def surprise(self, inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> Tensor:
        """|error * input|^2, entry by entry."""
        return squared(inputs[0] * errors[0])


def read(form: Form, W: Weights, x: Tensor) -> Tensor:
    """M(x) at a state made by earlier tokens: a token's own error passes to x, not to the state."""
    return form.read({name: past(w) for name, w in W.items()}, x)[0]


class Lean(torch.autograd.Function):
    """M(x), keeping x and the output of every layer but the last, where autograd keeps every layer's input and what
    lies between as well.  What is pointwise is computed again; no product is.  apply(form, x, *its parts) -> y."""

    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, *parts: Tensor) -> Tensor:
        y, taps = form.read(dict(zip(form.parts, parts, strict=True)), x)
        ctx.form, ctx.mode = form, same(x)
        ctx.save_for_backward(x, *parts, *(z for _, z, *_ in taps[:-1]))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        form, count = ctx.form, len(ctx.form.parts)
        x, *rest = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient that is itself differentiated: by ordinary operations
            # Aliases: the derivative is by these alone, whatever else in the graph x may have to do with the parts.
            own = [z.view_as(z) for z in (x, *rest[:count])]
            asked = ctx.needs_input_grad[1 : 2 if Past.closed else None]  # a token's own error passes to x alone
            wanted = [i for i, needed in enumerate(asked) if needed]
            y, _ = form.read(dict(zip(form.parts, own[1:], strict=True)), own[0])
            grads = torch.autograd.grad(y, [own[i] for i in wanted], g, create_graph=True) if wanted else ()
            found = dict(zip(wanted, grads, strict=True))
            return (None, *(found.get(i) for i in range(count + 1)))
        W = dict(zip(form.parts, rest[:count], strict=True))
        with ctx.mode():  # products in the type that the forward pass took them in
            gx, gW = pulled(form, W, x, rest[count:], g, Past.closed)
        return (None, gx, *(gW.get(name) for name in form.parts))


def pulled(
    form: Form, W: Weights, x: Tensor, outputs: Sequence[Tensor], g: Tensor, only_x: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients at x and at every part from g at M(x), by the output of every layer but the last."""
    given = dict(zip(form.layers, (*outputs, g), strict=True))  # the last one's value does not matter
    taps = [(x, z) for z in given.values()] if only_x else form.run(lambda part, a: given[part], x)[1]

    def back(part: Layer, e: Tensor) -> Tensor:
        return product(W[part.weight].mT, e)

    errors = form.pull(back, taps, g)
    grads: dict[str, Tensor] = {}
    for part, (a, *_), e in zip(form.layers, taps, errors, strict=True) if not only_x else ():
        grads[part.weight] = across(as_one(e), as_one(a))[0].sum_to_size(W[part.weight].shape)
        if part.bias:
            grads[part.bias] = as_one(e).sum(1)[0].sum_to_size(W[part.bias].shape)
    return form.enter(back, x, errors, g), grads


def as_one(x: Tensor) -> Tensor:
    """The tokens of all sequences as those of one."""
    return x.flatten(0, 1).unsqueeze(0)
