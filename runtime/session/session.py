"""A stream of tokens that a trained model reads and goes on with; what its memories learn stays from call to call.

    session = Session(find("runs/first"))
    session.read(session.ids("once upon"))
    for token in session.generate(100, Sampling(temperature=0.8)): ...
    session.save("state");  Session.load("state", find("runs/first"))

Any split of the tokens into calls, and any save and load between them, gives what one call gives; a save between two
tokens that are generated changes nothing, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from runtime.data.pieces import unreadable
from runtime.data.tokens import Tokenizer
from runtime.device import moved
from runtime.errors import USAGE, DataError, RunError
from runtime.model import State
from runtime.session import near, saved
from runtime.session.levels import named
from runtime.session.memories import Moved, described
from runtime.session.position import Position, Waiting
from runtime.session.sampling import Sampling
from runtime.session.surprise import Surprise
from runtime.trained import Trained

PIECE = 512  # tokens of a long text that go through the model at once

Learn = bool | Collection[str]


@dataclass(slots=True)
class Stream:
    """Where a stream is: the model's state after the tokens read, and what is known of the next one."""

    position: Position
    logits: Tensor | None = None  # (vocab,) of the next token
    tokens: int = 0  # read
    surprise: Surprise = field(default_factory=Surprise)
    border: bool = False  # the next token begins a document

    @property
    def state(self) -> State | None:
        """After the tokens read, with all they teach; None where nothing was read."""
        return self.position.state


