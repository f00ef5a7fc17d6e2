from __future__ import annotations

import torch
import torch.nn.functional as F

from runtime.session import Surprise


def test_single_tokens_are_added_up_when_asked_for_to_the_same_bit() -> None:
    logits, came = torch.randn(150, 9, generator=torch.Generator().manual_seed(0)), torch.arange(150) % 9
    late, early = Surprise(0.25, 1), Surprise(0.25, 1)
    for row, token in zip(logits, came.tolist(), strict=True):
        late += Surprise.of_one(row, token)
        early += Surprise.of_one(row, token)
        assert early.nats > 0
    assert early.nats == late.nats and early.tokens == late.tokens == 151
    whole = Surprise.of(logits, came)
    assert abs(late.nats - 0.25 - whole.nats) < 1e-10 * whole.nats
    assert abs(whole.nats - float(F.cross_entropy(logits.double(), came, reduction="sum"))) < 1e-9
    assert (late + whole).tokens == 301 and abs((late + whole).bits - (whole + late).bits) < 1e-12


def test_nothing_told_is_no_surprise() -> None:
    assert Surprise().nats == 0 and Surprise().bits is None
