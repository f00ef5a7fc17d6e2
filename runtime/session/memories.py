"""What the memories of a state hold: how much, how far from where they began, and what the last call wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.metrics import is_running
from runtime.model import LanguageModel, State
from runtime.state import short
from runtime.trained import Trained

Register = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Moved:
    """The state before the last call (None: nothing was read before it), and the tokens of that call."""

    before: State | None
    tokens: int


def described(trained: Trained, state: State, moved: Moved) -> dict[str, dict[str, Any]]:
    """As JSON, for each memory of each layer that has a state of its own:

    norm      of its running state
    distance  from the start that its weights say
    moved     norm of what the last call changed, a token; None where no token was read
    gathered  norm of the gradients that wait for the end of a period, a token; None where none do
    pending   tokens since the last border of its chunk or period: read, but not yet seen by its reads
    """
    periods, start = cycles(trained), started(trained.model, state)
    before = start if moved.before is None else trained.model.filled(moved.before)
    return {
        place: {
            "norm": norm(running(register).values()),
            "distance": apart(register, start.get(place, {})),
            "moved": apart(register, before.get(place, {})) / moved.tokens if moved.tokens else None,
            "gathered": gathered(register, waits(trained.model, state, place, periods)),
            "pending": waits(trained.model, state, place, periods),
        }
        for place, register in state.items()
        if place.startswith("blocks.") and running(register)
    }


def started(model: LanguageModel, like: State) -> State:
    """The state before the first token, registers included that a run adds at their first write."""
    with torch.no_grad():
        return model.filled(model.start(1) | {"clock": like["clock"]})


def cycles(trained: Trained) -> dict[str, int]:
    """memory -> tokens after which its reads see what was written, from the graph beside the program."""
    try:
        nodes = json.loads((trained.package / "graph.json").read_text(encoding="utf-8"))["nodes"]
        memories = [n for n in nodes if n["kind"] == "memory" and n["period"].get("unit", "token") == "token"]
        return {n["id"]: math.lcm(n["period"]["count"], n.get("chunk", 1)) for n in memories}
    except (OSError, ValueError, KeyError, TypeError):  # a program that was edited may have another, or none
        return {}


def waits(model: LanguageModel, state: State, place: str, periods: Mapping[str, int]) -> int | None:
    name = short(place)
    found = [n for memory, n in periods.items() if memory == name or memory.endswith(f"/{name}")]
    ticks = int(state["clock"]["stream" if model.streaming(place) else "sequence"])
    return (ticks - int(state[place].get("origin", torch.zeros(1)))) % found[0] if found else None


def running(register: Register) -> dict[str, Tensor]:
    return {part: x for part, x in register.items() if is_running(part)}


def norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(x.double().square().sum()) for x in parts))


def apart(one: Register, other: Register) -> float:
    """The norm of the difference of two running states."""
    mine, theirs = running(one), running(other)
    return norm(x.double() - theirs[part].double() if part in theirs else x for part, x in mine.items())


def gathered(register: Register, tokens: int | None) -> float | None:
    sums = [x for part, x in register.items() if part.startswith("sum.")]
    return norm(sums) / max(1, tokens or 0) if sums else None


# ---- of all layers together -----------------------------------------------------------------------------------------


def by_memory(described: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Layers together: root mean square of what are norms; `pending` is the same in all of them."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for place, facts in described.items():
        found.setdefault(short(place), []).append(facts)
    return {name: {fact: together(fact, rows) for fact in rows[0]} for name, rows in found.items()}


def together(fact: str, rows: list[Mapping[str, Any]]) -> float | int | None:
    values = [row[fact] for row in rows if row[fact] is not None]
    if not values:
        return None
    return values[0] if fact == "pending" else math.sqrt(sum(v * v for v in values) / len(values))


def changes(one: State, other: State) -> dict[str, dict[str, Any]]:
    """For each memory of each layer: its norm in both, the norm of the difference, and that as a share of the first."""
    found = {}
    for place, register in one.items():
        if place.startswith("blocks.") and running(register) and place in other:
            before, between = norm(running(register).values()), apart(other[place], register)
            after = norm(running(other[place]).values())
            share = between / before if before else None
            found[place] = {"before": before, "after": after, "difference": between, "relative": share}
    return found
