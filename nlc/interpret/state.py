"""The state of one sequence, and the state of a batch as callers hold it: a nested mapping of tensors by place.

    {"clock": {"sequence": (B,), "stream": (B,)}, "unlearned": {"token": (B,)}, "blocks.0.titans.key": {"M": ...}, ...}

A memory's entry: its parts by name, `held.<part>` where chunks are longer than a token, `rule.<state>.<part>` and
`rule.count` where its rule has them, `sum.<part>`, `gram.<part>` and `kept` (a logarithm) where it is written once in
several tokens, `rate.sum` and `rate.count` where their rates weigh relative to the mean,
`window.k`, `window.v`, `window.weigh`, `window.param0` ... and `window.count` where a gradient is over several pairs,
`origin` where its tail is not carried.  A convolution and prev: `past`.  Attention: `k` and `v`, the newest pair last;
shorter histories have zeros in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nlc.graph.nodes import Memory, Tail
from nlc.interpret.memory import Pair, Register, detached
from nlc.interpret.operators import DTYPE, aligned
from nlc.interpret.rules import mentions

State = dict[str, dict[str, Tensor]]
Pairs = tuple[tuple[Tensor, Tensor], ...]  # of one token: keys and values
NOTHING = -1  # no token is waiting for its target


@dataclass
class Sequence:
    """One lane: its clocks, its memories' registers, and what operators and attention remember, by place."""

    clock: int = 0  # tokens since the document began
    stream: int = 0  # tokens of the lane
    registers: dict[str, Register] = field(default_factory=dict)
    pasts: dict[str, Tensor] = field(default_factory=dict)
    pairs: dict[str, list[Pairs]] = field(default_factory=dict)  # of each token that attention still sees
    unlearned: int = NOTHING

    def detach(self, place: str) -> None:
        """Cut a register from the graph of the tokens so far."""
        old = self.registers[place]
        self.registers[place] = replace(
            old,
            now=detached(old.now),
            held=detached(old.held),
            carried=replace(old.carried, states={name: detached(parts) for name, parts in old.carried.states.items()}),
            sum=detached(old.sum),
            gram=detached(old.gram),
            kept=None if old.kept is None else old.kept.detach(),
            rates=None if old.rates is None else old.rates.detach(),
            window=tuple(map(detached_pair, old.window)),
        )


def detached_pair(pair: Pair) -> Pair:
    params = {name: x.detach() if isinstance(x, Tensor) else x for name, x in pair.objective.items()}
    return Pair(pair.key.detach(), pair.value.detach(), pair.weigh.detach(), params)


def pack_register(memory: Memory, register: Register) -> dict[str, Tensor]:
    """A register as a flat mapping."""
    flat = dict(register.now)
    if memory.chunk > 1:
        flat |= {f"held.{name}": part for name, part in register.held.items()}
    for name, parts in register.carried.states.items():
        flat |= {f"rule.{name}.{part}": x for part, x in parts.items()}
    if counts(memory):
        flat["rule.count"] = torch.tensor(register.carried.count)
    flat |= {f"sum.{name}": part for name, part in register.sum.items()}
    flat |= {f"gram.{name}": part for name, part in register.gram.items()}
    if register.kept is not None:
        flat["kept"] = register.kept.clamp_min(torch.finfo(DTYPE).tiny).log()  # that of 0 would have no gradient
    if register.rates is not None:
        flat |= {"rate.sum": register.rates, "rate.count": torch.tensor(register.rated)}
    if memory.window > 1:
        flat |= pack_window(memory, register)
    if memory.tail is not Tail.CARRY:
        flat["origin"] = torch.tensor(register.origin)
    return flat


def pack_window(memory: Memory, register: Register) -> dict[str, Tensor]:
    """The pairs that a gradient is over beside the token's own, the newest last, zeros in front; and their count."""
    blank = {
        "k": torch.zeros(*memory.heads, memory.inner, dtype=DTYPE),
        "v": torch.zeros(*memory.heads, memory.outer, dtype=DTYPE),
        "weigh": torch.zeros(memory.heads, dtype=DTYPE),
        **{f"param{i}": x for i, x in enumerate(register.blank.values())},
    }
    rows = [[x] * (memory.window - 1 - len(register.window)) for x in blank.values()]
    for pair in register.window:
        found = [pair.key, pair.value, pair.weigh, *(pair.objective[name] for name in register.blank)]
        for row, x, like in zip(rows, found, blank.values(), strict=True):
            row.append(aligned(x, like)[0].expand_as(like))
    packed = {f"window.{name}": torch.stack(row) for name, row in zip(blank, rows, strict=True)}
    return {**packed, "window.count": torch.tensor(len(register.window))}


