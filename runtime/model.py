"""What every generated model is: parameters named by the spec, a state that can be fed back, any layout of documents.

A generated file defines `start` and `run` for rows of tokens that share all clocks.  This module turns what a caller
has (sequences that go on from a state, documents packed in one row, padding) into such rows and puts the results back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.inference import outside_inference
from runtime.layer import Layer
from runtime.recordings import Recordings
from runtime.sequenced import Sequenced
from runtime.spans import Again, in_spans
from runtime.state import (
    Clock,
    State,
    begin,
    count,
    detached,
    layer_of,
    rows_of,
    with_layer,
)
from runtime.weights import Weights, constant, identity, normal

__all__ = [
    "Clock",
    "LanguageModel",
    "Layer",
    "State",
    "Weights",
    "begin",
    "constant",
    "detached",
    "identity",
    "layer_of",
    "nats_of",
    "normal",
    "with_layer",
]

IGNORED = -100  # a target that teaches nothing
NOTHING = -1  # no token is waiting for its target


def mean(nats: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of nats (B, T) over the tokens that have a target and are no padding."""
    taught = targets != IGNORED if mask is None else (targets != IGNORED) & mask.to(targets.device)
    return nats.sum() / taught.sum().clamp(min=1)


def nats_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token in nats (B, T), 0 where the target is ignored."""
    return F.cross_entropy(logits.mT, targets, reduction="none", ignore_index=IGNORED)


@dataclass
class Row:
    """One document, or a part of one, of one lane."""

    lane: int
    tokens: Tensor  # (n,)
    targets: Tensor  # (n,) IGNORED where nothing is taught
    places: Tensor  # (n,), on the host: where in the lane's output each token's result goes; -1 for a token fed again
    fresh: bool  # begins at a document border


@dataclass
class Part:
    """Some tokens of a run, from any state; run again for its gradient it counts nothing."""

    model: LanguageModel
    clock: Clock
    final: bool
    learn: frozenset[str]

    def __call__(self, given: list[Tensor], state: State) -> tuple[list[Tensor], State]:
        counted = dict(self.model.fires)
        logits, nats, state = self.model.run(*given, state, self.clock, self.final, self.learn)
        self.model.fires = counted if Again.now else self.model.fires
        return [logits, nats], state

    @property
    def pattern(self) -> Hashable:
        """What its operations depend on, beside its tokens and the state: not on which span of a sequence it is."""
        return self.final, self.learn, *(ticks % (self.model.span or 1) for ticks in self.clock.values())


class LanguageModel(Sequenced):
    """Tokens in, logits and loss out.

    A generated subclass gives
        start(B) -> State                                       every memory's initial state for B sequences
        run(tokens_BT, targets_BT, state, clock, final, learn)  -> (logits_BTV, nats_BT, state), rows sharing all clocks
        peek(tokens_B1, state, clock, learn) -> logits_B1V      logits without learning from the tokens
    """

    vocab: int
    span: int | None = None  # tokens whose activations are in memory at a time; None: those of all
    recordings: Recordings | None = None  # of training steps, where a run wants them recorded

    def start(self, B: int) -> State:
        raise NotImplementedError

    def run(
        self, tokens: Tensor, targets: Tensor, state: State, clock: Clock, final: bool, learn: frozenset[str]
    ) -> tuple[Tensor, Tensor, State]:
        raise NotImplementedError

    def spanned(
        self, tokens: Tensor, targets: Tensor, state: State, clock: Clock, final: bool, learn: frozenset[str]
    ) -> tuple[Tensor, Tensor, State]:
        """`run`; to be differentiated it goes span by span, each of which is run again for its gradient."""
        T = tokens.shape[1]
        if self.span is None or not torch.is_grad_enabled():
            return self.run(tokens, targets, state, clock, final, learn)

        def part(a: int, b: int, at: Clock) -> Part:
            return Part(self, at, final and b == T, learn)

        why_not = "" if self.steady else "what a span computes depends on where in the sequence it is"
        graphs = self.recordings if self.recordings is not None and self.recordings.wanted(why_not) else None
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        (logits, nats), state = in_spans(part, [tokens, targets], T, state, clock, self.span, weights, graphs)
        return logits, nats, state

    def peek(self, tokens: Tensor, state: State, clock: Clock, learn: frozenset[str]) -> Tensor:
        """Only what the token's own reads see is written: the state is dropped."""
        seen = learn if self.at_once is None else learn.intersection(self.at_once)
        return self.run(tokens, torch.full_like(tokens, IGNORED), state, clock, True, seen)[0]

    def glance(self, tokens: Tensor, state: State, clock: Clock, learn: frozenset[str]) -> tuple[Tensor, State]:
        """Logits, and what later tokens read: the state in which nothing but the levels of `learn` has written."""
        counted = dict(self.fires)
        logits, _, state = self.run(tokens, torch.full_like(tokens, IGNORED), state, clock, False, learn)
        self.fires = counted  # these tokens are run again
        return logits, state

    @outside_inference
    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        starts: Tensor | None = None,
        mask: Tensor | None = None,
        learn: bool | Collection[str] = True,
    ) -> tuple[Tensor, State]:
        """Logits (B, T, vocab) and the state after them.

        tokens (B, T) integers; `starts` (B, T) bool: first token of a document; `mask` (B, T) bool: False is padding.
        Each token is the target of the one before it.  What the last one teaches is not known yet: the state stops
        before it and keeps it, so that any split of a sequence equals the whole.
        """
        allowed = self.learning(learn)
        self._check(tokens, None, starts, mask, state)
        state, held = self._resumed(tokens, state)
        if starts is None and mask is None and self._uniform(state, held):
            fed = self._fed(tokens, held)
            before, state = self._taught(fed, state, allowed)
            logits = torch.cat((*before, self.peek(fed[:, -1:], state, self.clock(state), allowed)), 1)
            return logits[:, -tokens.shape[1] :], self._waiting(fed, state, allowed)
        rows = self._rows(tokens, None, starts, mask, held)
        logits, _, state, waiting = self._scatter(rows, state, tokens.shape, allowed, False, peeking=True)
        waiting = torch.where(waiting == NOTHING, held.to(waiting.device), waiting)
        return logits, self._all_closed(state, allowed) | {"unlearned": {"token": waiting}}

    @outside_inference
    def observed(self, tokens: Tensor, state: State, learn: bool | Collection[str] = True) -> State:
        """The state of `forward(tokens, state, learn=learn)`, for who wants no logits: the last token is not read.

        Raises ValueError where the sequences of the state have fallen out of step.
        """
        allowed = self.learning(learn)
        self._check(tokens, None, None, None, state)
        state, held = self._resumed(tokens, state)
        self._refuse_apart(state, held)
        fed = self._fed(tokens, held)
        return self._waiting(fed, self._taught(fed, state, allowed)[1], allowed)

    def unlearning(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits and the state after all of `tokens`, of which nothing is learned: so none waits for its target.

        Raises ValueError where the sequences of the state have fallen out of step.
        """
        return self.told(tokens, torch.full_like(tokens, IGNORED), state, learn=False)

    @outside_inference
    def told(
        self, tokens: Tensor, targets: Tensor, state: State | None = None, learn: bool | Collection[str] = True
    ) -> tuple[Tensor, State]:
        """Logits and the state after all of `tokens`, of which each one's target is said: IGNORED (-100) where a memory
        that learns from the loss is to learn nothing.  So no token waits for its target.

        Raises ValueError where the sequences of the state have fallen out of step.
        """
        allowed = self.learning(learn)
        self._check(tokens, targets, None, None, state)
        state, held = self._resumed(tokens, state)
        self._refuse_apart(state, held)
        fed, taught = tokens, targets
        if int(held[0]) != NOTHING:
            fed, taught = torch.cat((held[:, None], tokens), 1), torch.cat((tokens[:, :1], targets), 1)
        if not allowed:
            taught = torch.full_like(fed, IGNORED)
        logits, _, state = self.run(fed, taught, state, self.clock(state), False, allowed)
        return logits[:, -tokens.shape[1] :], self.closed(self.advanced(state, fed.shape[1]), allowed)

    @outside_inference
    def predicted(self, tokens: Tensor, targets: Tensor, learn: bool | Collection[str] = True) -> Tensor:
        """Logits (B, T, vocab) of whole sequences, of which each token's target is said as in `told`: IGNORED (-100)
        where a memory that learns from the loss is to learn nothing.  The others learn what they always do."""
        self._check(tokens, targets, None, None, None)
        state, _ = self._resumed(tokens, None)
        allowed = self.learning(learn)
        taught = targets if allowed else torch.full_like(tokens, IGNORED)
        return self.run(tokens, taught, state, self.clock(state), True, allowed)[0]

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State | None = None,
        starts: Tensor | None = None,
        mask: Tensor | None = None,
        final: bool = False,
        learn: bool | Collection[str] = True,
    ) -> tuple[Tensor, State | None]:
        """Mean cross-entropy in nats over the tokens whose target is not ignored (-100), and the state after them.

        `final`: nobody wants the state.  What only it would show is not computed, and None is in its place.
        """
        graphs = self.recordings if learn is True and self.span is None else None
        if graphs is not None and graphs.wanted(self._not_recorded(state, starts, mask, final)):
            return graphs.loss(self, [tokens, targets], lambda x, y: mean(self.nats(x, y, final=True)[0], y)), None
        nats, state = self.nats(tokens, targets, state, starts, mask, final, learn)
        return mean(nats, targets, mask), state

    def _not_recorded(self, state: State | None, starts: Tensor | None, mask: Tensor | None, final: bool) -> str:
        """Why a graph cannot hold the loss of these sequences: "" where it can."""
        if state is not None:
            return "sequences go on from a state"
        if starts is not None or mask is not None:
            return "documents end inside of a sequence"
        return "" if final else "the state after a step is read"

    @outside_inference
    def nats(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State | None = None,
        starts: Tensor | None = None,
        mask: Tensor | None = None,
        final: bool = False,
        learn: bool | Collection[str] = True,
    ) -> tuple[Tensor, State | None]:
        """Cross-entropy of every token in nats (B, T), 0 where the target is ignored, and the state after them."""
        allowed = self.learning(learn)
        self._check(tokens, targets, starts, mask, state)
        state, held = self._resumed(tokens, state)
        if starts is None and mask is None and self._uniform(state, held):
            T = tokens.shape[1]
            if int(held[0]) != NOTHING:
                tokens, targets = torch.cat((held[:, None], tokens), 1), torch.cat((tokens[:, :1], targets), 1)
            _, nats, state = self.spanned(tokens, targets, state, self.clock(state), final, allowed)
            nats = nats[:, -T:]
            return nats, None if final else self.closed(self.advanced(state, tokens.shape[1]), allowed)
        rows = self._rows(tokens, targets, starts, mask, held)
        _, nats, state, _ = self._scatter(rows, state, tokens.shape, allowed, final, peeking=False)
        return nats, None if final else self._all_closed(state, allowed)

    # ---- layout -----------------------------------------------------------------------------------------------------

    def _check(
        self, tokens: Tensor, targets: Tensor | None, starts: Tensor | None, mask: Tensor | None, state: State | None
    ) -> None:
        if tokens.dim() != 2 or tokens.shape[1] < 1 or tokens.is_floating_point():
            raise ValueError(
                f"tokens: got {tokens.dtype} of shape {tuple(tokens.shape)}, expected integers (batch, time >= 1)"
            )
        for name, x in (("targets", targets), ("starts", starts), ("mask", mask)):
            if x is not None and x.shape != tokens.shape:
                raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected that of tokens, {tuple(tokens.shape)}")
        if state is not None and count(state) != len(tokens):
            raise ValueError(f"state: it holds {count(state)} sequences, the batch has {len(tokens)}")

    def _resumed(self, tokens: Tensor, state: State | None) -> tuple[State, Tensor]:
        if state is None:
            with torch.enable_grad():  # a memory that has not moved is known by being its start, gradient and all
                state = self.start(len(tokens)) | {"clock": self.fresh_clock(len(tokens))}
        held = state.get("unlearned", {}).get("token")
        nothing = torch.full((len(tokens),), NOTHING, dtype=tokens.dtype, device="cpu")  # a look at it waits for nobody
        state = self.opened({p: r for p, r in state.items() if p != "unlearned"})
        return state, nothing if held is None else held

    def _uniform(self, state: State, held: Tensor) -> bool:
        waiting = held != NOTHING
        return bool((waiting == waiting[0]).all()) and self.shared_clock(state)

    def _refuse_apart(self, state: State, held: Tensor) -> None:
        if not self._uniform(state, held):
            raise ValueError("state: its sequences have different lengths; read them one group at a time")

    def _fed(self, tokens: Tensor, held: Tensor) -> Tensor:
        """The tokens to go on with: the one that the state keeps comes first."""
        return torch.cat((held[:, None], tokens), 1) if int(held[0]) != NOTHING else tokens

    def _taught(self, fed: Tensor, state: State, learn: frozenset[str]) -> tuple[list[Tensor], State]:
        """Logits of all tokens but the last, if there are others, and the state after them: each one's target is the
        next."""
        if fed.shape[1] == 1:
            return [], state
        logits, _, state = self.run(fed[:, :-1], fed[:, 1:], state, self.clock(state), False, learn)
        return [logits], self.advanced(state, fed.shape[1] - 1)

    def _waiting(self, fed: Tensor, state: State, learn: frozenset[str]) -> State:
        """The state at the end of a call, with the token that waits for its target."""
        return self.closed(state, learn) | {"unlearned": {"token": fed[:, -1].clone()}}

    def _rows(
        self, tokens: Tensor, targets: Tensor | None, starts: Tensor | None, mask: Tensor | None, held: Tensor
    ) -> list[list[Row]]:
        """The documents of each lane, padding removed, the waiting token fed first.  Laid out on the host."""
        lanes, device = [], tokens.device
        starts, mask = (x if x is None else x.cpu() for x in (starts, mask))
        for b in range(len(tokens)):
            keep = torch.arange(tokens.shape[1], device="cpu")
            keep = keep if mask is None else keep[mask[b].bool()]
            ids = tokens[b, keep]
            begins = torch.zeros_like(keep, dtype=torch.bool) if starts is None else starts[b, keep].bool()
            if targets is not None:
                taught = targets[b, keep]
            else:  # the next token, unless it belongs to another document
                following = torch.cat((ids[1:], ids.new_full((1,), IGNORED)))[: len(ids)]
                ends = torch.cat((begins[1:], begins.new_zeros(1)))[: len(ids)]
                taught = torch.where(ends.to(device), IGNORED, following)
            if int(held[b]) != NOTHING and len(ids):
                first = torch.where(begins[:1].to(device), torch.full_like(ids[:1], IGNORED), ids[:1])
                ids, taught = torch.cat((held[b : b + 1], ids)), torch.cat((first, taught))
                begins, keep = torch.cat((begins.new_zeros(1), begins)), torch.cat((keep.new_full((1,), -1), keep))
            borders = [0, *(i for i in begins.nonzero().flatten().tolist() if i), len(ids)]
            lanes.append([
                Row(b, ids[i:j], taught[i:j], keep[i:j], bool(begins[i]))
                for i, j in pairwise(borders) if j > i
            ])  # fmt: skip
        return lanes

    def _scatter(
        self,
        lanes: list[list[Row]],
        state: State,
        shape: torch.Size,
        learn: frozenset[str],
        final: bool,
        peeking: bool,
    ) -> tuple[Tensor, Tensor, State, Tensor]:
        """Run every document, put logits and nats back at their tokens; the state of each lane's last document."""
        B, T = shape
        lane_states = [rows_of(state, torch.tensor([b], device="cpu")) for b in range(B)]
        device = next(iter(self.parameters())).device
        waiting = torch.full((B,), NOTHING, dtype=torch.long, device=device)
        logits_at: list[tuple[Tensor, Tensor]] = []
        nats_at: list[tuple[Tensor, Tensor]] = []
        # Documents are independent unless a memory survives the border; then a lane's documents wait for one another.
        depth = max((len(rows) for rows in lanes), default=0)
        waves = [[rows[i] for rows in lanes if i < len(rows)] for i in range(depth)]
        if not self.streams:
            waves = [[row for wave in waves for row in wave]]
        for wave in waves:
            lane_of = [(row, lane_states[row.lane]) for row in wave]
            ready = [(row, self.bordered(state) if row.fresh else state) for row, state in lane_of]
            unread = final and not self.streams  # a lane's next document reads a stream
            for row, logits, nats, after, left in self._together(ready, learn, unread, lanes, peeking):
                at = torch.where(row.places < 0, row.places, row.lane * T + row.places)
                logits_at.append((at, logits))
                nats_at.append((at, nats))
                if row is lanes[row.lane][-1] or self.streams:
                    lane_states[row.lane] = after
                    waiting[row.lane] = left
        return (
            self._placed(logits_at, (B, T, self.vocab)),
            self._placed(nats_at, (B, T)),
            self.joined(lane_states),
            waiting,
        )

    def _placed(self, found: list[tuple[Tensor, Tensor]], shape: tuple[int, ...]) -> Tensor:
        """Results at their tokens, 0 at padding; results of tokens that were fed again are dropped."""
        out = next(iter(self.parameters())).new_zeros(math.prod(shape[:2]), *shape[2:])
        if not found:
            return out.view(shape)
        at, values = torch.cat([a for a, _ in found]), torch.cat([v for _, v in found])
        kept = (at >= 0).nonzero().flatten()  # known on the host
        values = values.index_select(0, kept.to(out.device)).to(out.dtype)
        return out.index_copy(0, at[kept].to(out.device), values).view(shape)

    def bordered(self, state: State) -> State:
        """The state at a document border: all but the streams begins again."""
        fresh = self.start(1)
        lane = ("stream", *self.streams)
        clock = {name: at if name in lane else torch.zeros_like(at) for name, at in state["clock"].items()}
        kept = {place: register for place, register in state.items() if self.streaming(place)}
        return fresh | kept | {"clock": clock}

    def _together(
        self,
        ready: list[tuple[Row, State]],
        learn: frozenset[str],
        final: bool,
        lanes: list[list[Row]],
        peeking: bool,
    ) -> Iterable[tuple[Row, Tensor, Tensor, State, Tensor]]:
        """Rows with equal clocks run as one batch, which is cut, and made smaller, wherever a row ends."""
        groups: dict[tuple[int, ...], list[tuple[Row, State]]] = {}
        for row, state in ready:
            groups.setdefault(tuple(int(at[0]) for at in state["clock"].values()), []).append((row, state))
        for members in groups.values():
            # The last token of a lane's last document is read, not learned from, when its target is still to come.
            def length(row: Row) -> int:
                return len(row.tokens) - (peeking and row is lanes[row.lane][-1])

            members.sort(key=lambda member: length(member[0]))
            rows = [row for row, _ in members]
            state, done = self.joined([s for _, s in members]), 0
            logits: list[list[Tensor]] = [[] for _ in rows]
            nats: list[list[Tensor]] = [[] for _ in rows]
            i = 0
            while i < len(rows):
                end = length(rows[i])
                if end > done:
                    tokens = torch.stack([row.tokens[done:end] for row in rows[i:]])
                    targets = torch.stack([row.targets[done:end] for row in rows[i:]])
                    last = final and end == length(rows[-1])
                    out, each, state = self.spanned(tokens, targets, state, self.clock(state), last, learn)
                    state = self.advanced(state, end - done)
                    for j in range(i, len(rows)):
                        logits[j].append(out[j - i])
                        nats[j].append(each[j - i])
                    done = end
                while i < len(rows) and length(rows[i]) == done:
                    row, own = rows[i], rows_of(state, torch.tensor([0], device="cpu"))
                    left = row.tokens.new_tensor(NOTHING)
                    if length(row) < len(row.tokens):
                        left = row.tokens[-1]
                        logits[i].append(self.peek(row.tokens[None, -1:], own, self.clock(own), learn)[0])
                        nats[i].append(logits[i][-1].new_zeros(1))
                    yield row, torch.cat(logits[i]), torch.cat(nats[i]), own, left
                    i += 1
                    if i < len(rows):
                        state = rows_of(state, torch.arange(1, count(state), device="cpu"))

    def _all_closed(self, state: State, learn: frozenset[str]) -> State:
        """`closed` for rows whose clocks may differ."""
        if self.shared_clock(state):
            return self.closed(state, learn)
        return self.joined(
            [self.closed(rows_of(state, torch.tensor([b], device="cpu")), learn) for b in range(count(state))]
        )
