"""Memories written at segment ends: from each token's own error, or once in a period.

While a period runs its gradients gather in the memory's register; the write takes them through an update rule.  What
the backward pass needs of earlier registers it makes again (`runtime.ops.boundaries`).

    register   the memory's parts; absent until the first write, for all sequences then share the start
               held.<part>       what reads see, where it is older
               rule.<s>.<part>   the rule's own state;  rule.count: its updates so far, if it asks
               sum.<part>        while a period runs: sum over its tokens of rate-weighted gradients
               gram.<part>       of input input^T, likewise
               kept              log of the product of its retentions
               rate.sum          of its rates, where they weigh relative to their mean;  rate.count: of so many tokens
               param.<p>         the last token's value of a rule's parameter
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime.ops.boundaries import Step, Write, followed, sources, written
from runtime.ops.descent import descended
from runtime.ops.forms import Form, Tap
from runtime.ops.history import past
from runtime.ops.rows import ROWS, collected
from runtime.ops.rules import Rule, stepped
from runtime.ops.taps import Readings, leanly, without_graph
from runtime.ops.watch import ONCE, Watched, squared
from runtime.precision import full, same

Register = dict[str, Tensor]
Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class Learner:
    """How a memory is written at the ends of its periods.

    level: the name of its level.
    rule: its function, called as runtime.ops.rules says.
    gram: the rule looks at the layer inputs' second moment (dgd).  first_order: the gradients it gets are constants.
    constant: no gradient reaches the writes through a read (meta: none).  to_start: retention leads back to the start.
    hold: reads see the state of the last chunk border, older than the last write.
    counts: the rule asks for its updates.  keep: what the backward pass needs of its registers is kept, not made again.
    name: of the memory, for who watches.
    relative: rates weigh relative to their mean, which is the rule's lr.
    descends: the rule is delta = -lr grad, which is written in one pass.
    """

    level: str
    form: Form
    rule: Rule
    gram: bool = False
    first_order: bool = False
    constant: bool = False
    to_start: bool = False
    hold: bool = False
    counts: bool = False
    keep: bool = False
    name: str = ""
    relative: bool = False
    descends: bool = False

    def given(self, **weights: Tensor) -> Learner:
        """The same with the weights that the form's equations use (runtime.ops.equations)."""
        return replace(self, form=self.form.given(**weights))

    def read(
        self, register: Register | None, start: Parts, x: Tensor, before: bool = False
    ) -> tuple[Tensor, tuple[Tap, ...]]:
        """M(x) with the parts in force: the register's, or the start all sequences share until the first write.

        `before`: the state after the last write, where a chunk holds an older one.
        """
        parts, seen = start, dict[str, tuple[Tensor, Tensor]]()
        if register is not None and self.form.parts[0] in register:
            names = {part: f"held.{part}" if self.hold and not before else part for part in start}
            if not self.constant and x.shape[1] <= ROWS:  # more are worth a product of their own
                found = [names[part] for part in self.form.matrices]
                seen = {name: (register[name], collected(register[name])) for name in found}
            now = register | {name: x for name, (_, x) in seen.items()}
            parts = {part: now[name].detach() if self.constant else past(now[name]) for part, name in names.items()}
        if not torch.is_grad_enabled():
            return self.form.read(parts, x)
        return leanly(self.form, parts, x, sources(register), seen)

    def gather(
        self, register: Register, call: Call, errors: Sequence[Tensor], taught: Tensor | None = None
    ) -> Register:
        """Add a segment's gradients, summed over its tokens, to what the period has gathered.

        sum += sum_t rate_t error_t input_t^T,   gram += sum_t rate_t input_t input_t^T,   kept += sum_t log retain_t
        `errors` are those at `call.outputs()`; `taught` (B, T) is False where a token has no error, and so no gram.
        Source: arXiv 2512.24695, eq. 71.
        """
        if Watched.by:
            for taps, own in call.taught(errors):
                squares = self.form.surprise([a[:1] for a, *_ in taps], [e[:1] for e in own])
                Watched.by.add(self.name, "surprise", squares.sum(), squares.shape[1])
            Watched.by.speed(self.name, call.rate, call.keep)
        out = self._gathered(register, call, errors, taught)
        return out if self.keep else followed(register, lambda: self._once_more(call, errors, taught), out)

    def _gathered(self, register: Register, call: Call, errors: Sequence[Tensor], taught: Tensor | None) -> Register:
        out, rate = register | call.seen(register), call.rate
        if self.gram and taught is not None:
            rate = _weighted(taught, call)
        for taps, own in call.taught(errors):
            grads, grams = self.form.sums(taps, own, rate, self.gram, self.first_order, out)
            out |= {f"sum.{part}": g for part, g in grads.items()} | {f"gram.{part}": g for part, g in grams.items()}
        if self.relative and call.rate is not None:
            found, tokens = call.rate.sum(1), call.rate.new_full(call.rate.shape[:1], call.rate.shape[1])
            out["rate.sum"] = out["rate.sum"] + found if "rate.sum" in out else found
            out["rate.count"] = out["rate.count"].to(tokens.dtype) + tokens if "rate.count" in out else tokens
        out |= {f"param.{name}": x[:, -1] for name, x in call.params.items()}
        if call.keep is not None:
            kept = call.keep.sum(1)
            out["kept"] = out["kept"] + kept if "kept" in out else kept
        return out

    def _once_more(self, call: Call, errors: Sequence[Tensor], taught: Tensor | None) -> Step:
        """`_gathered` for the backward pass, which keeps of the call what its tokens left."""
        left, own, mode = call.left(), [e.detach() for e in errors], same(errors[0])

        def step(register: Register) -> Register:
            with mode():
                return self._gathered(register, left(), own, taught)

        return step

    def write(self, register: Register, start: Parts, *, lr: Tensor | float = 1.0) -> Register:
        """Apply what a period has gathered:  W <- retain W [+ (1 - retain) start] + delta, delta from the rule.

        start    the memory's parts before any write, shared by all sequences; {} where nothing leads back to it and the
                 register has them
        lr       the rule's learning rate; 1 where the rates are in the sums.  A token's own, where each is written
                 alone, is in the register
        """
        out = self._after(self._written, register, start, lr)
        if Watched.by:
            before = {**start, **register}
            changes = [(out[part] - before[part])[:1] for part in self.form.parts]
            Watched.by.add(self.name, "update", sum(squared(x).sum() for x in changes), len(changes[0]))
            at = lr if isinstance(lr, Tensor) else torch.tensor(float(lr))
            Watched.by.add(self.name, ONCE, at.sum(), at.numel())
        return out

    @full
    def _written(self, register: Register, start: Parts, lr: Tensor | float) -> Register:
        out: Register = {}
        register = at_mean_rate(register)
        lr = register.get("param.lr", lr)
        if self.counts:
            rows = register[f"sum.{self.form.parts[0]}"]
            out["rule.count"] = register.get("rule.count", rows.new_zeros(len(rows))).to(rows.dtype) + 1
        for part in self.form.parts:
            W = register[part] if part in register else start[part]
            grad, first = register[f"sum.{part}"], start.get(part, W)
            new, states = self._update(part, W, grad, register, first, lr, out.get("rule.count"))
            out[part] = new.expand(len(grad), *new.shape[-(grad.dim() - 1) :])
            out |= {f"rule.{name}.{part}": x for name, x in states.items()}
            if self.hold:
                out[f"held.{part}"] = register.get(f"held.{part}", first).expand_as(out[part])
        return out

    def start(self, held: Register | None, first: Parts) -> Parts:
        """A nested memory's start: as the slower memory that holds it has it now, `first` before it was written."""
        return {part: first[part] if held is None else held.get(part, first[part]) for part in self.form.parts}

    def begun(self, held: Register) -> Register:
        """A nested memory's register where its life begins: the start that the slower memory holds, and nothing else.

        Source: arXiv 2512.24695, eq. 72, to first order: the holder gathers the gradients at the running state.
        """
        out = {part: held[part] for part in self.form.parts}
        return out | ({f"held.{part}": x for part, x in out.items()} if self.hold else {})

    def released(self, register: Register) -> Register:
        """A chunk ends: reads see what has been written."""
        return self._after(self._released, register, {}, 1.0)

    def _after(self, write: Write, register: Register, start: Parts, lr: Tensor | float) -> Register:
        return (write if self.keep else partial(written, write))(register, start, lr)

    def _released(self, register: Register, *_: Any) -> Register:
        return register | {f"held.{part}": register[part] for part in self.form.parts if part in register}

    def _update(
        self,
        part: str,
        W: Tensor,
        grad: Tensor,
        register: Register,
        start: Tensor,
        lr: Tensor | float,
        count: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One part.  A bias or vector meets the rule as a matrix with one column, and has no gram."""
        vector = self.form.vector(part)
        axes = 1 if vector else 2
        keep = register["kept"].exp() if "kept" in register else None
        base, retain = W, None
        if keep is not None:
            missing = grad.dim() - keep.dim()  # one number a head, or one a key channel
            retain = keep[(..., *(None,) * missing)] if missing == axes else keep if vector else keep.unsqueeze(-2)
        if self.descends:
            rate = lr if isinstance(lr, Tensor) else grad.new_tensor(lr)
            rate = rate[(..., *(None,) * axes)] if rate.dim() else rate
            return descended(W, grad, rate, retain, start if self.to_start else None), {}
        if retain is not None:
            base = retain * W + ((1 - retain) * start if self.to_start else 0)
        delta, after = stepped(
            self.rule,
            vector,
            {n.split(".")[1]: x for n, x in register.items() if n.startswith("rule.") and n.endswith(f".{part}")},
            grad=grad,
            weight=W,
            kept=base,
            start=start,
            lr=lr,
            retain=keep,
            gram=register.get(f"gram.{part}"),
            count=count,
            params={
                n.removeprefix("param."): x for n, x in register.items() if n.startswith("param.") and n != "param.lr"
            },
        )
        return base + delta, after


def at_mean_rate(register: Register) -> Register:
    """With sums weighed by each token's rate relative to the mean of the period's, which is the rule's lr.

    sum / lr for lr = sum_t rate_t / tokens; where every rate is 0, as the sums are."""
    if "rate.sum" not in register:
        return register
    rates, tokens = register["rate.sum"], register["rate.count"].clamp(min=1)
    lr = rates / tokens[(..., *(None,) * (rates.dim() - 1))]
    by = torch.where(lr == 0, 1, lr)
    sums = {name: x for name, x in register.items() if name.startswith(("sum.", "gram."))}
    sums = {name: x / by[(..., *(None,) * (x.dim() - by.dim()))] for name, x in sums.items()}
    return {**register, **sums, "param.lr": lr}


@dataclass(frozen=True)
class Call:
    """What a segment's reads of one memory leave for its write: taps of each; rate and log retention of each token."""

    learner: Learner
    taps: tuple[Sequence[Tap] | list[Sequence[Tap]], ...]  # a list where a walk read the memory piece by piece
    rate: Tensor | None = None  # (B, T) or (B, T, H), when it differs from token to token
    keep: Tensor | None = None  # log retention, likewise
    params: Mapping[str, Tensor] = field(default_factory=dict)  # of the rule, by token

    def pieces(self) -> Iterator[list[Sequence[Tap]]]:
        """Taps of each read, piece by piece."""
        return (read if isinstance(read, list) else [read] for read in self.taps)

    def outputs(self) -> list[Tensor]:
        return [z for pieces in self.pieces() for taps in pieces for _, z, *_ in taps]

    def seen(self, register: Register) -> Register:
        """The register's tensors as they were read: what comes after the reads goes on from there.

        None, where it is the register of a slower memory that learns from these reads."""
        reads = [taps.seen for pieces in self.pieces() for taps in pieces if isinstance(taps, Readings)]
        return {name: x for seen in reads for name, (read, x) in seen.items() if register.get(name) is read}

    def taught(self, errors: Sequence[Tensor]) -> Iterator[tuple[Sequence[Tap], Sequence[Tensor]]]:
        """Taps of each read, and of `errors`, which are those at `outputs()`, its own."""
        at = 0
        for pieces in self.pieces():
            count = len(pieces[0])
            own = [errors[at + i * count : at + (i + 1) * count] for i in range(len(pieces))]
            at += len(pieces) * count
            yield _joined(pieces, own)

    def left(self) -> Callable[[], Call]:
        """The call without a graph; its taps are made again where they can be."""
        reads = [[without_graph(taps) for taps in pieces] for pieces in self.pieces()]
        numbers = replace(
            self,
            rate=None if self.rate is None else self.rate.detach(),
            keep=None if self.keep is None else self.keep.detach(),
            params={name: x.detach() for name, x in self.params.items()},
            taps=(),
        )
        return lambda: replace(numbers, taps=tuple([taps() for taps in pieces] for pieces in reads))


def _joined(pieces: list[Sequence[Tap]], errors: list[Sequence[Tensor]]) -> tuple[Sequence[Tap], Sequence[Tensor]]:
    """Taps and errors of all pieces of tokens, as of one."""
    if len(pieces) == 1:
        return pieces[0], errors[0]
    layers = range(len(pieces[0]))
    taps = [(torch.cat([p[i][0] for p in pieces], 1), torch.cat([p[i][1] for p in pieces], 1)) for i in layers]
    return taps, [torch.cat([e[i] for e in errors], 1) for i in layers]


def _weighted(taught: Tensor, call: Call) -> Tensor:
    """Rates that are 0 where a token has no error: (B, T), or (B, T, H) where the taps have heads."""
    first = call.taps[0]
    a = (first[0] if isinstance(first, list) else first)[0][0]
    weights = taught.to(a.dtype)
    weights = weights.unsqueeze(-1).expand(a.shape[:-1]) if a.dim() == 4 else weights
    return weights if call.rate is None else weights * call.rate


def segments(T: int, *ticks: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cut T tokens so that no piece crosses a tick; each of `ticks` is (tokens counted before the first, period)."""
    a = 0
    while a < T:
        b = min([T, *(a + n - (t + a) % n for t, n in ticks)])
        yield a, b
        a = b


def held(register: Register) -> Register:
    """The parts at the first state of the running chunk."""
    found = {part.removeprefix("held."): x for part, x in register.items() if part.startswith("held.")}
    return found or now(register)


def now(register: Register) -> Register:
    """The parts after the previous token's write."""
    return {part: x for part, x in register.items() if "." not in part and part != "kept"}
