"""What language models and bare programs share: levels that write, clocks, states that calls hand on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from runtime.ops.boundaries import gathered, handed_over
from runtime.ops.boxes import Apart
from runtime.state import Clock, State, count, held_parts, joined, short
from runtime.weights import Weights


class Sequenced(Weights):
    """What language models and bare programs share: levels that write, and clocks."""

    writing: tuple[str, ...] = ()  # names of the levels that write inside a sequence, fastest first
    at_once: tuple[str, ...] | None = None  # those of them whose writes the same token's reads see; None: any may be
    # level -> clocks, and how many ticks of each lie between the borders at which reads see what the level has written;
    # one that is left out shows a write at once, or at the next token; None: any may
    shown: Mapping[str, Mapping[str, int]] | None = None
    steady = False  # whether a token between two such borders is read by the same operations wherever it is
    streams: tuple[str, ...] = ()  # places (without the layer) whose state survives a document border
    apart: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # levels whose memories tick by several clocks: these

    def __init__(self) -> None:
        super().__init__()
        self.fires: dict[str, int] = dict.fromkeys(self.writing, 0)

    def learning(self, learn: bool | Collection[str]) -> frozenset[str]:
        """The levels that write.  Raises ValueError for a name that is none of them."""
        if isinstance(learn, bool):
            return frozenset(self.writing if learn else ())
        unknown = sorted(set(learn) - set(self.writing))
        if unknown:
            raise ValueError(
                f"learn: no level {unknown[0]!r} writes inside a sequence; levels: {', '.join(self.writing)}"
            )
        return frozenset(learn)

    def fired(self, level: str, times: int) -> None:
        self.fires[level] = self.fires.get(level, 0) + times

    def ticks(self, level: str, period: int, clock: Clock, tokens: int) -> int:
        """How many of the next tokens end a period of some memory of a level whose memories tick by several clocks."""
        phases = {clock[name] % period for name in self.apart[level]}
        return sum((phase + tokens) // period for phase in phases)

    @property
    def ending(self) -> frozenset[str]:
        """The places of memories whose part chunk no call outlives."""
        return frozenset(place for block in self.blocks for place in block.tails)

    def clock(self, state: State) -> Clock:
        """The clocks of a state whose rows share them."""
        return {name: int(ticks[0]) for name, ticks in state["clock"].items()}

    def shared_clock(self, state: State) -> bool:
        return all(bool((ticks == ticks[0]).all()) for ticks in state["clock"].values())

    def fresh_clock(self, B: int) -> dict[str, Tensor]:
        """Clocks live on the host, whatever the device: what a run computes follows from them."""
        return {name: torch.zeros(B, dtype=torch.long, device="cpu") for name in ("sequence", "stream")}

    def opened(self, state: State) -> State:
        """With a clock for each memory whose tail no call outlives: tokens since the `origin` in its register."""
        clock = dict(state["clock"])
        for place in self.ending:
            register = next((r for p, r in state.items() if short(p) == place), {})
            base = clock["stream" if place in self.streams else "sequence"]
            clock[place] = base - register.get("origin", 0)
        alone = {place: dict(r) if isinstance(r, Apart) else r for place, r in state.items()}
        return {place: handed_over(register) for place, register in alone.items()} | {"clock": clock}

    def advanced(self, state: State, ticks: int) -> State:
        return state | {"clock": {name: at + ticks for name, at in state["clock"].items()}}

    def closed(self, state: State, learn: frozenset[str]) -> State:
        """The state at the end of a call: part chunks handled as `tail:` says, streams detached."""
        state = self.filled(state)
        out, early, ending = dict(state), set(), self.ending
        for place, register in state.items():
            level, tail, period = self.tail(place)
            if tail == "flush":
                if level in learn and int(state["clock"][short(place)][0]) % period:
                    register = self.written(place, register)
                    if all(int(state["clock"][name][0]) % period for name in self.apart.get(level, ())):
                        early.add(level)  # and none of its memories has fired at the last token
                register = register | {f"held.{part}": register[part] for part in held_parts(register)}
            elif tail == "drop":
                register = register | {part: register[f"held.{part}"] for part in held_parts(register)}
                register = {part: x for part, x in register.items() if not gathered(part)}
            if self.streaming(place):
                register = {part: x.detach() for part, x in register.items()}
            out[place] = register
        for level in sorted(early):
            self.fired(level, 1)
        out["clock"] = {name: at for name, at in state["clock"].items() if name not in ending}
        for place in [p for p in out if short(p) in ending]:
            at = out["clock"]["stream" if self.streaming(place) else "sequence"]
            out[place] = out[place] | {"origin": at}
        return out

    def tail(self, place: str) -> tuple[str, str, int]:
        """Level, flush | drop and period of a memory whose part chunk no call outlives; blanks of any other."""
        word, _, below = place.partition(".")
        layer, _, name = below.partition(".")
        return self.blocks[int(layer)].tails.get(name, ("", "", 1)) if word == "blocks" else ("", "", 1)

    def written(self, place: str, register: dict[str, Tensor]) -> dict[str, Tensor]:
        """A register after the write of what its period has gathered: by the method write_<place> of its block."""
        _, layer, short = place.split(".", 2)
        write = getattr(self.blocks[int(layer)], "write_" + "".join(c if c.isalnum() else "_" for c in short))
        return write(register)  # type: ignore[no-any-return]

    def joined(self, states: list[State]) -> State:
        """One state whose rows are those of all."""
        parts = [{(place, part) for place, register in s.items() for part in register} for s in states]
        return joined([self.filled(s) for s in states] if any(p != parts[0] for p in parts) else states)

    def filled(self, state: State) -> State:
        """With the registers of memories that no sequence has written yet, which runs leave out."""
        like = next(self.parameters(), torch.empty(()))  # clocks, all that a state may hold so far, are whole numbers
        for i, block in enumerate(self.blocks):
            for place, register in block.unwritten(count(state), like).items():
                state = state | {f"blocks.{i}.{place}": register | state.get(f"blocks.{i}.{place}", {})}
        return state

    def streaming(self, place: str) -> bool:
        return short(place) in self.streams
