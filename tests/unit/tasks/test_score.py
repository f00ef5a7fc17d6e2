"""Scores: an answer is right where all of its tokens are, and its interval holds what it says it does."""

from __future__ import annotations

import math

import pytest
import torch

from runtime.evaluate.tasks import Items, Share, score
from runtime.evaluate.tasks.score import graded, independent, wilson


def test_an_answer_of_several_tokens_is_right_where_all_are() -> None:
    answers_BT = torch.tensor([[-1, 0, 0, -1, 1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]])
    right_BT = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    right_B, asked_B = graded(right_BT, answers_BT)
    assert right_B.tolist() == [1, 1, 0] and asked_B.tolist() == [2, 1, 0]


def test_wilson() -> None:
    """Published values: 81 of 263 (Newcombe 1998, table I, method 3), and 0 of 20."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_answers_that_go_wrong_together_count_as_fewer() -> None:
    asked_B = torch.full((400,), 8.0)
    alone_B = torch.bernoulli(torch.full((400, 8), 0.5), generator=torch.Generator().manual_seed(0)).sum(1)
    together_B = 8 * torch.bernoulli(torch.full((400,), 0.5), generator=torch.Generator().manual_seed(0))
    assert independent(alone_B, asked_B, float(alone_B.mean()) / 8) > 2500
    assert independent(together_B, asked_B, float(together_B.mean()) / 8) == pytest.approx(400, rel=0.01)
    assert independent(asked_B, asked_B, 1.0) == 400


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    """Items of eight answers that share their luck: 400 experiments of 100 items."""
    draw = torch.Generator().manual_seed(0)
    luck = torch.rand(400, 100, 1, generator=draw)
    right = torch.rand(400, 100, 8, generator=draw) < 0.4 + 0.6 * (luck - 0.5)
    shares = [Share.of(one.sum(1), torch.full((100,), 8)) for one in right]
    inside = sum(share.low <= 0.4 <= share.high for share in shares) / 400
    assert 0.92 < inside < 0.98


def test_only_what_can_be_an_answer_is_chosen() -> None:
    items = Items.of(torch.zeros(2, 3, dtype=torch.long), torch.tensor([[-100, 4, 5], [-100, -100, 4]]))

    def answer(part: Items) -> torch.Tensor:
        logits = torch.zeros(*part.tokens.shape, 6)
        logits[..., 0], logits[..., 4] = 9.0, 1.0  # 0 is likeliest, and no answer
        return logits

    found = score(answer, items, range(3, 6), batch=1, between=lambda: None)
    assert found.share.accuracy == pytest.approx(2 / 3) and found.share.answers == 3 and found.whole.accuracy == 0.5
    whole = math.log(math.exp(9) + math.exp(1) + 4)
    assert found.loss == pytest.approx((2 * (whole - 1) + whole) / 3)


def test_results_are_told_apart_by_marks() -> None:
    targets = torch.tensor([[1], [1], [0], [1]])
    items = Items.of(targets * 0, targets, marks={"depth": torch.tensor([0.0, 0.5, 0.5, 0.5]).double()})

    def ones(part: Items) -> torch.Tensor:
        return torch.tensor([0.0, 1.0]).expand(*part.tokens.shape, 2)

    by = score(ones, items, range(2), batch=3, between=lambda: None).by["depth"]
    assert [(depth, share.accuracy, share.answers) for depth, share in by] == [
        (0.0, 1.0, 1),
        (0.5, pytest.approx(2 / 3), 3),
    ]


def test_the_loss_is_told_by_place() -> None:
    """Means over 1, 2 to 3, 4 to 7 tokens of context and what is left; weighed by their places they make the whole."""
    items = Items.of(torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long))

    def surer(part: Items) -> torch.Tensor:
        sure_T = torch.arange(9).double()
        return torch.stack((sure_T, torch.zeros(9)), 1).expand(len(part), 9, 2)

    found = score(surer, items, range(2), batch=2, between=lambda: None, places=True)
    assert [(p.first, p.last) for p in found.places] == [(1, 1), (2, 3), (4, 7), (8, 9)]
    assert found.places[0].perplexity == pytest.approx(2.0) and found.places[1].loss > found.places[2].loss
    whole = sum(p.loss * (p.last - p.first + 1) for p in found.places) / 9
    assert found.loss == pytest.approx(whole) and found.bits == pytest.approx(whole / math.log(2))
