"""What is computed from R[after][task], held against the definitions by hand."""

from __future__ import annotations

import pytest

from runtime.evaluate.tasks.continual.measures import measured

R = [
    [0.9, 0.4, None],
    [0.5, 0.8, 0.3],
    [0.2, 0.6, 1.0],
]


def test_measures_are_what_their_definitions_say() -> None:
    found = measured(R, chance=[0.5, 0.25, 0.2])
    assert found.final == pytest.approx((0.2 + 0.6 + 1.0) / 3)
    assert found.average == pytest.approx((0.9 + (0.5 + 0.8) / 2 + (0.2 + 0.6 + 1.0) / 3) / 3)
    assert found.learning == pytest.approx((0.9 + 0.8 + 1.0) / 3)
    assert found.forgetting == pytest.approx(((0.9 - 0.2) + (0.8 - 0.6)) / 2)
    assert found.backward_transfer == pytest.approx(((0.2 - 0.9) + (0.6 - 0.8)) / 2)
    assert found.forward_transfer == pytest.approx(((0.4 - 0.25) + (0.3 - 0.2)) / 2)


def test_the_best_that_was_known_counts_as_forgotten_not_only_what_was_learned_first() -> None:
    assert measured([[0.5, None, None], [0.7, 0.5, None], [0.6, 0.5, 0.5]]).forgetting == pytest.approx((0.1 + 0.0) / 2)


def test_of_a_loss_the_signs_are_turned() -> None:
    """Bits go up from 2 to 3: one bit is forgotten, and backward transfer is -1."""
    found = measured([[2.0, 7.0], [3.0, 2.5]], chance=[8.0, 8.0], loss=True)
    assert (found.final, found.forgetting, found.backward_transfer, found.forward_transfer) == (2.75, 1.0, -1.0, 1.0)


def test_what_was_not_measured_is_not_made_up() -> None:
    """Joint training has the last row alone, one task has no other."""
    found = measured([[None, None], [0.5, 0.7]], chance=[0.5, 0.5])
    assert found.final == pytest.approx(0.6)
    rest = (found.average, found.learning, found.forgetting, found.backward_transfer, found.forward_transfer)
    assert rest == (None,) * 5
    alone = measured([[0.4]], chance=[0.5])
    assert (alone.final, alone.learning, alone.forgetting) == (0.4, 0.4, None)
