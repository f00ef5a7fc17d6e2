"""Memories written at segment ends: from each token's own error, or once in a period.

While a period runs its gradients gather in the memory's register; the write takes them through an update rule.

    register   the memory's parts (absent until the first write: all sequences then share the start), and while a period runs
               sum.<part>   sum over its tokens of rate-weighted gradients        gram.<part>   of input input^T, likewise
               kept         log of the product of its retentions                  held.<part>   the state reads see, if not the last
               rule.<s>.<part>   the rule's own state
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.ops.forms import Form, Tap

Register = dict[str, Tensor]
Rule = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Learner:
    """A memory written from the network's own error: its level, its form, and what a period gathers for its rule.

    gram: the rule erases along the layers' inputs.  first_order: the gradients handed to the rule are constants."""

    level: str
    form: Form
    gram: bool = False
    first_order: bool = False


@dataclass(frozen=True)
class Call:
    """What a segment's reads of one memory leave for its write: taps of each read; rate and log retention of each token."""

    taps: tuple[Sequence[Tap], ...]
    rate: Tensor | None = None  # (B, T) or (B, T, H), when it differs from token to token
    keep: Tensor | None = None  # log retention, likewise

    def outputs(self) -> list[Tensor]:
        return [z for taps in self.taps for _, z in taps]


def segments(T: int, *ticks: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cut T tokens so that no piece crosses a tick; each of `ticks` is (tokens before the first, period)."""
    a = 0
    while a < T:
        b = min([T, *(a + n - (t + a) % n for t, n in ticks)])
        yield a, b
        a = b


def gather(learner: Learner, register: Register, call: Call, errors: Sequence[Tensor]) -> Register:
    """Add a segment's gradients, summed over its tokens, to what the period has gathered.

    sum += sum_t rate_t error_t input_t^T,   gram += sum_t rate_t input_t input_t^T,   kept += sum_t log retain_t
    `errors` are those at `call.outputs()`.  Source: arXiv 2512.24695, eq. 71.
    """
    out, at = dict(register), 0
    for taps in call.taps:
        own = errors[at : at + len(taps)]
        at += len(taps)
        grads, grams = learner.form.sums(taps, own, call.rate, learner.gram, learner.first_order)
        for kind, found in (("sum", grads), ("gram", grams)):
            for part, g in found.items():
                name = f"{kind}.{part}"
                out[name] = out[name] + g if name in out else g
    if call.keep is not None:
        kept = call.keep.sum(1)
        out["kept"] = out["kept"] + kept if "kept" in out else kept
    return out


def in_force(register: Register | None, start: Mapping[str, Tensor], *, hold: bool = False, constant: bool = False) -> Mapping[str, Tensor]:
    """The parts a read sees: the register's, or the start all sequences share until the first write.

    hold: the state of the last chunk border.  constant: no gradient reaches the writes (meta: none)."""
    if register is None or not any(part in register for part in start):
        return start
    now = {part: register[f"held.{part}" if hold else part] for part in start}
    return {part: x.detach() for part, x in now.items()} if constant else now


def held(register: Register) -> Register:
    """The parts at the first state of the running chunk."""
    found = {part.removeprefix("held."): x for part, x in register.items() if part.startswith("held.")}
    return found or now(register)


def now(register: Register) -> Register:
    """The parts after the previous token's write."""
    return {part: x for part, x in register.items() if "." not in part and part != "kept"}


def write(
    form: Form,
    rule: Rule,
    register: Register,
    start: Mapping[str, Tensor],
    *,
    lr: Tensor | float = 1.0,
    to_start: bool = False,
    count: int = 1,
    hold: bool = False,
    release: bool = True,
) -> Register:
    """Apply what a period has gathered: W <- retain W [+ (1 - retain) start] + delta, delta from the rule.

    start      the memory's parts before any write, shared by all sequences
    lr         the rule's learning rate; 1 where the rates are in the sums
    hold       reads see the state of the last chunk border, kept apart as held.<part>
    release    this write ends a chunk: reads see it from now on
    count      updates so far, this one included
    """
    out: Register = {}
    for part in form.parts:
        W = register.get(part, start[part])
        grad = register[f"sum.{part}"]
        vector = W.dim() < 2 or part.startswith("b_") or part == "m"
        gram = register.get(f"gram.{part}")
        state = {n.split(".")[1]: x for n, x in register.items() if n.startswith("rule.") and n.endswith(f".{part}")}
        keep = register["kept"].exp() if "kept" in register else None
        shaped = (lambda x: x[..., None]) if vector else (lambda x: x[..., None, None])
        retain = 1.0 if keep is None else shaped(keep)
        rate = shaped(lr) if isinstance(lr, Tensor) and lr.dim() else lr
        column = (lambda x: x.unsqueeze(-1)) if vector else (lambda x: x)
        if gram is None:
            gram = grad.new_zeros(*column(grad).shape[:-2], column(grad).shape[-1], column(grad).shape[-1])
        state = {n: column(x) for n, x in state.items()} or _Zeros(column(grad))
        rate = column(rate) if isinstance(rate, Tensor) and rate.dim() else rate
        delta, after = rule(
            grad=column(grad), weight=column(W), start=column(start[part]), lr=rate, gram=gram, count=count, state=state,
            retain=column(retain) if isinstance(retain, Tensor) else retain,
        )  # fmt: skip
        uncolumn = (lambda x: x.squeeze(-1)) if vector else (lambda x: x)
        base = W if keep is None else retain * W + ((1 - retain) * start[part] if to_start else 0)
        new = base + uncolumn(delta)
        out[part] = new.expand(len(grad), *new.shape[1:]) if new.shape[0] != len(grad) else new
        for n, x in after.items():
            out[f"rule.{n}.{part}"] = uncolumn(x)
        if hold:
            held = out[part] if release else register.get(f"held.{part}", start[part])
            out[f"held.{part}"] = held if held.dim() == out[part].dim() else held.expand_as(out[part])
    return out


class _Zeros(dict):  # type: ignore[type-arg]
    """The states of a rule before its first update."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.like = like

    def __missing__(self, name: str) -> Tensor:
        return torch.zeros_like(self.like)
