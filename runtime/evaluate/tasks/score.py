"""A model and the items of a test set -> the share of answers that are right, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.evaluate.tasks.items import IGNORED, Items

Z = 1.959963984540054  # of the normal distribution: 95 % lie within so many deviations


@dataclass(frozen=True, slots=True)
class Share:
    """right of answers, in so many items; low, high: the 95 % confidence interval of `accuracy`."""

    accuracy: float
    low: float
    high: float
    answers: int
    items: int

    @classmethod
    def of(cls, right_B: Tensor, asked_B: Tensor) -> Share:
        """From the answers of each item: how many are right, and how many were asked for."""
        n, items = int(asked_B.sum()), int((asked_B > 0).sum())
        p = float(right_B.sum()) / max(1, n)
        return cls(p, *wilson(p, independent(right_B.double(), asked_B.double(), p)), n, items)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a binomial proportion p in n trials (1927)."""
    if n <= 0:
        return 0.0, 1.0
    middle, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + Z * Z / n)), min(1.0, (middle + half) / (1 + Z * Z / n))


def independent(right_B: Tensor, asked_B: Tensor, p: float) -> float:
    """So many independent trials are worth what these answers are; those of one item go wrong together.

    n / deff, deff = var(p) / (p (1 - p) / n), with the variance of a ratio over items: Korn and Graubard 1998.  Not
    more than the answers, nor fewer than the items; where all are right or all wrong the variance says nothing: items.
    """
    n, items = float(asked_B.sum()), int((asked_B > 0).sum())
    if items < 2 or p in (0.0, 1.0):
        return float(items)
    variance = float((right_B - p * asked_B).square().sum()) * items / (items - 1) / n**2
    return min(n, max(items, p * (1 - p) / variance)) if variance > 0 else n


@dataclass(frozen=True, slots=True)
class Score:
    """Of one test set.  loss: nats of a target; whole: items whose answers are all right; by: told apart."""

    share: Share
    whole: Share
    loss: float
    by: Mapping[str, Sequence[tuple[float, Share]]] = field(default_factory=dict)  # mark -> (its value, share)
    places: Sequence[Place] = ()  # of a text: how the loss falls with the context

    @property
    def bits(self) -> float:
        """Of a target."""
        return self.loss / math.log(2)

    def as_dict(self) -> dict[str, Any]:
        by = {mark: [{mark: value, **asdict(share)} for value, share in told] for mark, told in self.by.items()}
        places = [{**asdict(place), "perplexity": place.perplexity} for place in self.places]
        return {
            **asdict(self.share),
            "loss": self.loss,
            "whole_items": asdict(self.whole),
            **({"by": by} if by else {}),
            **({"bits_per_byte": self.bits, "by_position": places} if places else {}),
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Nats of a target after `first` to `last` tokens of context, the token that it follows included."""

    first: int
    last: int
    loss: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def placed(nats_T: Tensor, items: int) -> list[Place]:
    """From the sums over so many items at every place: means over 1, 2 to 3, 4 to 7, ... tokens of context."""
    found, first = [], 1
    while first <= len(nats_T):
        last = min(2 * first - 1, len(nats_T))
        found.append(Place(first, last, float(nats_T[first - 1 : last].sum()) / (items * (last - first + 1))))
        first *= 2
    return found


@torch.no_grad()
def score(
    answer: Callable[[Items], Tensor],
    items: Items,
    choices: range,
    batch: int,
    between: Callable[[], None],
    places: bool = False,
) -> Score:
    """`answer`: items -> logits (B, T, vocab).  An answer's tokens are each the likeliest choice.

    `between` is called before every batch.  places: tell the loss apart by place, too.
    """
    right, asked, nats_T = [], [], torch.zeros(items.tokens.shape[1], dtype=torch.float64)
    for i in range(0, len(items), batch):
        between()
        part = items.rows(torch.arange(i, min(i + batch, len(items))))
        logits_BTV = answer(part)
        targets_BT = part.targets.to(logits_BTV.device)
        likeliest_BT = logits_BTV[..., choices.start : choices.stop].argmax(-1) + choices.start
        exact = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
        nats_T += F.cross_entropy(exact.mT, targets_BT, reduction="none", ignore_index=IGNORED).double().sum(0).cpu()
        right_B, asked_B = graded((likeliest_BT == targets_BT).cpu(), part.answers)
        right.append(right_B)
        asked.append(asked_B)
    right_B, asked_B = torch.cat(right), torch.cat(asked)
    by = {}
    for mark, value_B in items.marks.items():
        values = value_B.unique().tolist()
        by[mark] = [(v, Share.of(right_B[value_B == v], asked_B[value_B == v])) for v in values]
    targets = int((items.targets != IGNORED).sum())
    some_B = asked_B > 0
    return Score(
        Share.of(right_B, asked_B),
        Share.of((right_B == asked_B) & some_B, some_B.long()),
        float(nats_T.sum()) / max(1, targets),
        by,
        placed(nats_T, len(items)) if places else (),
    )


def graded(right_BT: Tensor, answers_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) answers whose tokens are all right, and answers, of each item."""
    numbers = int(answers_BT.max()) + 1 if answers_BT.numel() else 0
    at_BT, asked_BT = answers_BT.clamp_min(0), answers_BT >= 0
    none = torch.zeros(len(answers_BT), max(1, numbers), dtype=torch.long)
    tokens_BN = none.scatter_add(1, at_BT, asked_BT.long())
    right_BN = none.scatter_add(1, at_BT, (asked_BT & right_BT).long())
    there_BN = tokens_BN > 0
    return (there_BN & (right_BN == tokens_BN)).sum(1), there_BN.sum(1)
