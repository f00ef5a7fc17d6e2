"""The maps a memory can be: parts of a state and an input in, the output and each layer's own input out.

A part is a matrix [*heads, out, in] or a vector [*heads, out]; an input is [*heads, in].
Equations: reference section 1 (matrix, mlp, vector, swiglu), section 4 (bias and norm of a continuum block).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nlc.diagnostics import CompilerBug
from nlc.graph.nodes import Form, Memory, Number
from nlc.interpret.operators import DTYPE, FUNCTIONS, gelu, l2norm, layernorm, linear, rmsnorm, silu, softplus, weighted

Parts = Mapping[str, Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "silu": silu,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": softplus,
    "identity": lambda x: x,
    "none": lambda x: x,
}


def apply(memory: Memory, parts: Parts, x: Tensor, weights: Parts | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The memory's map at `parts`, applied to x; and each matrix's own input (what an erase acts along).

    `weights` are those that a form written as equations uses beside the state, by id."""
    x = with_heads(x, memory.heads)
    match memory.form.kind:
        case "matrix":
            return linear(x, parts["M"]), {"M": x}
        case "vector":
            return parts["m"] * x, {}
        case "mlp":
            return mlp(memory, parts, x)
        case "swiglu":
            return swiglu(memory, parts, x)
        case "equations":
            return equations(memory.form, parts, x, weights or {})
    raise CompilerBug(f"memory {memory.id!r}: form {memory.form.kind!r} is not a map with a state")


def mlp(memory: Memory, parts: Parts, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """[x +] W_out s(... s(W_in norm(x) + b_in)) + b_out, with as many matrices as the form is deep."""
    form, hidden, inputs = memory.form, normalised(memory.form, x), {}
    layers = [name for name in parts if name.startswith("W_")]
    for name in layers:
        inputs[name] = hidden
        hidden = linear(hidden, parts[name], parts.get("b_" + name.removeprefix("W_")))
        if name != layers[-1]:
            hidden = ACTIVATIONS[form.act](hidden)
            hidden = l2norm(hidden) if memory.normalise_hidden else hidden
    return x + hidden if form.residual else hidden, inputs


def swiglu(memory: Memory, parts: Parts, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """[x +] W_out (silu(W_gate norm(x)) * (W_in norm(x)))."""
    entering = normalised(memory.form, x)
    gate = linear(entering, parts["W_gate"], parts.get("b_gate"))
    hidden = silu(gate) * linear(entering, parts["W_in"], parts.get("b_in"))
    hidden = l2norm(hidden) if memory.normalise_hidden else hidden
    y = linear(hidden, parts["W_out"], parts.get("b_out"))
    return x + y if memory.form.residual else y, {"W_gate": entering, "W_in": entering, "W_out": hidden}


def equations(form: Form, parts: Parts, x: Tensor, weights: Parts) -> tuple[Tensor, dict[str, Tensor]]:
    """The values of the form's own equations, in order; every `W @ a` is a layer with the input a."""
    values: dict[str, Any] = {"x": x, **parts}
    inputs = {}
    for node in form.body:
        if isinstance(node, Number):
            values[node.id] = torch.full(node.shape, float(node.value), dtype=DTYPE)
            continue
        given, own, options = (
            [values[id] for id in node.inputs],
            [weights[id] for id in node.weights],
            dict(node.options),
        )
        if node.op == "matmul" and node.inputs[0] in parts:
            inputs[node.inputs[0]] = given[1]
        if node.op == "param":
            values[node.id] = own[0]
        else:
            values[node.id] = (
                weighted(node.op, given[0], own, options) if own else FUNCTIONS[node.op](*given, **options)
            )
    return values[form.result], inputs


def normalised(form: Form, x: Tensor) -> Tensor:
    """The form's input, normalised as the form says, without a gain."""
    match form.norm:
        case "layernorm":
            return layernorm(x)
        case "rmsnorm":
            return rmsnorm(x)
    return x


def with_heads(x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """Key heads may divide a memory's heads: each is repeated for the heads it serves."""
    for axis, wanted in enumerate(heads):
        if x.shape[axis] != wanted:
            x = x.repeat_interleave(wanted // x.shape[axis], axis)
    return x


def attend(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """softmax(q . k / sqrt(head)) over the pairs given, one distribution per head of the query (NL 62, 63)."""
    heads, scale = tuple(query.shape[:-1]), query.shape[-1] ** -0.5
    scores = torch.stack([(query * with_heads(k, heads)).sum(-1) for k in keys]) * scale  # [pairs, *heads]
    share = torch.softmax(scores, 0)
    seen = torch.stack([with_heads(v, heads) for v in values])  # [pairs, *heads, out]
    read: Tensor = (share.unsqueeze(-1) * seen).sum(0)
    return read
