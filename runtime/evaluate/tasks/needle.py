"""A needle in a haystack, in bytes: sentences hidden in a long text, and a question at its end.

    ... text ... The number of bokasu is 4810233. ... text ...
    The number of bokasu is 4810233

Names after RULER, arXiv 2404.06654: one needle (passkey, number, word), others beside it (multi-key), several
asked for (multi-query), several of one key (multi-value).  The haystack is any text, training and test from different
parts of it; keys and values decide whether an item is trained or tested on.  An answer is a value, all of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.data import Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.tasks.draw import Draw
from runtime.evaluate.tasks.items import IGNORED, Items

DIGITS, CONSONANTS, VOWELS = b"0123456789", b"bdfgklmnprstvz", b"aeiou"
KEY = 6  # letters of a key


def spelt(text: bytes) -> Tensor:
    return torch.tensor(list(text))


def digits(draw: Draw, *shape: int) -> Tensor:
    """Digits, as bytes."""
    return spelt(DIGITS)[draw.whole(len(DIGITS), *shape)]


def word(draw: Draw, *shape: int) -> Tensor:
    """Letters of words that can be pronounced: bokasu."""
    either = draw.whole(len(CONSONANTS) * len(VOWELS), *shape)
    consonant, vowel = spelt(CONSONANTS)[either % len(CONSONANTS)], spelt(VOWELS)[either // len(CONSONANTS)]
    return torch.where(torch.arange(shape[-1]) % 2 == 0, consonant, vowel)


def sentence(*parts: bytes | Tensor, rows: tuple[int, int]) -> Tensor:
    """(B, M, n) the same words around parts (B, M, k) that differ."""
    spread = [spelt(p).expand(*rows, -1) if isinstance(p, bytes) else p for p in parts]
    return torch.cat(spread, 2)


Say = Callable[[bytes | Tensor], None]  # adds to what is said


@dataclass(frozen=True)
class Needle:
    """`keys` keys with `values` values each; `queries` of the keys are asked for, all values of each, in order.

    depths: so many places, evenly spread from the beginning of the haystack to its end, and where the first value that
    is asked for lies is the mark `depth`, 0 to 1; 0: anywhere.
    """

    context: int
    size: int  # bytes of a value
    keys: int
    values: int
    queries: int
    depths: int

    vocab = 256
    choices = range(256)
    noun = b"number"

    @property
    def chance(self) -> float:
        return float(len(DIGITS)) ** -self.size

    def value(self, draw: Draw, *shape: int) -> Tensor:
        return digits(draw, *shape)

    def statement(self, key_BMk: Tensor, value_BMv: Tensor) -> Tensor:
        rows = (len(key_BMk), key_BMk.shape[1])
        return sentence(b"\nThe " + self.noun + b" of ", key_BMk, b" is ", value_BMv, b".\n", rows=rows)

    def question(self, key_BQk: Tensor, value_BQVv: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) the bytes of the questions with their answers, and of each the number of its answer, or -1."""
        B, Q, V, _ = value_BQVv.shape
        verb = b"s of " if V > 1 else b" of "
        bytes_, answers = [], []

        def say(part: bytes | Tensor, answer: int = -1) -> None:
            part_Bn = spelt(part).expand(B, -1) if isinstance(part, bytes) else part
            bytes_.append(part_Bn)
            answers.append(torch.full_like(part_Bn, answer))

        for q in range(Q):
            self.ask(say, verb, key_BQk[:, q])
            for v in range(V):
                say(value_BQVv[:, q, v], q * V + v)
                say(b", " if v < V - 1 else b".")
        return torch.cat(bytes_, 1), torch.cat(answers, 1)

    def ask(self, say: Say, verb: bytes, key_Bk: Tensor) -> None:
        say(b"\nThe " + self.noun + verb)
        say(key_Bk)
        say(b" are " if self.values > 1 else b" is ")

    def items(self, draw: Draw, text: Text | None) -> Items:
        K, V, Q = self.keys, self.values, self.queries
        key_BKk = word(draw, K, KEY)
        value_BKVv = self.value(draw, K, V, self.size)
        depth_BKV = draw.uniform(K, V) if self.depths == 0 else (
            draw.whole(self.depths, K, V).double() / max(1, self.depths - 1)
        )  # fmt: skip
        depth_BKV = depth_BKV.sort(2).values  # the values of a key are asked for in the order they come in
        asked_Bn, answer_Bn = self.question(key_BKk[:, :Q], value_BKVv[:, :Q])
        named_BMk = key_BKk.repeat_interleave(V, 1)
        needle_BMn = self.statement(named_BMk, value_BKVv.flatten(1, 2))
        asked_T = asked_Bn.shape[1] - 1  # its last byte is only a target
        hay = self.context - asked_T - needle_BMn[0].numel()
        if text is None or hay < 1:
            taken = self.context - hay
            raise DataError(f"{self.context} bytes have no room for the needles and the question: {taken}", USAGE)
        place_BM = (depth_BKV.flatten(1) * hay).round().long()
        hay_BH = haystack(draw, text, hay)
        hidden_BT = inserted(hay_BH, needle_BMn, place_BM)
        whole_BT = torch.cat((hidden_BT, asked_Bn), 1)
        answer_BT = torch.cat((torch.full_like(hidden_BT, -1), answer_Bn), 1)[:, 1:]
        targets_BT = torch.where(answer_BT >= 0, whole_BT[:, 1:], IGNORED)
        content_BN = torch.cat((named_BMk, value_BKVv.flatten(1, 2)), 2).flatten(1)
        marks = {"depth": depth_BKV[:, 0, 0].clone()} if self.depths else {}
        return Items.of(whole_BT[:, :-1].clone(), targets_BT, answer_BT.clone(), content_BN, marks)


