"""Recall: what was written earlier in the sequence is asked for, or, in `Memorisation`, what is true in all of them.

pairs      k v k v k v _ _ k _ _ _ k _      a key asked for again: its value is the answer there
motifs     the same with keys and values of several tokens
copying    a _ b _ _ c ; _ _ _              after the mark: a b c
facts      k ? k ? k ?                      at the ?: the key's value, the same in every sequence
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.data import Text
from runtime.evaluate.tasks.draw import Draw, key_of
from runtime.evaluate.tasks.items import IGNORED, Items


def nothing(like: Tensor) -> Tensor:
    return torch.full_like(like, IGNORED)


def seen_before(which_BN: Tensor, count: int, told_BN: Tensor | None = None) -> Tensor:
    """(B, N) whether the same of `count` things stands at an earlier place, one where it is told."""
    N = which_BN.shape[1]
    at_BN = torch.arange(N).expand_as(which_BN)
    told_at_BN = at_BN if told_BN is None else torch.where(told_BN, at_BN, N)
    first_BK = torch.full((len(which_BN), count), N).scatter_reduce(1, which_BN, told_at_BN, "amin")
    return first_BK.gather(1, which_BN) < at_BN


@dataclass(frozen=True)
class Associative:
    """Multi-query associative recall.  Pairs come first; each key is asked for once, at a distance of its own.

    p(distance d) ~ d^(power - 1), d counted in places of two tokens behind the pairs, no place taken twice.
    Source: arXiv 2312.04927; here a blank stands wherever nothing is asked.
    """

    context: int
    vocab: int  # a blank, keys and as many values
    pairs: int
    power: float

    @property
    def keys(self) -> int:
        return (self.vocab - 1) // 2

    @property
    def choices(self) -> range:
        return range(1 + self.keys, 1 + 2 * self.keys)

    @property
    def chance(self) -> float:
        return 1 / self.keys

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        P, places = self.pairs, (self.context - 2 * self.pairs) // 2
        key_BP = 1 + draw.order(self.keys)[:, :P]
        value_BP = 1 + self.keys + draw.whole(self.keys, P)
        weight = torch.arange(1, places + 1).double().log() * (self.power - 1)
        gumbel = -(-draw.uniform(places).clamp_min(2.0**-53).log()).log()
        place_BP = (weight + gumbel).topk(P, dim=1).indices  # so many without putting any back
        tokens_BT = torch.zeros(draw.items, self.context, dtype=torch.long)
        tokens_BT[:, : 2 * P] = torch.stack((key_BP, value_BP), 2).flatten(1)
        at_BP = 2 * P + 2 * place_BP
        tokens_BT.scatter_(1, at_BP, key_BP)
        return Items.of(tokens_BT, nothing(tokens_BT).scatter(1, at_BP, value_BP))


@dataclass(frozen=True)
class InContext:
    """In-context and noisy recall: pairs of any keys; one whose key was there before is asked for.

    Noise takes the place of a pair with probability `noise`; the last pair's key was there before.
    Source: MAD, arXiv 2403.17844 (multi-query form).
    """

    context: int
    vocab: int  # keys, as many values, and the noise
    noise_vocab: int
    noise: float

    @property
    def keys(self) -> int:
        return (self.vocab - self.noise_vocab) // 2

    @property
    def choices(self) -> range:
        return range(self.keys, 2 * self.keys)

    @property
    def chance(self) -> float:
        return 1 / self.keys

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        B, N = draw.items, self.context // 2
        key_BN = draw.whole(self.keys, N)
        noisy_BN = draw.uniform(N) < self.noise
        noisy_BN[:, [0, -1]] = False
        earlier_B1 = draw.uniform(N - 1).masked_fill(noisy_BN[:, :-1], -1).argmax(1, keepdim=True)
        key_BN[:, -1:] = key_BN.gather(1, earlier_B1)
        value_BK = self.keys + draw.whole(self.keys, self.keys)
        value_BN = value_BK.gather(1, key_BN)
        asked_BN = seen_before(key_BN, self.keys, ~noisy_BN) & ~noisy_BN
        pair_BN2 = torch.stack((key_BN, value_BN), 2)
        if self.noise_vocab:
            other_BN2 = 2 * self.keys + draw.whole(self.noise_vocab, N, 2)
            pair_BN2 = torch.where(noisy_BN[:, :, None], other_BN2, pair_BN2)
        tokens_BT = torch.zeros(B, self.context, dtype=torch.long)
        tokens_BT[:, : 2 * N] = pair_BN2.flatten(1)
        targets_BT = nothing(tokens_BT)
        targets_BT[:, : 2 * N : 2] = torch.where(asked_BN, value_BN, IGNORED)
        return Items.of(tokens_BT, targets_BT)


@dataclass(frozen=True)
class Fuzzy:
    """Fuzzy recall: keys and values are motifs of one token to several; an answer is a whole value.

    Every item has a book of `motifs` pairs, from which it is written.
    Source: MAD, arXiv 2403.17844; there any motif may come, here those of the book, so that most return.
    """

    context: int
    vocab: int  # tokens of keys, and as many of values
    motifs: int
    key_length: int  # at most
    value_length: int  # at most

    @property
    def letters(self) -> int:
        return self.vocab // 2

    @property
    def choices(self) -> range:
        return range(self.letters, 2 * self.letters)

    @property
    def chance(self) -> float:
        """Of values as they lie in the book; those that the end cuts off, longer ones more often, count as the rest."""
        lengths = range(1, self.value_length + 1)
        return sum(self.letters**-n for n in lengths) / len(lengths)

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        M, L, T = self.motifs, self.letters, self.context
        key_BMk = draw.whole(L, M, self.key_length)
        value_BMv = L + draw.whole(L, M, self.value_length)
        long_BM, wide_BM = 1 + draw.whole(self.key_length, M), 1 + draw.whole(self.value_length, M)
        # Equal keys are one key: the first of them in the book stands for all.
        spelt_BMk = torch.where(torch.arange(self.key_length) < long_BM[:, :, None], key_BMk, L)
        same_BMM = (spelt_BMk[:, :, None] == spelt_BMk[:, None]).all(3)
        one_BM = same_BMM.long().argmax(2)
        slots = T // 2 + 1
        which_BN = one_BM.gather(1, draw.whole(M, slots))
        length_BN = (long_BM + wide_BM).gather(1, which_BN)
        end_BN = length_BN.cumsum(1)
        slot_BT, within_BT = places(end_BN, length_BN, T + 1)
        motif_BT = which_BN.gather(1, slot_BT)
        key_long_BT = long_BM.gather(1, motif_BT)
        spelt = torch.cat((key_BMk, value_BMv), 2).flatten(1)  # of a motif: its key's letters, its value's
        inside_BT = within_BT >= key_long_BT
        at_BT = torch.where(inside_BT, self.key_length + within_BT - key_long_BT, within_BT)
        letter_BT = spelt.gather(1, motif_BT * (self.key_length + self.value_length) + at_BT)
        whole_BN = end_BN <= T + 1
        asked_BT = inside_BT & (seen_before(which_BN, M) & whole_BN).gather(1, slot_BT)
        targets_BT = torch.where(asked_BT, letter_BT, IGNORED)
        return Items.of(letter_BT[:, :-1].clone(), targets_BT[:, 1:].clone(), slot_BT[:, 1:].clone())


def places(end_BN: Tensor, length_BN: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Of each of T tokens, which of N pieces that follow one another it is in, and how far inside, both (B, T)."""
    at_BT = torch.arange(T).expand(len(end_BN), T).contiguous()
    piece_BT = torch.searchsorted(end_BN, at_BT, right=True)
    return piece_BT, at_BT - (end_BN - length_BN).gather(1, piece_BT)


