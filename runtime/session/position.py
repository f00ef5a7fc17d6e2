"""Where a model is in a stream: the state after what it has learned from, and the tokens whose lessons wait.

What a level has written is seen by reads at borders alone: where its chunk or its period ends.  From one border to the
next a token is read as if nothing were learned, in one pass over the weights.  What all of them teach is learned at the
border, in one pass over all of them.  So a token that is generated costs one reading, and any split of a stream is
still the whole: it is the same sum, made later.  Who asks for the state before a border gets it, and what is read after
that goes on from the same tensors as if nobody had: the numbers are the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from runtime.model import Clock, State
from runtime.ops.one import reading_one
from runtime.ops.watch import Watched
from runtime.precision import autocast
from runtime.session import near
from runtime.session.tape import Bound, Tape, record
from runtime.state import settled
from runtime.trained import Trained

MOST = 64  # tokens that wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tokens (1, n) that are read and not learned from, the state before them, and what the next one's reads see."""

    tokens: Tensor
    learned: State
    seen: State


@dataclass(frozen=True, slots=True)
class First:
    """The first token that is not learned from: its clocks, and how many tokens there are from it to a border."""

    clock: Clock
    room: int


class Position:
    """A position is a value: reading gives another.  state: after the last call of the model; None: of no tokens."""

    def __init__(
        self,
        trained: Trained,
        learn: frozenset[str],
        state: State | None = None,
        waiting: tuple[Tensor, ...] = (),
        seen: State | None = None,
        at: First | None = None,
        tape: Tape | Bound | None = None,
    ) -> None:
        self.trained, self.learn = trained, learn
        self._learned = state
        self._waiting = waiting  # (1, 1) each, read since then
        self._seen = seen  # what the next token's reads see; None: what `_learned` shows them
        self._at = at  # once somebody has looked
        self._tape = tape  # of reading a token, and once one was read from `_seen`, with what it sees
        self._whole: State | None = None  # what `state` has computed

    @property
    def state(self) -> State | None:
        """The state after every token read, all lessons learned; None where nothing was read."""
        if not self._waiting:
            return self._learned
        if self._whole is None:
            _, self._whole = self._read(torch.cat(self._waiting, 1))
        return self._whole

    @property
    def waiting(self) -> Waiting | None:
        """What goes on from here to the bit, besides the state, where tokens wait."""
        if self._learned is None or self._seen is None or not self._waiting:
            return None
        return Waiting(torch.cat(self._waiting, 1), self._learned, settled(self._seen))

    @classmethod
    def resumed(cls, trained: Trained, learn: frozenset[str], waiting: Waiting) -> Position:
        tokens = tuple(waiting.tokens[:, i : i + 1] for i in range(waiting.tokens.shape[1]))
        return cls(trained, learn, waiting.learned, tokens, near.registers(waiting.seen))

    def learning(self, learn: frozenset[str]) -> Position:
        """The same place, from where other levels learn."""
        return Position(self.trained, learn, self.state)

    @torch.no_grad()
    def after(self, tokens_BT: Tensor, border: bool = False) -> tuple[Tensor, Position]:
        """Logits (1, T, vocab) and the position after one stream's tokens; at a `border` they begin a document."""
        if border and (state := self.state) is not None:
            starts_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
            starts_BT[:, 0] = True
            logits_BTV, state = Position(self.trained, self.learn, state)._read(tokens_BT, starts_BT)
        elif tokens_BT.shape[1] == 1 and self._may_wait():
            return self._glanced(tokens_BT)
        elif tokens_BT.shape[1] == 1 and self._may_begin():
            return self._begun(tokens_BT)
        else:
            logits_BTV, state = self._read(torch.cat((*self._waiting, tokens_BT), 1))
        tape = self._tape.tape if isinstance(self._tape, Bound) else self._tape
        return logits_BTV[:, -tokens_BT.shape[1] :], Position(self.trained, self.learn, state, tape=tape)

    def _read(self, tokens_BT: Tensor, starts_BT: Tensor | None = None) -> tuple[Tensor, State]:
        """Learn from tokens after `_learned`."""
        model = self.trained.model
        with torch.no_grad(), autocast(self.trained.settings.precision, tokens_BT.device):
            if not self.learn and starts_BT is None:
                logits_BTV, state = model.unlearning(tokens_BT, self._learned)
            else:
                logits_BTV, state = model(tokens_BT, self._learned, starts=starts_BT, learn=self.learn)
            return logits_BTV, settled(state)

    def _may_wait(self) -> bool:
        """Whether no border lies between the first token that is not learned from and the next one."""
        return self._learned is not None and len(self._waiting) < MOST and self._late() < self._first().room

    def _may_begin(self) -> bool:
        """Whether all that wait can be learned from and the one after the next can wait."""
        return self._learned is not None and bool(self.learn) and self._to_border(self._next()) > 1

    def _first(self) -> First:
        assert self._learned is not None
        if self._at is None:
            clock = self.trained.model.clock(self._learned)
            self._at = First(clock, self._to_border(clock))
        return self._at

    def _next(self) -> Clock:
        """The clocks at the next token."""
        late = self._late()
        return {name: at + late for name, at in self._first().clock.items()}

    def _to_border(self, clock: Clock) -> int:
        """How many tokens there are from one on to the next border; 0 where none may wait."""
        model = self.trained.model
        if model.shown is None or model.ending:
            return 0
        borders = [border for level in model.shown.values() for border in level.items()]
        return min((n - clock[name] % n for name, n in borders), default=2 * MOST)

    def _held(self) -> Tensor | None:
        """The token (1,) that the state keeps, which is not learned from; those that wait come after it."""
        return None if self._learned is None else self._learned.get("unlearned", {}).get("token")

    def _late(self) -> int:
        """How many tokens are not learned from."""
        return (self._held() is not None) + len(self._waiting)

    def _begun(self, token_BT: Tensor) -> tuple[Tensor, Position]:
        """Learn from all before a token, and read it as those after it will be."""
        assert self._learned is not None
        model, tokens_BT = self.trained.model, torch.cat((*self._waiting, token_BT), 1)
        with autocast(self.trained.settings.precision, token_BT.device):
            learned = settled(model.observed(tokens_BT, self._learned, self.learn))
        tape = self._tape.tape if isinstance(self._tape, Bound) else self._tape
        logits_BTV, then = Position(self.trained, self.learn, learned, tape=tape)._opened()
        assert logits_BTV is not None
        return logits_BTV, then

    def _opened(self) -> tuple[Tensor | None, Position]:
        """The same place with what the next token's reads see, and the logits of the token that is not learned from.

        Where this is the first of a chunk it is read as no other is, so nothing is recorded of it.
        """
        assert self._learned is not None
        held, seen, logits_BTV = self._held(), near.registers(self._learned), None
        if held is not None:
            logits_BTV, seen = self._read_one(held[:, None], seen, self._first().clock)
        return logits_BTV, Position(self.trained, self.learn, self._learned, (), seen, self._first(), self._tape)

    def _glanced(self, token_BT: Tensor) -> tuple[Tensor, Position]:
        """Read a token, whose lesson waits."""
        if self._seen is None:
            return self._opened()[1]._glanced(token_BT)
        logits_BTV, after, tape = self._looked(token_BT, self._seen)
        waiting = (*self._waiting, token_BT)
        return logits_BTV, Position(self.trained, self.learn, self._learned, waiting, after, self._first(), tape)

    def _looked(self, token_BT: Tensor, seen: State) -> tuple[Tensor, State, Tape | Bound | None]:
        """Logits, what the next token's reads see, and how they are found again for the next token."""
        model, tape = self.trained.model, self._tape.of(seen) if isinstance(self._tape, Tape) else self._tape
        if tape is not None:
            with reading_one():
                return *tape.read(token_BT, seen), tape
        at_once = self.learn.difference(model.shown or ())
        if at_once or not (model.steady and Watched.by is None and self._plain(token_BT)):
            return *self._read_one(token_BT, seen, self._next()), None
        with reading_one():
            look = partial(model.glance, clock=self._next(), learn=at_once)
            logits_BTV, after, tape = record(look, token_BT, seen, model.parameters())
        return logits_BTV, settled(after, seen), tape

    def _read_one(self, token_BT: Tensor, seen: State, clock: Clock) -> tuple[Tensor, State]:
        """Logits, and what the next token's reads see, by the model itself."""
        model, precision = self.trained.model, self.trained.settings.precision
        with reading_one() if self._plain(token_BT) else autocast(precision, token_BT.device):
            logits_BTV, after = model.glance(token_BT, seen, clock, self.learn.difference(model.shown or ()))
        return logits_BTV, settled(after, seen)

    def _plain(self, token_BT: Tensor) -> bool:
        """Whether a token goes through the products that are made for one."""
        return token_BT.is_cpu and self.trained.settings.precision != "bfloat16"
