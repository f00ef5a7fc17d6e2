"""One token's write to one memory: its surprise, what a period gathers, and the rule's step.

A register is a memory's state for one layer of one sequence.  Everything here is a function from a register to the
next; nothing is changed in place, so the outer gradient passes through every write by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nlc.graph.linearity import relative
from nlc.graph.nodes import Memory, Meta
from nlc.interpret import forms
from nlc.interpret.operators import DTYPE, aligned, outer
from nlc.interpret.rules import Carried, loss_of, mentions, run_rule

Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """A pair that later gradients are over too: its weight, and the parameters its objective had."""

    key: Tensor
    value: Tensor
    weigh: Tensor
    objective: Mapping[str, Any]


@dataclass(frozen=True)
class Register:
    """A memory's state.  `now` is the running state, `held` the first state of the running chunk."""

    now: Parts
    held: Parts
    carried: Carried  # the rule's own state and its count of updates
    sum: Parts  # of the running period: gradients,
    gram: Parts  # ... x x^T of the layers' inputs,
    kept: Tensor | None  # ... and the product of the retentions
    rates: Tensor | None = None  # ... and the rates, where each weighs its token's gradient relative to their mean,
    rated: int = 0  # ... of so many tokens
    window: tuple[Pair, ...] = ()  # the last pairs, oldest first, where a gradient is over several
    blank: Parts = field(default_factory=dict)  # of such a window: zeros for each parameter of the objective that moves
    origin: int = 0  # tokens of its clock at which chunks and periods were last begun afresh


@dataclass(frozen=True)
class Flows:
    """What reaches a memory at one token."""

    start: Parts
    rate: Tensor
    retain: Tensor | None = None
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()
    objective: Mapping[str, Any] = field(default_factory=dict)  # parameters by name
    rule: Mapping[str, Any] = field(default_factory=dict)
    weigh: Tensor | None = None
    form: Parts = field(default_factory=dict)  # the weights of its form's own equations, by id


@dataclass(frozen=True)
class Surprise:
    """What one pair, or one token's error, teaches: the gradient by part, and x x^T of each matrix's layer input."""

    grad: Parts
    gram: Parts
    pair: tuple[Tensor, ...] = ()  # key and value, where it is of one pair
    inputs: Parts = field(default_factory=dict)  # and the inputs of its layers


def fresh(memory: Memory, start: Parts, retain_shape: tuple[int, ...] | None, blank: Parts) -> Register:
    """The register at the beginning of a sequence."""
    periodic = memory.period.count > 1
    zeros = {name: torch.zeros_like(part) for name, part in start.items()} if periodic else {}
    return Register(
        now=dict(start),
        held=dict(start),
        carried=Carried.zero(memory.rule, start, start.keys() - matrices(memory).keys()),
        sum=zeros,
        gram=no_gram(memory) if periodic else {},
        kept=torch.ones(retain_shape, dtype=DTYPE) if periodic and retain_shape is not None else None,
        rates=torch.zeros(memory.heads, dtype=DTYPE) if relative(memory) else None,
        blank=blank,
    )


def matrices(memory: Memory) -> dict[str, tuple[int, ...]]:
    """The parts that multiply a layer's input, and their shapes; the others are biases and vectors."""
    return {name: shape for name, shape in memory.parts if len(shape) == len(memory.heads) + 2}


def no_gram(memory: Memory) -> dict[str, Tensor]:
    """x x^T of every layer's input, of no token; {} for a rule that does not ask for it."""
    if not mentions(memory.rule, "gram"):
        return {}
    return {
        name: torch.zeros(*shape[:-2], shape[-1], shape[-1], dtype=DTYPE) for name, shape in matrices(memory).items()
    }


def kept(memory: Memory, parts: Parts, start: Parts, retain: Tensor | None) -> Parts:
    """retain * state [+ (1 - retain) * start]; a retention per key channel acts from the right, M diag(retain)."""
    if retain is None:
        return parts
    per_channel = memory.form.kind == "matrix" and retain.dim() == len(memory.heads) + 1
    out = {}
    for name, part in parts.items():
        share = retain.unsqueeze(-2) if per_channel else aligned(retain, part)[0]
        out[name] = share * part + ((1 - share) * start[name] if memory.retain_to_start else 0)
    return out


