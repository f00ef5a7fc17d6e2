"""The meaning of a memory, token by token: the judge of the closed forms, and the lowering of rules that have none.

One token: hold the state if a chunk begins; read; take the gradient of the objective at the held state for every pair;
let the rule write.  What a token reads of earlier ones is marked with `past`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from runtime.ops.forms import Form, Matrix, Tap
from runtime.ops.history import past
from runtime.ops.rules import Rule, stepped
from runtime.ops.watch import Watched, squared
from runtime.ops.window import Seen

Weights = Mapping[str, Tensor]
Slope = Callable[..., Tensor]


@dataclass(frozen=True)
class Write:
    """How a memory is written.

    objective: "dot", "l2", "lp" (params: p), "huber" (params: d), or u(p, k, v, *params) = dL/dp for p = M(k), on (B,
        T, H, O)
    erase: each layer also forgets along its own input (dgd).  kept: the gradient sees the state after retention
        (grad_at: kept).
    chunk: tokens that share one frozen state.  self_values: the target is this memory at the held state, of v.
    meta: "full", "first_order" (the gradient is a constant), "none" (the state is a constant where it is read).
    momentum: heavy ball, m = beta m - lr g, written m.
    window: pairs that each gradient is over, this token's included (runtime.ops.window).
    rule: None, or the function of a rule without a closed form, called as runtime.ops.rules says; `rule_state` names
        its state, and the state's "rule.count" (B,) its updates if it asks.
    to_start: retention leads back to the start, where one is given; else it is there for the rule alone.
    name: of the memory, for who watches.  boxes: of several memories that are its heads in turn (runtime.ops.boxes).
    kernel: on a GPU the kernels of a linear memory may take it.
    keep: of one written once in a period, as runtime.ops.segment has it.
    relative: a period's rates weigh relative to their mean, which is the rule's lr.
    descends: the rule of one written once in a period is delta = -lr grad.
    """

    form: Form = field(default_factory=Matrix)
    objective: str | Slope = "l2"
    erase: bool = False
    chunk: int = 1
    kept: bool = False
    meta: str = "full"
    self_values: bool = False
    momentum: bool = False
    rule: Rule | None = None
    rule_state: tuple[str, ...] = ()
    window: int = 1
    to_start: bool = True
    name: str = ""
    boxes: tuple[str, ...] = ()
    kernel: bool = False
    keep: bool = False
    relative: bool = False
    descends: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the memories that it writes."""
        return self.boxes or (self.name,)

    def given(self, **weights: Tensor) -> Write:
        """The same with the weights that the form's equations use (runtime.ops.equations)."""
        return replace(self, form=self.form.given(**weights))


@dataclass(frozen=True)
class Call:
    """One call of `memory`, shapes settled: k, v (B, T, [P,] H, .); rate, beta (B, T, H); keep (B, T, H[, I]) or None.

    point: log retention of the gradient's place (`kept`) where it is not `keep`.
    seen: every pair that the tokens see, where a gradient is over several.
    low: the caller is under autocast, so that a kernel may take products of bfloat16."""

    write: Write
    k: Tensor
    v: Tensor
    rate: Tensor
    keep: Tensor | None
    beta: Tensor | None
    params: tuple[Any, ...]
    start: Weights | None
    queries: tuple[tuple[Tensor, str], ...]
    phase: int
    own: bool
    rule_params: Weights
    point: Tensor | None = None
    seen: Seen | None = None
    low: bool = False


def unmarked(x: Tensor) -> Tensor:
    return x


def parts(form: Form) -> list[tuple[str, bool]]:
    """Names of the form's parts, and whether each is a vector."""
    found = []
    for layer in form.layers:
        found.append((layer.weight, layer.vector))
        if layer.bias:
            found.append((layer.bias, True))
    return found


# ---- objectives


def by_token(x: Any) -> bool:
    """Whether a parameter of the objective differs between tokens: (B, T, H[, O])."""
    return isinstance(x, Tensor) and x.dim() >= 2