class Session:
    """One stream and a model that reads it.

    learn: whether the levels inside a sequence write: all, none, or those named; may be set at any time.
    seed: of what is drawn.
    """

    def __init__(self, trained: Trained, *, learn: Learn = True, seed: int = 0) -> None:
        self.trained, self.model = trained, trained.model
        self.model.eval().requires_grad_(False)
        near.lay(self.model)
        self.learn = learn
        self.generator = torch.Generator().manual_seed(seed)
        self.drawable = trained.codec.vocab if isinstance(trained.codec, Tokenizer) else 256  # others have no text
        self.reset()

    @property
    def learn(self) -> frozenset[str]:
        return self._learn

    @learn.setter
    def learn(self, learn: Learn) -> None:
        self._learn = named(self.model.writing, learn)
        if hasattr(self, "stream"):
            self.stream.position = self.stream.position.learning(self._learn)

    @property
    def device(self) -> torch.device:
        """Where the model is, and so the state."""
        return self.model["embedding"].device

    @property
    def tokens(self) -> int:
        """Tokens read since the beginning of the stream."""
        return self.stream.tokens

    # ---- reading ----------------------------------------------------------------------------------------------------

    def ids(self, text: bytes | str, name: str = "the text") -> Tensor:
        """The tokens of a text.  Raises DataError where a tokenizer is given what is not UTF-8."""
        codec = self.trained.codec
        if not isinstance(codec, Tokenizer):
            data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            return torch.frombuffer(bytearray(data), dtype=torch.uint8).long() if data else torch.zeros(0).long()
        try:
            return torch.tensor(codec.ids(text.decode() if isinstance(text, bytes) else text), dtype=torch.long)
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,} is not UTF-8"
            raise DataError(f"{name}: {found}, which a tokenizer needs") from None

    def feed(self, tokens: Tensor | Sequence[int]) -> Tensor:
        """Read tokens, all at once; their logits (T, vocab).  Raises RunError for one outside the vocabulary."""
        ids_T = torch.as_tensor(tokens, dtype=torch.long)
        count = ids_T.numel()
        if ids_T.dim() != 1 or not count:
            raise RunError(f"tokens: got shape {tuple(ids_T.shape)}, expected one sequence of at least one", USAGE)
        low, high = (ids_T.item(),) * 2 if count == 1 else (int(x) for x in ids_T.aminmax())
        if low < 0 or high >= self.model.vocab:
            wrong = low if low < 0 else high
            raise RunError(f"token {wrong} is outside the vocabulary of {self.model.vocab}", USAGE)
        stream = self.stream
        logits_BTV, position = stream.position.after(ids_T.view(1, -1).to(self.device), stream.border)
        logits_TV = logits_BTV[0]
        found = self._surprise(ids_T, logits_TV)
        self.before, self.fed, self.found = stream.position, count, found
        self.stream = Stream(position, logits_TV[-1], stream.tokens + count, stream.surprise + found)
        return logits_TV

    def _surprise(self, ids_T: Tensor, logits_TV: Tensor) -> Surprise:
        """Of the tokens that had one before them in their document."""
        before = None if self.stream.border else self.stream.logits
        if ids_T.numel() == 1:
            return Surprise() if before is None else Surprise.of_one(before, int(ids_T))
        known, told = logits_TV[:-1], ids_T[1:]
        return Surprise.of(known, told) if before is None else Surprise.of(torch.cat((before[None], known)), ids_T)

    def read(
        self, tokens: Tensor | Sequence[int], piece: int = PIECE, stop: Callable[[], bool] = lambda: False
    ) -> Surprise:
        """Read tokens, a piece at a time, so that memory does not grow with their number; how unexpected they were.

        stop: asked before each piece whether to leave it at that.
        """
        total = Surprise()
        for at in range(0, len(tokens), piece):
            if stop():
                break
            self.feed(tokens[at : at + piece])
            total += self.found
        return total

    def generate(self, count: int, sampling: Sampling | None = None) -> Iterator[int]:
        """Draw tokens and read each; it is given out when it has been read, so the state never lags behind.

        A token that was drawn counts as observed: what learns, learns from it.  A stream that nobody has begun begins
        with the token that stands before a document.
        """
        sampling = sampling or Sampling()
        if count:
            self.begin()
        for _ in range(count):
            logits = self.stream.logits
            assert logits is not None
            drawable = logits if logits.numel() == self.drawable else logits[: self.drawable]
            token = sampling.draw(drawable, self.generator)
            self.feed([token])
            yield token

    def begin(self) -> None:
        """Where nothing has been read, read what stands before a document."""
        if self.stream.logits is None:
            self.read(self.opening())

    def opening(self) -> Tensor:
        """What stands before a document."""
        codec = self.trained.codec
        separator = torch.frombuffer(bytearray(codec.separator.ids), dtype=codec.dtype).long()
        return separator if len(separator) else torch.zeros(1, dtype=torch.long)

    # ---- the state --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Everything begins anew, streams included; what is drawn goes on."""
        self.stream = Stream(Position(self.trained, self.learn))
        self.before = self.stream.position  # before the last call,
        self.fed = 0  # of so many tokens,
        self.found = Surprise()  # which were so unexpected

    def border(self) -> None:
        """The next token begins a document: all but memories that are carried by the stream begins anew."""
        self.stream.border = True

    def fork(self) -> Session:
        """Another session that goes on from here by itself, on the same model."""
        other = Session(self.trained, learn=self.learn)
        other.stream = Stream(**{name: getattr(self.stream, name) for name in Stream.__slots__})
        other.before, other.fed, other.found = self.before, self.fed, self.found
        other.generator.set_state(self.generator.get_state())
        return other

    def save(self, path: str | Path) -> Path:
        """Write the state as a folder; it appears whole, and replaces a state that is there.  Raises RunError."""
        stream = self.stream
        if stream.state is None or stream.logits is None:
            raise RunError("nothing has been read yet: there is no state to save", USAGE)
        moved = Moved(self.before.state, self.fed)
        return saved.write(
            Path(path),
            saved.Saved(
                model=self.trained.identity(),
                state=stream.state,
                logits=stream.logits,
                facts={
                    "tokens": stream.tokens,
                    "border": stream.border,
                    "learn": sorted(self.learn, key=self.model.writing.index),
                    "surprise": {"nats": stream.surprise.nats, "tokens": stream.surprise.tokens},
                    "last": {"fed": self.fed, "nats": self.found.nats, "tokens": self.found.tokens},
                    "memories": described(self.trained, stream.state, moved),
                    "random": saved.random_text(self.generator),
                },
                waiting=stream.position.waiting,
            ),
        )

    @classmethod
    def load(cls, path: str | Path, trained: Trained, *, learn: Learn | None = None, allow: bool = False) -> Session:
        """Go on from a state that was saved, with the levels that learned then unless others are named.

        Raises RunError that says what differs where it is another model's; `allow`: other weights of the same program
        will do.  Raises CheckpointError where the state is torn or altered.
        """
        found = saved.read(Path(path))
        saved.refuse(Path(path), found, trained, allow)
        session = cls(trained, learn=found.facts["learn"] if learn is None else learn)
        session.generator.set_state(saved.random_of(found.facts["random"]))
        there, logits = session.device, found.logits.to(session.device)
        if found.waiting is not None and not allow and session.learn == frozenset(found.facts["learn"]):
            w = found.waiting
            waiting = Waiting(w.tokens.to(there), moved(w.learned, there), moved(w.seen, there))
            position = Position.resumed(trained, session.learn, waiting)
        else:
            position = Position(trained, session.learn, moved(found.state, there))
        surprise = Surprise(found.facts["surprise"]["nats"], found.facts["surprise"]["tokens"])
        session.stream = Stream(position, logits, found.facts["tokens"], surprise, found.facts["border"])
        return session


def text_of(path: str | Path) -> bytes:
    """What a file holds.  Raises DataError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(Path(path), error) from None
