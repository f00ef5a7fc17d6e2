from __future__ import annotations

import pytest
import torch

from runtime.errors import RunError
from runtime.session import Sampling

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 2.0])


def drawn(sampling: Sampling, count: int = 400, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [sampling.draw(LOGITS, generator) for _ in range(count)]


def test_temperature_0_takes_the_likeliest() -> None:
    assert drawn(Sampling(temperature=0), 3) == [1, 1, 1]


def test_tokens_come_as_often_as_their_share() -> None:
    found = torch.bincount(torch.tensor(drawn(Sampling(temperature=0.7), 4000)), minlength=5) / 4000
    assert torch.allclose(found.double(), torch.softmax(LOGITS.double() / 0.7, 0), atol=0.03)


def test_top_k_leaves_the_k_likeliest() -> None:
    assert set(drawn(Sampling(top_k=3))) == {1, 2, 4}
    assert set(drawn(Sampling(top_k=50))) == {0, 1, 2, 3, 4}


def test_top_p_leaves_the_fewest_with_that_share() -> None:
    shares = torch.softmax(LOGITS.double(), 0)
    assert shares[1] + shares[4] < 0.8 < shares[1] + shares[4] + shares[2]
    assert set(drawn(Sampling(top_p=0.8))) == {1, 2, 4}
    assert set(drawn(Sampling(top_p=1e-9))) == {1}


def test_a_share_counts_among_the_k_likeliest() -> None:
    assert set(drawn(Sampling(top_k=3, top_p=0.5))) == {1, 4}


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(Sampling(), 40) == drawn(Sampling(), 40) != drawn(Sampling(), 40, seed=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"temperature": -1.0}, "temperature -1"), ({"temperature": float("nan")}, "temperature nan"),
     ({"top_k": -1}, "top_k -1"), ({"top_p": 0.0}, "top_p 0"), ({"top_p": 1.5}, "top_p 1.5")],
)  # fmt: skip
def test_other_numbers_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(RunError, match=said) as refused:
        Sampling(**given)
    assert refused.value.status == 2


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_an_error(wrong: float) -> None:
    with pytest.raises(RunError, match="not finite"):
        Sampling().draw(torch.tensor([0.0, wrong]), torch.Generator())


def test_logits_whose_sum_is_too_large_are_none() -> None:
    assert Sampling().draw(torch.tensor([3e38, -3e38, 3e38 * 0.9, 3e38 * 0.9]), torch.Generator()) == 0


def test_two_tokens_of_nearly_one_likelihood_do_not_change_places() -> None:
    """Rounding that puts the one or the other first moves what is drawn by a rounding's share, not by theirs."""
    logits = torch.tensor([0.0, 2.0, 2.0, 1.0])
    nudged = logits + torch.tensor([0.0, 0.0, 1e-6, 0.0])
    for seed in range(200):
        one, other = (Sampling().draw(x, torch.Generator().manual_seed(seed)) for x in (logits, nudged))
        assert one == other
    assert Sampling(top_k=2).shares(nudged)[0].tolist() == [1, 2]
