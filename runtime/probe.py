"""A look inside, on steps that log: the levels that write in a sequence, as they read the first sequence of a batch.

One pass without gradients and without a trace: weights, counters and random numbers are left as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from runtime.metrics import is_running
from runtime.ops.watch import watch
from runtime.state import State, rows_of, short

Means = Mapping[str, Mapping[str, float]]


@torch.no_grad()
def probe(
    model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor, starts_BT: Tensor | None = None, state: State | None = None
) -> dict[str, float]:
    """Metrics of one sequence, at the weights in force.  Every number is taken over its tokens and the layers.

        memory/<name>/surprise    root mean square of |g_t|, the gradient that token t gives the memory, all parts and
                                  heads together: of its objective at the state it is taken at, or of the token's own
                                  loss (`objective: loss`)
        level/<name>/update       norm of what an update changed in all memories of the level: root mean square over the
                                  writes of a level that is written once in n > 1 tokens; |M_T - M_{T-1}|, the last
                                  token's, of one that every token writes
        level/<name>/rate         mean rate of its memories
        level/<name>/retain       mean share of the state that is kept, where the level has retention

    state: what the sequences of the batch go on from, if they do.
    """
    fires: dict[str, int] = getattr(model, "fires", {})
    before, mode = dict(fires), model.training
    x_1T, y_1T, starts_1T = (None if x is None else x[:1] for x in (tokens_BT, targets_BT, starts_BT))
    state = None if state is None else rows_of(state, torch.tensor([0]))
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), watch() as seen:
            changed = _read(model, x_1T, y_1T, starts_1T, state)
    finally:
        model.train(mode)
        fires.clear()
        fires.update(before)
    means = seen.means()
    for memory, change in changed.items():
        means.setdefault(memory, {}).setdefault("update", change)
    surprise = {f"memory/{name}/surprise": found["surprise"] for name, found in means.items() if "surprise" in found}
    return surprise | _by_level(means, before)


def _read(
    model: nn.Module, x_1T: Tensor, y_1T: Tensor, starts_1T: Tensor | None, state: State | None
) -> dict[str, float]:
    """Read all tokens but one, then the last: what that one changed, by memory."""
    last = x_1T.shape[1] - 1
    if last == 0 or (starts_1T is not None and bool(starts_1T[0, last])):  # its memories begin anew
        model.loss(x_1T, y_1T, state, starts=starts_1T)
        return {}
    head, tail = (None, None) if starts_1T is None else (starts_1T[:, :last], starts_1T[:, last:])
    _, early = model.loss(x_1T[:, :last], y_1T[:, :last], state, starts=head)
    _, late = model.loss(x_1T[:, last:], y_1T[:, last:], early, starts=tail)
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
