"""Batches: a pure function of seed and step, shared out among processes, with the borders of documents."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from runtime.batches import Batch, Crops, Lanes, rows, spread
from runtime.data import Text
from runtime.errors import RunError

BYTES = Text(torch.arange(200, dtype=torch.uint8))
BORDERS = [0, 30, 31, *range(60, 160, 13), 199]
PACKED = Text(BYTES.tokens, torch.tensor(BORDERS))


def same(one: Batch, other: Batch) -> bool:
    starts = one.starts is other.starts is None or (one.starts == other.starts).all()
    return bool((one.tokens == other.tokens).all() and (one.targets == other.targets).all() and starts)


class TestCrops:
    def test_are_sequences_and_their_next_tokens(self) -> None:
        x_BT, y_BT, starts_BT = Crops(BYTES, 3, 16, seed=0).at(0)
        assert x_BT.shape == y_BT.shape == (3, 16) and x_BT.dtype == torch.long and starts_BT is None
        assert (y_BT == x_BT + 1).all() and (x_BT.diff() == 1).all()

    def test_depend_on_seed_and_step_and_nothing_else(self) -> None:
        torch.manual_seed(1)
        one = Crops(PACKED, 3, 16, seed=0)
        first = [one.at(step) for step in range(3)]
        torch.manual_seed(2)
        again = [Crops(PACKED, 3, 16, seed=0).at(step) for step in (2, 1, 0)][::-1]
        assert all(same(a, b) for a, b in zip(first, again, strict=True))
        assert not same(first[0], first[1]) and not same(first[0], Crops(PACKED, 3, 16, seed=1).at(0))

    def test_are_those_of_every_release(self) -> None:
        assert Crops(BYTES, 4, 16, seed=3).at(7).tokens[:, 0].tolist() == [121, 63, 71, 98]
        assert Lanes(BYTES, 4, 16, seed=3).at(7).tokens[:, 0].tolist() == [11, 61, 111, 161]

    def test_reach_the_first_and_the_last_token(self) -> None:
        crops = Crops(Text(BYTES.tokens[:18]), 4, 16, seed=0)
        seen = torch.cat([crops.at(step).tokens[:, 0] for step in range(20)])
        assert set(seen.tolist()) == {0, 1}

    def test_say_where_documents_begin(self) -> None:
        x_BT, _, starts_BT = Crops(PACKED, 8, 16, seed=0).at(0)
        assert starts_BT is not None and starts_BT[:, 0].all()
        assert (starts_BT[:, 1:] == torch.isin(x_BT, torch.tensor(BORDERS))[:, 1:]).all()

    def test_say_nothing_where_none_begins_inside(self) -> None:
        assert rows(PACKED, [32, 151], 16).starts is None  # a sequence begins anew in any case
        assert rows(PACKED, [32, 150], 16).starts is not None


class TestLanes:
    def test_go_on_where_they_ended(self) -> None:
        lanes = Lanes(BYTES, 3, 16, seed=5)
        (x_BT, y_BT, _), (x2_BT, _, starts_BT) = lanes.at(0), lanes.at(1)
        assert (x2_BT[:, 0] == y_BT[:, -1]).all()
        assert (x_BT[:, 1:] == y_BT[:, :-1]).all()
        assert len(set(x_BT[:, 0].tolist())) == 3
        assert starts_BT is not None and starts_BT[:, 0].all() and not starts_BT[:, 1:].any()

    def test_read_the_text_as_a_ring(self) -> None:
        lanes = Lanes(BYTES, 2, 16, seed=0)
        seen = torch.cat([lanes.at(step).tokens[0] for step in range(13)])
        assert set(seen.tolist()) == set(range(200))

    def test_say_where_documents_begin(self) -> None:
        lanes = Lanes(PACKED, 2, 16, seed=0)
        for step in range(13):
            x_BT, _, starts_BT = lanes.at(step)
            assert starts_BT is not None
            assert (starts_BT[:, 1:] == torch.isin(x_BT, torch.tensor(BORDERS))[:, 1:]).all()


class TestProcesses:
    @pytest.mark.parametrize("kind", [Crops, Lanes])
    @pytest.mark.parametrize("ranks", [1, 2, 4, 8])
    def test_see_the_rows_of_one_batch(self, kind: type[Crops | Lanes], ranks: int) -> None:
        whole = kind(PACKED, 8, 16, seed=0).at(5)
        parts = [kind(PACKED, 8, 16, seed=0, rank=rank, ranks=ranks).at(5) for rank in range(ranks)]
        starts = [torch.zeros(8 // ranks, 16, dtype=torch.bool) if b.starts is None else b.starts for b in parts]
        joined = Batch(torch.cat([b.tokens for b in parts]), torch.cat([b.targets for b in parts]), torch.cat(starts))
        assert (joined.tokens == whole.tokens).all() and (joined.targets == whole.targets).all()
        assert whole.starts is not None and joined.starts is not None
        assert (joined.starts[:, 1:] == whole.starts[:, 1:]).all()

    @pytest.mark.parametrize("ranks", [3, 16])
    def test_must_share_it_evenly(self, ranks: int) -> None:
        with pytest.raises(
            RunError, match=f"a batch of 8 sequences cannot be shared out evenly among {ranks}"
        ) as caught:
            Crops(BYTES, 8, 16, seed=0, rank=0, ranks=ranks)
        assert caught.value.status == 2


def test_spread_covers_the_text_without_overlap_while_it_can() -> None:
    firsts = spread(BYTES, 5, 16)
    assert firsts[0] == 0 and firsts[-1] == 200 - 17
    assert min(b - a for a, b in pairwise(firsts)) >= 16
    assert len(spread(BYTES, 1000, 16)) == 12
    assert spread(Text(BYTES.tokens[:17]), 1, 16) == [0]
