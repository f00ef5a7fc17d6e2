"""What the levels that write inside a sequence do, on steps that log.

The step itself is watched (runtime.ops.watch), which costs a few sums; the update of a level that every token writes
takes one more reading of a few tokens, without gradients and without a trace.

    memory/<name>/surprise    root mean square of |g_t|, the gradient that token t gives the memory, all parts and heads
                              together: of its objective at the state it is taken at, or of the token's own loss
                              (`objective: loss`); over the first sequence of the step
    level/<name>/update       norm of what an update changed in all memories of the level: root mean square over the
                              writes of a level that is written once in n > 1 tokens; |M_t - M_{t-1}|, t the last of the
                              first FEW tokens of the first sequence, of one that every token writes
    level/<name>/rate         mean rate of its memories
    level/<name>/retain       mean share of the state that is kept, where the level has retention
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from runtime.metrics import is_running
from runtime.ops.watch import Watch
from runtime.state import State, rows_of, short

FEW = 16  # tokens
Means = Mapping[str, Mapping[str, float]]


def look(
    seen: Watch,
    model: nn.Module,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    starts_BT: Tensor | None = None,
    state: State | None = None,
) -> dict[str, float]:
    """The metrics above, from what was `seen` of a step.  state: what its sequences went on from, if they did."""
    means = {memory: dict(kinds) for memory, kinds in seen.means().items()}
    for memory, change in last_write(model, tokens_BT, targets_BT, starts_BT, state).items():
        means.setdefault(memory, {}).setdefault("update", change)
    surprise = {f"memory/{name}/surprise": found["surprise"] for name, found in means.items() if "surprise" in found}
    return surprise | _by_level(means, getattr(model, "fires", {}))


@torch.no_grad()
def last_write(
    model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor, starts_BT: Tensor | None, state: State | None
) -> dict[str, float]:
    """memory -> norm of what the last of a few tokens changed; nothing of this leaves a trace."""
    x, y, starts = (None if x is None else x[:1, :FEW] for x in (tokens_BT, targets_BT, starts_BT))
    last = x.shape[1] - 1
    fires: dict[str, int] = getattr(model, "fires", {})
    before, mode = dict(fires), model.training
    if not fires or last == 0 or (starts is not None and bool(starts[0, last])):  # its memories begin anew
        return {}
    head, tail = (None, None) if starts is None else (starts[:, :last], starts[:, last:])
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            state = None if state is None else rows_of(state, torch.tensor([0]))
            _, early = model.loss(x[:, :last], y[:, :last], state, starts=head)
            _, late = model.loss(x[:, last:], y[:, last:], early, starts=tail)
    finally:
        model.train(mode)
        fires.clear()
        fires.update(before)
    return changes(early, late)


def changes(early: State, late: State) -> dict[str, float]:
    """memory -> norm of what changed in its running state: root mean square over sequences and layers."""
    squares: dict[str, list[Tensor]] = {}
    for place, register in late.items():
        parts = [part for part in register if is_running(part) and part in early.get(place, {})]
        if parts and place.startswith("blocks."):
            moved = [(register[part] - early[place][part]).float().flatten(1).square().sum(1) for part in parts]
            squares.setdefault(short(place), []).append(sum(moved[1:], moved[0]).mean())
    return {memory: math.sqrt(float(torch.stack(found).mean())) for memory, found in squares.items()}


def _by_level(means: Means, levels: Iterable[str]) -> dict[str, float]:
    """A level's update is the norm over its memories, its rate and retention are means of theirs."""
    found: dict[str, float] = {}
    for level in levels:
        mine = [kinds for memory, kinds in means.items() if _belongs(memory, level)]
        for kind in ("update", "rate", "retain"):
            values = [kinds[kind] for kinds in mine if kind in kinds]
            if values:
                found[f"level/{level}/{kind}"] = math.hypot(*values) if kind == "update" else sum(values) / len(values)
    return found


def _belongs(memory: str, level: str) -> bool:
    """titans.key belongs to titans; a level of one memory, split off for its frequency, has that memory's name."""
    return memory == level or memory.startswith(level + ".")
