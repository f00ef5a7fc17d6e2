"""Memories without heads: the same computation with one head, its axis added on the way in and taken away after.

token values (B, T, I) <-> (B, T, 1, I)        states and starts (B, O, I) <-> (B, 1, O, I)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from runtime.ops.basis import PRODUCT
from runtime.ops.forms import Form

Register = Mapping[str, Tensor]


def is_headless(register: Register, form: Form) -> bool:
    """A matrix (B, O, I), a bias or vector (B, I); a matrix may be carried as the product of its start."""
    part = form.parts[0]
    x = register[part] if part in register else register[PRODUCT]
    return x.dim() == (2 if form.vector(part) else 3)


def widen(register: Register, batch: bool = True) -> dict[str, Tensor]:
    found = {part: x.unsqueeze(1 if batch else 0) for part, x in register.items() if not of_pairs(part)}
    return found | {part: x if x.dim() == 1 else x.unsqueeze(2) for part, x in register.items() if of_pairs(part)}


def narrow(register: Register) -> dict[str, Tensor]:
    found = {part: x.squeeze(1) for part, x in register.items() if not of_pairs(part)}
    return found | {part: x if x.dim() == 1 else x.squeeze(2) for part, x in register.items() if of_pairs(part)}


def of_pairs(part: str) -> bool:
    """What a memory remembers of pairs, (B, pairs, ...), and their count (B,)."""
    return part.startswith("window.")


def one_start(start: Register, register: Register) -> dict[str, Tensor]:
    """A start shared by all sequences, or one for each."""
    return {part: x.unsqueeze(1 if x.dim() == register[part].dim() else 0) for part, x in start.items()}


def last(x: Any) -> Any:
    """Rates and the like, (B, T) to (B, T, 1); plain numbers stay."""
    return x.unsqueeze(2) if isinstance(x, Tensor) and x.dim() >= 2 else x


def call_memory(
    memory: Callable[..., Any],
    write: Any,
    state: Register,
    k: Tensor,
    v: Tensor,
    rate: Any,
    keep: Any,
    start: Any,
    queries: Any,
    **more: Any,
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """`memory` for a register without heads.  k (B, T, I), or (B, T, P, I) for several pairs."""
    more = more | {"beta": last(more.get("beta")), "params": tuple(last(p) for p in more.get("params", ()))}
    more["weigh"] = last(more.get("weigh"))
    more["rule_params"] = {name: last(p) for name, p in (more.get("rule_params") or {}).items()}
    reads, after = memory(
        write,
        widen(state),
        k.unsqueeze(-2),
        v.unsqueeze(-2),
        last(rate),
        last(keep),
        None if start is None else one_start(start, state),
        tuple((q.unsqueeze(2), when) for q, when in queries),
        **more,
    )
    return tuple(y.squeeze(2) for y in reads), narrow(after)


def call_shared(
    shared: Callable[..., Any],
    flow: Callable[..., Any],
    states: Mapping[str, Register],
    queries: Any,
    extras: Any,
    weights: Any,
    start: Any,
    **more: Any,
) -> Any:
    """`shared_product` for boxes without heads: the flow sees token values without the axis."""

    def wide(reads: Any, given: Any, parameters: Any) -> Any:
        k, v, rate, keep = flow(tuple(z.squeeze(2) for z in reads), given, parameters)
        return k.unsqueeze(2), v.unsqueeze(2), last(rate), last(keep)

    out = shared(
        wide,
        {box: widen(s) for box, s in states.items()},
        tuple((x.unsqueeze(2), boxes) for x, boxes in queries),
        extras,
        weights,
        start=None if start is None else {b: x.unsqueeze(1 if x.dim() == 3 else 0) for b, x in start.items()}, **more,
    )  # fmt: skip
    streams = {name: x.squeeze(2) for name in ("k", "v", "rate", "keep") if (x := getattr(out, name)) is not None}
    return replace(out, state={box: narrow(s) for box, s in out.state.items()}, **streams)