def objective_slope(objective: str | Slope, p: Tensor, k: Tensor, v: Tensor, params: Sequence[Any]) -> Tensor:
    """u = dL/dp (reference, section 1): dot -v; l2 e; lp sign(e) |e|^(p-1); huber clip(e, -d, d), with e = p - v."""
    if callable(objective):
        return objective(p, k, v, *params)
    if objective == "dot":
        return -v
    e = p - v
    if objective == "l2":
        return e
    (param,) = params
    if objective == "lp":
        return e.sign() * e.abs() ** (param - 1)
    if objective == "huber":
        param = param.to(e) if isinstance(param, Tensor) else e.new_full((), param)
        return torch.minimum(torch.maximum(e, -param), param)
    raise ValueError(f"objective {objective!r}; known: dot, l2, lp, huber, or a function")


def slope(call: Call, p: Tensor, k: Tensor, v: Tensor, first: int, count: int, heads: int = 2) -> Tensor:
    """u of tokens first ... first + count, for values whose heads are axis `heads`: 1 head-major, 2 token-major."""
    params = []
    for x in call.params:
        if by_token(x):
            x = x.unsqueeze(-1) if x.dim() == 3 and not callable(call.write.objective) else x
            x = x.narrow(1, first, count) if x.shape[1] > 1 else x
        params.append(x)
    if heads == 1:
        p, k, v = (x.transpose(1, 2) for x in (p, k, v))
    u = objective_slope(call.write.objective, p, k, v, params)
    return u.transpose(1, 2) if heads == 1 else u


def entrywise(objective: str | Slope, K: int) -> Slope:
    """The objective of a vector (B, T, H, K), for its entries as heads (B, T, H K, 1)."""

    def u(p: Tensor, k: Tensor, v: Tensor, *params: Any) -> Tensor:
        p, k, v = (x.squeeze(-1).unflatten(2, (-1, K)) for x in (p, k, v))
        if not callable(objective):  # one number a head serves its entries
            params = tuple(x.unsqueeze(-1) if by_token(x) and x.dim() == 3 else x for x in params)
        return objective_slope(objective, p, k, v, params).flatten(2).unsqueeze(-1)

    return u


# ---- token by token


def tokens(call: Call, state: Weights) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The meaning: see the module.  Shapes as in `memory`."""
    write, T = call.write, call.k.shape[1]
    if call.k.dim() == 4:
        call = replace(call, k=call.k.unsqueeze(2), v=call.v.unsqueeze(2))
    own = past if call.own else unmarked
    names = [name for name, _ in parts(write.form)]
    now = {part: state[part] for part in names}
    held = {part: state["held." + part] for part in names} if write.chunk > 1 else now
    rule = {name: x for name, x in state.items() if name.startswith("rule.")}
    reads: list[list[Tensor]] = [[] for _ in call.queries]
    for t in range(T):
        if (call.phase + t) % write.chunk == 0:
            held = now
        before = now
        with torch.set_grad_enabled(torch.is_grad_enabled() and write.meta != "none"):
            now, rule = step(
                call,
                {n: own(x) for n, x in now.items()},
                {n: own(x) for n, x in held.items()},
                {n: own(x) for n, x in rule.items()},
                t,
            )
        for (q, when), found in zip(call.queries, reads, strict=True):
            seen = now if when == "after" else {n: own(x) for n, x in (held if when == "chunk" else before).items()}
            found.append(write.form.read(seen, q[:, t : t + 1])[0])
    if (call.phase + T) % write.chunk == 0:
        held = now
    result = now | ({"held." + n: x for n, x in held.items()} if write.chunk > 1 else {}) | rule
    return tuple(torch.cat(found, 1) for found in reads), result


def step(call: Call, now: Weights, held: Weights, rule: Weights, t: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One token's write: its pairs in order, retention with the first."""
    write, now, rule = call.write, dict(now), dict(rule)
    keep = None if call.keep is None else call.keep[:, t].exp()
    for i in range(call.k.shape[2]):
        pairs, lr = pairs_of(call, t, i), call.rate[:, t]
        k, v, params = pairs.k, pairs.v, pairs.params
        at = held if write.chunk > 1 else now
        share = keep if i == 0 or write.chunk > 1 else None
        point = {n: kept(x, share, start_of(call, n)) for n, x in at.items()} if write.kept else at
        p, taps = write.form.read(point, k)
        v = write.form.read(at, v)[0] if write.self_values else v
        u = slope(replace(call, params=params), p, k, v, t if call.seen is None else 0, k.shape[1])
        errors = write.form.errors(point, taps, u)
        grads, grams = write.form.sums(taps, errors, pairs.weigh, True, write.meta == "first_order")
        layers = {} if write.rule is None else inputs(write, taps, errors, grads)
        if Watched.by:
            Watched.by.add(write.name, "surprise", sum(squared(g[:1]).sum() for g in grads.values()), 1)
        share = keep if i == 0 else None
        if "rule.count" in rule:
            rule["rule.count"] = rule["rule.count"].to(k.dtype) + 1
        for n, x in now.items():
            rate = lr[(..., *(None,) * (x.dim() - 2))]
            gram, base = grams.get(n), kept(x, share, start_of(call, n))
            if write.rule is not None:
                delta, after = stepped(
                    write.rule,
                    write.form.vector(n),
                    {s: rule[f"rule.{s}.{n}"] for s in write.rule_state},
                    grad=grads[n],
                    weight=x,
                    kept=base,
                    start=x if call.start is None else call.start[n].expand_as(x),
                    lr=lr,
                    retain=share,
                    gram=gram,
                    count=rule.get("rule.count"),
                    params={p: y[:, t] for p, y in call.rule_params.items()},
                    vectors={"k": k[:, 0], "v": v[:, 0], **layers[n]} if layers else {},
                )
                rule |= {f"rule.{s}.{n}": y for s, y in after.items()}
            else:
                delta = -rate * grads[n]
                if write.momentum and call.beta is not None:
                    delta = delta + call.beta[:, t][(..., *(None,) * (x.dim() - 2))] * rule["rule.m." + n]
                    rule["rule.m." + n] = delta
                if write.erase and gram is not None:
                    delta = delta - rate * (x @ gram)
            now[n] = base + delta
    return now, rule