@dataclass(frozen=True)
class Word(Needle):
    """A value is a word."""

    noun = b"word"

    @property
    def chance(self) -> float:
        pairs, odd = divmod(self.size, 2)
        return float(len(CONSONANTS) * len(VOWELS)) ** -pairs * float(len(CONSONANTS)) ** -odd

    def value(self, draw: Draw, *shape: int) -> Tensor:
        return word(draw, *shape)


@dataclass(frozen=True)
class Passkey(Needle):
    """One number that has no name.  Source: arXiv 2305.16300."""

    def statement(self, key_BMk: Tensor, value_BMv: Tensor) -> Tensor:
        return sentence(b"\nThe pass key is ", value_BMv, b". Remember it.\n", rows=(len(value_BMv), 1))

    def ask(self, say: Say, verb: bytes, key_Bk: Tensor) -> None:
        say(b"\nThe pass key is ")


def haystack(draw: Draw, text: Text, length: int) -> Tensor:
    """(B, length) pieces of the text from anywhere, which goes on at its beginning where it ends."""
    first_B1 = draw.whole(len(text), 1)
    return text.tokens[(first_B1 + torch.arange(length)) % len(text)].long()


def inserted(hay_BH: Tensor, needle_BMn: Tensor, place_BM: Tensor) -> Tensor:
    """(B, H + M n): every needle put before the byte of hay at its place; of equal places in their order."""
    B, M, n = needle_BMn.shape
    order_BM = place_BM.argsort(dim=1, stable=True)
    place_BM = place_BM.gather(1, order_BM)
    needle_BMn = needle_BMn.gather(1, order_BM[:, :, None].expand(-1, -1, n))
    at_BMn = (place_BM + n * torch.arange(M))[:, :, None] + torch.arange(n)
    out_BT = torch.full((B, hay_BH.shape[1] + M * n), -1).scatter(1, at_BMn.flatten(1), needle_BMn.flatten(1))
    out_BT[out_BT < 0] = hay_BH.flatten()  # row after row, the places that are left
    return out_BT
