"""Which variants are proposed: all, a draw, optuna's; the same whatever came before, for the same scores."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nlc.variants.proposals import Tried, proposals
from tests.unit.variants.searched import searched

AXES = "base: deltanet\ntasks: [mqar]\naxes: {sizes.heads: [1, 2, 4], sizes.layers: [1, 2, 3], run.batch: [1, 2]}\n"


def proposed(text: str) -> list[Mapping[str, str]]:
    """What is proposed where the score is the number of layers."""
    source = proposals(searched(AXES + text))
    tried: list[Tried] = []
    batch = next(source)
    while batch:
        for one in batch:
            tried.append(Tried(f"t{len(tried) + 1:03}", one, None, float(one.settings["sizes.layers"])))
        try:
            batch = source.send(tried)
        except StopIteration:
            break
    return [one.candidate.settings for one in tried]


def test_a_grid_is_every_combination_in_order() -> None:
    found = proposed("")
    assert len(found) == 18 and found[0] == {"sizes.heads": "1", "sizes.layers": "1", "run.batch": "1"}
    assert found[1]["run.batch"] == "2"


@pytest.mark.parametrize("more", ["budget: {trials: 5}\n", "budget: {trials: 5}\nsampler: random\n"])
def test_a_draw_is_seeded_and_holds_nothing_twice(more: str) -> None:
    found = proposed(more)
    assert len(found) == 5 == len({tuple(one.items()) for one in found})
    assert found == proposed(more) and found != proposed(f"{more}seed: 1\n")


def test_a_draw_of_more_than_there_are_is_all_of_them() -> None:
    assert len(proposed("budget: {trials: 50}\nsampler: random\n")) == 18


def test_more_combinations_than_anybody_lists_are_drawn_from() -> None:
    wide = "".join(f", sizes.a{i}: [1, 2, 3, 4, 5, 6, 7, 8]" for i in range(10))
    text = AXES.replace("run.batch: [1, 2]", f"run.batch: [1, 2]{wide}")
    source = proposals(searched(f"{text}budget: {{trials: 24}}\nmutate: {{generations: 1, population: 4}}\n"))
    assert len({tuple(one.settings.items()) for one in next(source)}) == 20


@pytest.mark.parametrize("more", ["", "sampler: random\n"])
def test_where_not_all_combinations_fit_into_the_trials_mutants_have_their_share(more: str) -> None:
    def first(trials: int) -> list[Mapping[str, str]]:
        text = f"{AXES}budget: {{trials: {trials}}}\nmutate: {{generations: 2, population: 3}}\n{more}"
        return [one.settings for one in next(proposals(searched(text)))]

    assert len(first(18)) == 12 and len(first(19)) == 18
    assert first(11) == proposed("budget: {trials: 5}\n")


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_samplers_of_optuna_see_the_scores_and_repeat_themselves(name: str) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'nlc[search]'")
    found = proposed(f"budget: {{trials: 30}}\nsampler: {{name: {name}, batch: 4}}\n")
    assert len(found) == 30 and found == proposed(f"budget: {{trials: 30}}\nsampler: {{name: {name}, batch: 4}}\n")
    layers = [int(one["sizes.layers"]) for one in found]
    assert sum(layers[-10:]) > sum(layers[:10])