def unpack_window(memory: Memory, fresh: Register, flat: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    """The pairs that `pack_window` wrote."""
    fixed = {p.name: p.number for p in memory.objective.params}
    found = []
    for i in range(memory.window - 1 - int(flat["window.count"]), memory.window - 1):
        k, v, weigh = (flat[f"window.{name}"][i].to(DTYPE) for name in ("k", "v", "weigh"))
        moving = {name: flat[f"window.param{n}"][i].to(DTYPE) for n, name in enumerate(fresh.blank)}
        found.append(Pair(k, v, weigh, {**fixed, **moving}))
    return tuple(found)


def unpack_register(memory: Memory, fresh: Register, flat: Mapping[str, Tensor]) -> Register:
    """The register that `pack_register` wrote.  What is missing is as in a fresh one; a held state then is `now`."""

    def parts(prefix: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: flat[prefix + name].to(DTYPE) if prefix + name in flat else x for name, x in like.items()}

    now = parts("", fresh.now)
    return Register(
        now=now,
        held=parts("held.", now),
        carried=replace(
            fresh.carried,
            states={name: parts(f"rule.{name}.", like) for name, like in fresh.carried.states.items()},
            count=int(flat.get("rule.count", 0)),
        ),
        sum=parts("sum.", fresh.sum),
        gram=parts("gram.", fresh.gram),
        kept=flat["kept"].to(DTYPE).exp() if "kept" in flat else fresh.kept,
        rates=flat["rate.sum"].to(DTYPE) if "rate.sum" in flat else fresh.rates,
        rated=int(flat.get("rate.count", 0)),
        blank=fresh.blank,
        window=unpack_window(memory, fresh, flat) if "window.count" in flat else (),
        origin=int(flat.get("origin", 0)),
    )


def counts(memory: Memory) -> bool:
    """Whether the rule needs to know how many updates there have been."""
    return mentions(memory.rule, "count") or any(level.period > 1 for level in memory.rule.levels)


def pack(sequences: list[Sequence], memories: Mapping[str, Memory]) -> State:
    """The state of a batch; `memories` are those with a register, by place."""
    state: State = {
        "clock": {
            "sequence": torch.tensor([s.clock for s in sequences]),
            "stream": torch.tensor([s.stream for s in sequences]),
        }
    }
    if any(s.unlearned != NOTHING for s in sequences):
        state["unlearned"] = {"token": torch.tensor([s.unlearned for s in sequences])}
    for place, memory in memories.items():
        flats = [pack_register(memory, s.registers[place]) for s in sequences]
        state[place] = {name: torch.stack([flat[name] for flat in flats]) for name in flats[0]}
    for place in sequences[0].pasts:
        state[place] = {"past": torch.stack([s.pasts[place] for s in sequences])}
    for place in sequences[0].pairs:
        state[place] = pack_pairs([s.pairs[place] for s in sequences])
    return state


def pack_pairs(histories: list[list[Pairs]]) -> dict[str, Tensor]:
    """Attention histories of several lengths, right-aligned: the newest token last, zeros in front.

    Of one pair a token: k (B, tokens, ...); of several: (B, tokens, pairs, ...)."""
    longest = max(len(history) for history in histories)
    if not longest:
        return {}
    rows: dict[str, Tensor] = {}
    for i, name in enumerate(("k", "v")):
        tokens = [[_stacked([pair[i] for pair in token]) for token in history] for history in histories]
        zero = torch.zeros_like(next(history[0] for history in tokens if history))
        rows[name] = torch.stack([torch.stack([zero] * (longest - len(h)) + h) for h in tokens])
    return rows


def _stacked(items: list[Tensor]) -> Tensor:
    return items[0] if len(items) == 1 else torch.stack(items)


def unpack_pairs(flat: Mapping[str, Tensor], several: bool) -> list[Pairs]:
    """The history that `pack_pairs` wrote of one lane, zeros in front included."""
    ks, vs = (flat[name].to(DTYPE) if several else flat[name].to(DTYPE).unsqueeze(1) for name in ("k", "v"))
    return [tuple(zip(k, v, strict=True)) for k, v in zip(ks, vs, strict=True)]


def row_of(state: State, b: int) -> State:
    return {place: {name: x[b] for name, x in flat.items()} for place, flat in state.items()}
