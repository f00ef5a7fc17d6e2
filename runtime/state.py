"""States as trees of tensors whose first axis is the row: {place: {part: tensor}}, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, dict[str, Tensor]]
Clock = dict[str, int]


def begin(
    B: int,
    parts: dict[str, Tensor],
    hold: bool = False,
    rule: Iterable[str] = (),
    count: bool = False,
    remembered: Iterable[Any] = (),
    vectors: Collection[str] = (),
    window: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Tensor]:
    """A memory's register for B sequences that all begin from the same parts: see runtime.ops for the names.

    `remembered`: the memories of its rule (runtime.ops.Remembered); `vectors`: the parts it meets as one column.
    `window`: shapes of what it remembers of earlier pairs (runtime.ops.window).
    """
    now = {name: x.expand(B, *x.shape) for name, x in parts.items()}
    held = {f"held.{name}": x for name, x in now.items()} if hold else {}
    updates = {"rule.count": next(iter(now.values())).new_zeros(B)} if count else {}
    states = {f"rule.{s}.{name}": torch.zeros_like(x) for s in rule for name, x in now.items()}
    for memory in remembered:
        for name, x in now.items():
            like = x.detach().unsqueeze(-1) if name in vectors else x.detach()
            states |= {f"rule.{s}.{name}": first for s, first in memory.begin(like).items()}
    if window:
        like = next(iter(parts.values()))
        updates |= {f"window.{name}": like.new_zeros(B, *shape) for name, shape in window.items()}
        updates["window.count"] = like.new_zeros(B)
    return now | held | states | updates


def over(function: Callable[[Tensor], Tensor], state: State) -> State:
    return {place: {part: function(x) for part, x in register.items()} for place, register in state.items()}


def detached(state: State) -> State:
    """The same state, without the graph that made it: what one step hands to the next."""
    return over(lambda x: x.detach() if x.requires_grad else x, state)


def settled(state: State, before: State | None = None) -> State:
    """The same state as one that is read from a disk lies in memory: sums go in the order of strides.

    It also lets go of a larger tensor that a register was a part of.  before: a state whose tensors stay as they are
    where this one still has them."""
    known = {id(x) for register in (before or {}).values() for x in register.values()}
    moved = {place: r for place, r in state.items() if before is None or r is not before.get(place)}
    return state | over(lambda x: x if id(x) in known else x.contiguous(), moved)


def layer_of(state: State, layer: int) -> State:
    """The registers of one layer, by their place in the block."""
    prefix = f"blocks.{layer}."
    return {place[len(prefix) :]: register for place, register in state.items() if place.startswith(prefix)}


def with_layer(state: State, layer: int, registers: State) -> State:
    return state | {f"blocks.{layer}.{place}": register for place, register in registers.items()}


def rows_of(state: State, rows: Tensor) -> State:
    return over(lambda x: x.index_select(0, rows.to(x.device)), state)


def joined(states: list[State]) -> State:
    """One state whose rows are those of all.  An accumulator that some rows do not have yet is zero for them."""
    if len(states) == 1:
        return states[0]
    out: State = {}
    for place in dict.fromkeys(p for s in states for p in s):
        parts = dict.fromkeys(part for s in states for part in s.get(place, {}))
        out[place] = {}
        for part in parts:
            like = next(s[place][part] for s in states if part in s.get(place, {}))
            pieces = []
            for s in states:
                x = s.get(place, {}).get(part)
                pieces.append(like.new_zeros(count(s), *like.shape[1:]) if x is None else x)
            out[place][part] = torch.cat(padded(pieces), 0)
    return out


def padded(pieces: list[Tensor]) -> list[Tensor]:
    """Equal shapes but for the row: rows of one clock agree anyway; histories of finished rows may differ in length."""
    if all(p.shape[1:] == pieces[0].shape[1:] for p in pieces):
        return pieces
    longest = max(p.shape[1] for p in pieces)
    return [torch.cat((p.new_zeros(p.shape[0], longest - p.shape[1], *p.shape[2:]), p), 1) for p in pieces]


def count(state: State) -> int:
    return len(state["clock"]["sequence"])


def short(place: str) -> str:
    """A place without its layer: blocks.0.titans.key -> titans.key."""
    return place.split(".", 2)[2] if place.startswith("blocks.") else place


def held_parts(register: dict[str, Tensor]) -> list[str]:
    return [part.removeprefix("held.") for part in register if part.startswith("held.")]