def pairs_of(call: Call, t: int, i: int) -> Seen:
    """What token t's gradient is over: its i-th pair, or the pairs of its window."""
    if call.seen is None:
        return Seen(call.k[:, t : t + 1, i], call.v[:, t : t + 1, i], None, call.params)
    return call.seen.at(t, call.write.window, past if call.own else unmarked)


def inputs(write: Write, taps: Sequence[Tap], errors: Sequence[Tensor], grads: Weights) -> dict[str, dict[str, Tensor]]:
    """Of each part, the layer's input x (B, H, I) and the error at its output (B, H, O); grad = error x^T."""
    found = {name: {"x": torch.ones_like(g[..., :1]), "error": g} for name, g in grads.items()}
    for layer, (a, *_), e in zip(write.form.layers, taps, errors, strict=True):
        if not layer.vector:
            found[layer.weight] = {"x": a[:, 0], "error": e[:, 0].detach() if write.meta == "first_order" else e[:, 0]}
    return found


def start_of(call: Call, part: str) -> Tensor | None:
    """Where retention leads back to."""
    return None if call.start is None or not call.write.to_start else call.start[part]


def share_axes(share: Tensor, x: Tensor) -> Tensor:
    """(B, H) or per key channel (B, H, I), for a part (B, H, O, I) or (B, H, I)."""
    if share.dim() == 2:
        return share[(..., *(None,) * (x.dim() - 2))]
    return share.unsqueeze(-2) if x.dim() == 4 else share


def kept(x: Tensor, share: Tensor | None, start: Tensor | None) -> Tensor:
    """What retention leaves of a part: a x [+ (1 - a) start]."""
    if share is None:
        return x
    a = share_axes(share, x)
    return a * x if start is None else a * x + (1 - a) * start


def idle(call: Call, state: Weights) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Learning off: reads of a state that stays, while chunks go on holding it."""
    write, T = call.write, call.k.shape[1]
    own = past if call.own else unmarked
    names = [name for name, _ in parts(write.form)]
    now = {n: state[n] for n in names}
    head = min(T, -call.phase % write.chunk) if write.chunk > 1 else 0
    held = {n: state["held." + n] for n in names} if head else now
    reads = []
    for q, when in call.queries:
        first = held if when == "chunk" else now
        spans = [(first, q[:, :head]), (now, q[:, head:])]
        found = [write.form.read({n: own(x) for n, x in W.items()}, x)[0] for W, x in spans if x.shape[1]]
        reads.append(torch.cat(found, 1))
    result = dict(state)
    if write.chunk > 1:
        result |= {"held." + n: x for n, x in (now if call.phase + T >= write.chunk else held).items()}
    return tuple(reads), result
