"""The likeliest label: equal to reading every label after every text from the beginning, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nlc
from runtime.evaluate.tasks.continual.classify import likeliest
from runtime.model import IGNORED

SIZES = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.context": 32}
HOPE = {
    "levels.titans.chunk": 4, "levels.cms.memories.fast.every": "4 tokens", "levels.cms.memories.mid.every": "8 tokens",
}  # fmt: skip
LABELS = [b"card\n", b"card_lost\n", b"card_late\n", b"pin\n", b"pay\n", b"payment_by_card\n"]
TEXT_BP = torch.tensor([list(b"\n\nlost it\t"), list(b"forgot it\t"), list(b"where is?\t")])


def model_of(name: str) -> Any:
    model = nlc.compile(nlc.load(name, set=SIZES | (HOPE if name == "hope" else {}))).model(seed=0).double()
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.4)
    return model


@pytest.fixture(scope="module", params=["transformer", "hope", "gated_deltanet"])
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(request.param)


def whole(model: Any, text_P: Tensor, label: bytes, taught: bool, learn: bool) -> float:
    """log p of a label by one reading of the text and it."""
    tokens = torch.cat((text_P, torch.tensor(list(label))))[None]
    targets = torch.full_like(tokens, IGNORED)
    if taught:
        targets[0, : len(text_P) - 1] = text_P[1:]
    with torch.no_grad():
        logits = model.told(tokens, targets, learn=learn)[0].log_softmax(-1)
    at = torch.arange(len(text_P) - 1, tokens.shape[1] - 1)
    return float(logits[0, at, tokens[0, at + 1]].sum())


@pytest.mark.parametrize("learn", [True, False], ids=["learning", "still"])
@pytest.mark.parametrize("taught", [False, True], ids=["untaught", "taught"])
def test_the_likeliest_label_is_that_of_reading_each_from_the_beginning(model: Any, taught: bool, learn: bool) -> None:
    sums = torch.tensor([[whole(model, text, label, taught, learn) for label in LABELS] for text in TEXT_BP])
    assert sums.topk(2, 1).values.diff(dim=1).abs().min() > 1e-9  # no tie
    assert torch.equal(likeliest(model, TEXT_BP, LABELS, taught=taught, learn=learn), sums.argmax(1))


def test_an_item_leaves_nothing_behind(model: Any) -> None:
    """Whatever was asked before, and beside it, the answer is the same; no weight moves."""
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    together = likeliest(model, TEXT_BP, LABELS)
    alone = torch.cat([likeliest(model, text[None], LABELS) for text in TEXT_BP])
    assert torch.equal(together, alone) and torch.equal(likeliest(model, TEXT_BP, LABELS), together)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_labels_that_cannot_win_any_more_are_not_read_to_their_end() -> None:
    model = model_of("transformer")
    read = 0

    class Counted(nn.Module):
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def told(self, tokens: Tensor, *more: Any, **how: Any) -> Any:
            nonlocal read
            read += tokens.numel()
            return model.told(tokens, *more, **how)

    labels = [*LABELS[:3], *(b"z" * n + b"\n" for n in range(20, 40))]
    found = likeliest(Counted(), TEXT_BP, labels)  # type: ignore[arg-type]
    assert torch.equal(found, likeliest(model, TEXT_BP, labels))
    assert read < TEXT_BP.numel() + 3 * sum(map(len, labels)) / 2