def surprise(memory: Memory, at: Parts, key: Tensor, value: Tensor, flows: Flows) -> Surprise:
    """The gradient of the objective of one pair at the state `at`; the value is a target, not differentiated here."""
    query, target = (forms.with_heads(x, memory.heads) for x in (key, value))

    def loss(W: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        prediction, inputs = forms.apply(memory, W, query, flows.form)
        return loss_of(memory.objective, prediction, query, target, flows.objective), inputs

    W = detached(at) if memory.meta is Meta.NONE else dict(at)
    grad, inputs = torch.func.grad(loss, has_aux=True)(W)
    taught = grad if memory.meta is Meta.FULL else detached(grad)
    return Surprise(taught, grams(memory, inputs), (query, target), inputs)


def detached(parts: Parts) -> dict[str, Tensor]:
    return {name: part.detach() for name, part in parts.items()}


def grams(memory: Memory, inputs: Parts) -> dict[str, Tensor]:
    return {name: outer(x, x) for name, x in inputs.items()} if mentions(memory.rule, "gram") else {}


def total(terms: list[Parts], weight: Tensor | None = None) -> dict[str, Tensor]:
    """The sum by part, each term weighed."""
    out: dict[str, Tensor] = {}
    for term in terms:
        for name, part in term.items():
            share = part if weight is None else aligned(weight, part)[0] * part
            out[name] = out[name] + share if name in out else share
    return out


def write(
    memory: Memory, register: Register, flows: Flows, ticks: int, error: Surprise | None = None
) -> tuple[Register, bool]:
    """The register after one token, the `ticks`-th of its clock (from 1), and whether it was written.

    `error` is given for objective: loss, where no pair is.
    """
    if memory.period.count == 1:
        return write_each_token(memory, register, flows, error), True
    return write_each_period(memory, register, flows, ticks, error)


def write_each_token(memory: Memory, register: Register, flows: Flows, error: Surprise | None) -> Register:
    """Period 1: one step of the rule per pair.  Retention acts once, with the first."""
    if error is not None:
        return apply_rule(memory, register, flows, error, flows.rate, flows.retain)
    for i, (key, value) in enumerate(flows.pairs):
        retain = flows.retain if i == 0 else None
        at = register.held if memory.chunk > 1 else register.now
        at = kept(memory, at, flows.start, flows.retain if memory.chunk > 1 else retain) if memory.grad_at_kept else at
        if memory.window > 1:
            register = remember(memory, register, flows, key, value)
            each = over_window(memory, at, register.window, flows)
            register = replace(register, window=register.window[-(memory.window - 1) :])
        else:
            each = surprise(memory, at, key, value, flows)
        register = apply_rule(memory, register, flows, each, flows.rate, retain)
    return register


def remember(memory: Memory, register: Register, flows: Flows, key: Tensor, value: Tensor) -> Register:
    """The register with one more pair in its window."""
    weigh = torch.ones((), dtype=DTYPE) if flows.weigh is None else flows.weigh
    pair = Pair(forms.with_heads(key, memory.heads), forms.with_heads(value, memory.heads), weigh, flows.objective)
    return replace(register, window=(*register.window, pair))


def over_window(memory: Memory, at: Parts, pairs: tuple[Pair, ...], flows: Flows) -> Surprise:
    """sum_s w_s grad L(at; k_s, v_s) over the pairs (Omega, arXiv 2505.23735); gram likewise."""
    grad: Parts = {}
    gram: Parts = no_gram(memory)
    for pair in pairs:
        each = surprise(memory, at, pair.key, pair.value, replace(flows, objective=pair.objective))
        grad = total([grad, total([each.grad], pair.weigh)])
        gram = total([gram, total([each.gram], pair.weigh)])
    return Surprise(grad, gram)


def write_each_period(
    memory: Memory, register: Register, flows: Flows, ticks: int, error: Surprise | None
) -> tuple[Register, bool]:
    """Period n: gather each token's gradient, weighed by its own rate where that varies; write after n tokens."""
    at = kept(memory, register.held, flows.start, flows.retain) if memory.grad_at_kept else register.held
    terms = [surprise(memory, at, k, v, flows) for k, v in flows.pairs] if error is None else [error]
    weight = flows.rate if memory.rate_varies else None
    register = replace(
        register,
        sum=total([register.sum, total([t.grad for t in terms], weight)]),
        gram=total([register.gram, total([t.gram for t in terms], weight)]),
        kept=None if flows.retain is None or register.kept is None else register.kept * flows.retain,
        rates=None if register.rates is None else register.rates + flows.rate,
        rated=register.rated + 1,
    )
    if (ticks - register.origin) % memory.period.count:
        return register, False
    return write_sum(memory, register, flows), True


def write_sum(memory: Memory, register: Register, flows: Flows) -> Register:
    """Write what the period gathered and begin the next.

    Rates that vary weigh the gradients.  Their mean is lr and each weighs as rate_t / lr, so that a rule whose step is
    as long as lr, whatever the gradient, steps as far as it does at a fixed rate; rates of 0 teach nothing.
    """
    lr = torch.ones((), dtype=DTYPE) if memory.rate_varies else flows.rate
    learned = Surprise(register.sum, register.gram)
    if register.rates is not None:
        lr = register.rates / max(register.rated, 1)
        share = 1 / torch.where(lr == 0, 1.0, lr)
        learned = Surprise(total([register.sum], share), total([register.gram], share))
    return emptied(apply_rule(memory, register, flows, learned, lr, register.kept))


def emptied(register: Register) -> Register:
    """The register at the beginning of a period."""
    return replace(
        register,
        sum={name: torch.zeros_like(part) for name, part in register.sum.items()},
        gram={name: torch.zeros_like(part) for name, part in register.gram.items()},
        kept=None if register.kept is None else torch.ones_like(register.kept),
        rates=None if register.rates is None else torch.zeros_like(register.rates),
        rated=0,
    )


def apply_rule(
    memory: Memory, register: Register, flows: Flows, learned: Surprise, lr: Tensor, retain: Tensor | None
) -> Register:
    """state <- retain * state [+ (1 - retain) * start] + delta, by part; the rule gives delta (or the state itself)."""
    base = kept(memory, register.now, flows.start, retain)
    now, carried = {}, register.carried.counted()
    for name, weight in register.now.items():
        seen = {
            "grad": learned.grad[name],
            "weight": weight,
            "start": flows.start[name],
            "lr": lr,
            "retain": share_of(memory, weight, retain),
            "gram": learned.gram.get(name, weight.new_zeros(*memory.heads, 1, 1)),  # a bias or vector has no input
            **dict(zip(("k", "v"), learned.pair, strict=False)),
            **layer_of(memory, learned, name),
        }
        now[name], carried = run_rule(memory.rule, name, base[name], {**flows.rule, **seen}, carried)
    return replace(register, now=now, carried=carried)


def layer_of(memory: Memory, learned: Surprise, name: str) -> dict[str, Tensor]:
    """Of one pair, a layer's input x and the error at its output: grad = error x^T.  A bias or vector has input 1."""
    if not learned.pair:
        return {}
    grad, x = learned.grad[name], learned.inputs.get(name)
    if x is None:
        return {"x": torch.ones_like(grad[..., :1]), "error": grad}
    error = (grad @ x.unsqueeze(-1)).squeeze(-1) / x.square().sum(-1, keepdim=True)
    return {"x": x, "error": error if memory.meta is Meta.FULL else error.detach()}


def share_of(memory: Memory, weight: Tensor, retain: Tensor | None) -> Tensor:
    """What a rule sees as `retain`: one number a head, or one row of numbers for each key channel."""
    if retain is None:
        return torch.ones((), dtype=DTYPE)
    channels = retain.dim() == len(memory.heads) + 1
    return retain.unsqueeze(-2) if channels and weight.dim() == len(memory.heads) + 2 else retain


def held(memory: Memory, register: Register, ticks: int) -> Register:
    """After `ticks` tokens of its clock: the running state becomes the held one where a chunk begins."""
    if (ticks - register.origin) % memory.chunk == 0:
        return replace(register, held=register.now)
    return register
