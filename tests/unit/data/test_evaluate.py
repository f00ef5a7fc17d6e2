"""Validation: bits per byte that mean the same in any tokens, and a model that is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nlc
from runtime.data import Text
from runtime.evaluate import evaluate

SMALL = {"sizes.width": 32, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 64, "levels.titans.chunk": 16}
SMALL |= {"levels.cms.memories.fast.every": "16 tokens", "levels.cms.memories.mid.every": "32 tokens"}


class Even(nn.Module):
    """Every token is as likely as any other: log2(vocab) bits."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab
        self.borders: list[Tensor | None] = []

    def loss(self, tokens, targets, state=None, starts=None, mask=None, final=False, learn=True):  # type: ignore[no-untyped-def]
        self.borders.append(starts)
        return F.cross_entropy(torch.zeros(*targets.shape, self.vocab).mT, targets), {}


def test_bits_per_byte_count_the_bytes_of_the_targets() -> None:
    tokens = torch.arange(129, dtype=torch.uint8) % 16
    bytes_ = evaluate(Even(256), Text(tokens), batch=2, context=32)
    assert bytes_.bits_per_byte == pytest.approx(8) and bytes_.tokens == bytes_.bytes == 128
    sizes = torch.full((129,), 4, dtype=torch.int32)
    sizes[0] = 1000  # of no target
    pairs = evaluate(Even(1024), Text(tokens, None, sizes), batch=2, context=32)
    assert pairs.bits_per_byte == pytest.approx(10 / 4) and pairs.loss == pytest.approx(math.log(1024))
    assert pairs.as_dict()["bytes"] == 4 * 128


def test_borders_reach_the_model() -> None:
    text, model = Text(torch.arange(129, dtype=torch.uint8), torch.tensor([0, 40, 128])), Even(256)
    evaluate(model, text, batch=4, context=32)
    (starts_BT,) = model.borders
    assert starts_BT is not None and starts_BT.nonzero().tolist() == [[0, 0], [1, 0], [1, 8], [2, 0], [3, 0]]


@pytest.mark.parametrize("packed", [False, True], ids=["text", "documents"])
def test_nothing_of_the_training_state_changes(packed: bool) -> None:
    model = nlc.compile(nlc.load("hope", set=SMALL)).model(seed=0)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (400,), generator=draw).to(torch.uint8)
    text = Text(tokens, torch.tensor([0, 20, 120]) if packed else None)
    loss, _ = model.loss(tokens[None, :64].long(), tokens[None, 1:65].long(), final=True)
    loss.backward()
    before = {name: p.clone() for name, p in model.named_parameters()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    fires, random = dict(model.fires), torch.get_rng_state()
    found = evaluate(model, text, batch=3, context=64, tokens=256)
    assert found.fires["titans"] > 0 and found.loss == pytest.approx(math.log(256), abs=0.2)
    assert model.training and model.fires == fires and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(model.get_parameter(name).grad, grad) for name, grad in grads.items())


def test_nor_when_it_fails_half_way() -> None:
    model = nlc.compile(nlc.load("hope", set=SMALL)).model(seed=0)
    fires, loss = dict(model.fires), model.loss

    def broken(*given, **more):  # type: ignore[no-untyped-def]
        loss(*given, **more)
        raise RuntimeError("halfway")

    model.loss = broken
    with pytest.raises(RuntimeError, match="halfway"):
        evaluate(model, Text(torch.arange(200, dtype=torch.uint8)), batch=1, context=64)
    assert model.training and model.fires == fires
