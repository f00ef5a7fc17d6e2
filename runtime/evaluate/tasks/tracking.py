"""State tracking: after every token the state of a machine that has read all of them is asked for.

    parity          0 1 1 0 1 -> 0 1 0 0 1              how many ones, modulo 2
    permutations    g1 g2 g3 -> g1, g2 g1, g3 g2 g1     the product of permutations, in S_3 or S_5
    shuffle         ( [ ) ( ] -> which brackets are open, of several kinds that pay no heed to one another

`after`: only tokens from there on are asked about, so that a longer test counts what lies beyond training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial

import torch
from torch import Tensor

from runtime.data import Text
from runtime.evaluate.tasks.draw import Draw
from runtime.evaluate.tasks.items import IGNORED, Items


def beyond(state_BT: Tensor, after: int) -> Tensor:
    """Targets: the states from `after` on."""
    return torch.where(torch.arange(state_BT.shape[1]) >= after, state_BT, IGNORED)


@dataclass(frozen=True)
class Parity:
    """p_t = p_{t-1} + x_t modulo 2.  Source: arXiv 2207.02098; asked after every bit, as in arXiv 2411.12537."""

    context: int
    after: int

    vocab = 2
    choices = range(2)
    chance = 0.5

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        bit_BT = draw.whole(2, self.context)
        return Items.of(bit_BT, beyond(bit_BT.cumsum(1) % 2, self.after))


@dataclass(frozen=True)
class Permutations:
    """p_t = x_t p_{t-1} in the group of all permutations of `of` things; a token is a permutation.

    Source: arXiv 2404.08819 (The Illusion of State).  S_5 is not solvable, and its word problem is complete
    for NC1; S_3 is solvable.
    """

    context: int
    of: int
    after: int

    @property
    def vocab(self) -> int:
        return factorial(self.of)

    @property
    def choices(self) -> range:
        return range(self.vocab)

    @property
    def chance(self) -> float:
        return 1 / self.vocab

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        each_BT = draw.whole(self.vocab, self.context)
        product_BT, reach, table = each_BT.clone(), 1, products(self.of)
        while reach < self.context:  # each is the product of the last 2 * reach, or of all
            product_BT[:, reach:] = table[product_BT[:, reach:], product_BT[:, :-reach]]
            reach *= 2
        return Items.of(each_BT, beyond(product_BT, self.after))


@lru_cache
def products(of: int) -> Tensor:
    """(G, G) the number of the permutation that is g after h, permutations counted in lexical order."""
    every = torch.tensor(list(permutations(range(of))))
    weights = of ** torch.arange(of)
    number = torch.full((of**of,), -1).scatter(0, (every * weights).sum(1), torch.arange(len(every)))
    after_GGn = every[:, every]  # [g, h, i] = g[h[i]]
    return number[(after_GGn * weights).sum(2)]


@dataclass(frozen=True)
class Shuffle:
    """Brackets of several kinds, each kind well nested for itself.  Any legal bracket is as likely as any other.

    A state is the set of the kinds that are open, which says what may follow; an answer is all states of an item.
    Source: arXiv 2009.11264 (Shuffle-k of Dyck-1).
    """

    context: int
    kinds: int

    @property
    def brackets(self) -> int:
        return 2 * self.kinds

    @property
    def vocab(self) -> int:
        return self.brackets + 2**self.kinds

    @property
    def choices(self) -> range:
        return range(self.brackets, self.vocab)

    @property
    def chance(self) -> float:
        return 2.0 ** (-self.kinds * self.context)

    def items(self, draw: Draw, text: Text | None = None) -> Items:
        B, k = draw.items, self.kinds
        pick_BT, tokens, states = draw.uniform(self.context), [], []
        depth_Bk = torch.zeros(B, k, dtype=torch.long)
        for t in range(self.context):
            open_Bk = depth_Bk > 0
            legal_B2k = torch.cat((torch.ones_like(open_Bk), open_Bk), 1)
            nth_B = (pick_BT[:, t] * legal_B2k.sum(1)).long()
            token_B = ((legal_B2k.cumsum(1) - 1) == nth_B[:, None]).long().argmax(1)
            change = torch.where(token_B < k, 1, -1)
            depth_Bk = depth_Bk.scatter_add(1, (token_B % k)[:, None], change[:, None])
            tokens.append(token_B)
            states.append(((depth_Bk > 0) * 2 ** torch.arange(k)).sum(1))
        state_BT = torch.stack(states, 1)
        return Items.of(torch.stack(tokens, 1), self.brackets + state_BT, torch.zeros_like(state_BT))
