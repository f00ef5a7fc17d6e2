"""Formal languages with one word of a length: words follow one another, and what may come next is asked everywhere.

    $ a a a a $ a a $ ...            (aa)*
    $ a b a b $ a b a b a b a b $    (abab)*
    $ a a a b b b $ a b $ ...        a^n b^n, and with more letters a^n b^n c^n

An answer is a whole word: after $ and after each of its letters, the set of what may follow ($ ends it).  Lengths are
evenly spread over those of the language that are allowed.
Source: arXiv 2009.11264, and 2310.16076; there each word is a sequence of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.data import Text
from runtime.evaluate.tasks.draw import Draw
from runtime.evaluate.tasks.items import IGNORED, Items
from runtime.evaluate.tasks.recall import places

END = 0  # the token $


@dataclass(frozen=True)
class Words:
    """Words of `shortest` to `longest` letters, as many as fit; one that is cut off at the end is not asked about."""

    context: int
    shortest: int
    longest: int

    letters = 1  # different ones
    states = 2  # sets of what may follow
    unit = 1  # every length is a multiple

    @property
    def vocab(self) -> int:
        return 1 + self.letters + self.states

    @property
    def choices(self) -> range:
        return range(1 + self.letters, self.vocab)

    @property
    def lengths(self) -> range:
        """Those allowed, in units."""
        return range(-(-self.shortest // self.unit), self.longest // self.unit + 1)

    @property
    def chance(self) -> float:
        """The mean over the words that are asked about: of those that are cut off at the end most are long.

        A word begins at t with probability u_t = sum_n u_{t - 1 - n} / lengths, u_0 = 1; one of n letters that does is
        whole where t + 1 + n <= context.
        """
        u, first, beyond = self.unit, self.unit * self.lengths.start, self.unit * self.lengths.stop
        stride: list[float] = []  # u_t + u_{t - unit} + u_{t - 2 unit} + ...
        begun = [0.0]  # u_0 + ... + u_{t - 1}
        for t in range(self.context):
            near, far = (stride[t - 1 - n] if t > n else 0.0 for n in (first, beyond))
            begins = (near - far) / len(self.lengths) if t else 1.0
            stride.append(begins + (stride[t - u] if t >= u else 0.0))
            begun.append(begun[-1] + begins)
        whole = {u * n: begun[max(0, self.context - u * n)] for n in self.lengths}
        return sum(times * self.states ** -(1 + n) for n, times in whole.items()) / sum(whole.values())

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        T, first = self.context, self.lengths[0]
        count = T // (1 + first * self.unit) + 1
        length_BN = self.unit * (first + draw.whole(len(self.lengths), count))
        end_BN = (1 + length_BN).cumsum(1)
        word_BT, at_BT = places(end_BN, 1 + length_BN, T)  # at 0 is $
        long_BT = length_BN.gather(1, word_BT)
        tokens_BT = torch.where(at_BT == 0, END, 1 + self.letter(at_BT, long_BT))
        whole_BT = (end_BN <= T).gather(1, word_BT)
        targets_BT = torch.where(whole_BT, 1 + self.letters + self.state(at_BT, long_BT), IGNORED)
        return Items.of(tokens_BT, targets_BT, word_BT)

    def letter(self, at: Tensor, length: Tensor) -> Tensor:
        """The letter at each place of a word, places counted from 1."""
        raise NotImplementedError

    def state(self, at: Tensor, length: Tensor) -> Tensor:
        """What may follow after so many letters, as the number of a set."""
        raise NotImplementedError


@dataclass(frozen=True)
class AA(Words):
    """(aa)*: may the word end here?"""

    unit = 2

    def letter(self, at: Tensor, length: Tensor) -> Tensor:
        return torch.zeros_like(at)

    def state(self, at: Tensor, length: Tensor) -> Tensor:
        """{a, $}, {a}"""
        return at % 2


@dataclass(frozen=True)
class ABAB(Words):
    """(abab)*: after b, whether the word may end hangs on how many there were."""

    letters = 2
    states = 3
    unit = 4

    def letter(self, at: Tensor, length: Tensor) -> Tensor:
        return (at - 1) % 2

    def state(self, at: Tensor, length: Tensor) -> Tensor:
        """{a, $}, {b}, {a}"""
        return torch.tensor([0, 1, 2, 1])[at % 4]


@dataclass(frozen=True)
class Counters(Words):
    """a^n b^n, n > 0, and with `symbols` 3 a^n b^n c^n: so many of each as there were of the first."""

    symbols: int

    @property
    def letters(self) -> int:  # type: ignore[override]
        return self.symbols

    @property
    def states(self) -> int:  # type: ignore[override]
        return self.symbols + 2

    @property
    def unit(self) -> int:  # type: ignore[override]
        return self.symbols

    def letter(self, at: Tensor, length: Tensor) -> Tensor:
        return (at - 1).clamp_min(0) // (length // self.symbols)

    def state(self, at: Tensor, length: Tensor) -> Tensor:
        """{a}, {a, b}, {b}, {c}, ..., {$}"""
        each = length // self.symbols
        return torch.where(at == 0, 0, torch.where(at <= each, 1, 1 + at // each))