@dataclass(frozen=True)
class Copying:
    """Selective copying: symbols among blanks are to be written after the mark, in order.

    Without blanks among them (context = 2 copies + 1) everything is to be kept: `compression`.
    Source: MAD, arXiv 2403.17844; arXiv 2312.00752.
    """

    context: int
    vocab: int  # symbols, a blank and the mark
    copies: int

    @property
    def choices(self) -> range:
        return range(self.vocab - 2)

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 2)

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        blank, mark, n = self.vocab - 2, self.vocab - 1, self.copies
        symbol_BN = draw.whole(blank, n)
        at_BN = draw.order(self.context - n - 1)[:, :n].sort(1).values
        tokens_BT = torch.full((draw.items, self.context), blank)
        tokens_BT.scatter_(1, at_BN, symbol_BN)
        tokens_BT[:, -n - 1] = mark
        targets_BT = nothing(tokens_BT)
        targets_BT[:, -n:] = symbol_BN
        return Items.of(tokens_BT, targets_BT)


@dataclass(frozen=True)
class Memorisation:
    """Facts that hold in every sequence, training and test alike: only weights can know them.

    Source: MAD, arXiv 2403.17844.
    """

    context: int
    vocab: int  # keys, as many values, and the token that asks
    facts: int  # another number, other facts

    @property
    def keys(self) -> int:
        return (self.vocab - 1) // 2

    @property
    def choices(self) -> range:
        return range(self.keys, 2 * self.keys)

    @property
    def chance(self) -> float:
        return 1 / self.keys

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        book = Draw(torch.tensor([key_of(f"facts {self.facts}")])).order(self.keys)[0]
        N = self.context // 2
        key_BN = draw.whole(self.keys, N)
        tokens_BT = torch.full((draw.items, self.context), self.vocab - 1)
        tokens_BT[:, : 2 * N : 2] = key_BN
        targets_BT = nothing(tokens_BT)
        targets_BT[:, 1 : 2 * N : 2] = self.keys + book[key_BN]
        return Items.of(tokens_BT, targets_BT)
