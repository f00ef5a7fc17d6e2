"""Training and test never share an item, under any seeds and knobs; any item can be made again by its number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runtime.errors import DataError
from runtime.evaluate.tasks import Task
from runtime.evaluate.tasks.draw import digest
from tests.unit.tasks.examples import SMALL, TEXT

SUMS = {
    "associative": 687419,
    "associative, far": 422681,
    "in_context": 547467,
    "in_context, noisy": 284533,
    "fuzzy": 706296,
    "copying": 669758,
    "copying, all": 213073,
    "memorisation": 646074,
    "parity": 939346,
    "permutations of 3": 718207,
    "permutations of 5": 599453,
    "aa": 836461,
    "abab": 728518,
    "anbn": 678418,
    "anbncn": 541266,
    "shuffle": 639100,
    "passkey": 141236,
    "number": 270204,
    "word": 126113,
    "multi_key": 903636,
    "multi_value": 570770,
    "multi_query": 199607,
}


def task(name: str, **more: Any) -> Task:
    items, knobs = SMALL[name]
    told = {"name": name, "items": items, "knobs": knobs, "tests": {"as trained": knobs}, "examples": 0}
    return Task.read({**told, "source": "here", "solved": 0.9, **more})


def rows(content_BN: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, content_BN.tolist()))


@given(
    name=st.sampled_from(sorted(SMALL)),
    seeds=st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)),
    first=st.integers(0, 2**40),
)
@settings(max_examples=40, deadline=None)
def test_no_item_is_in_both_splits(name: str, seeds: tuple[int, int], first: int) -> None:
    made = task(name)
    trained = made.make("train", torch.arange(first, first + 48), seed=seeds[0], text=TEXT)
    tested = made.make("test", torch.arange(48), seed=seeds[1], test="as trained", text=TEXT)
    assert not rows(trained.content) & rows(tested.content)


def test_every_item_there_is_belongs_to_one_split() -> None:
    """Sequences of eight bits are few enough to see all of them, in each split again and again."""
    made = task("parity", knobs={"context": 8, "after": 0}, tests={"as trained": {"context": 8, "after": 0}})
    trained = rows(made.make("train", torch.arange(4000)).tokens)
    tested = rows(made.make("test", torch.arange(2000), test="as trained").tokens)
    assert not trained & tested and len(trained | tested) == 256 and 40 < len(tested) < 90


def test_an_item_is_made_again_by_its_number() -> None:
    for name in SMALL:
        made = task(name)
        many = made.make("test", torch.arange(12), test="as trained", text=TEXT)
        one = made.make("test", torch.tensor([5]), test="as trained", text=TEXT)
        assert torch.equal(one.tokens[0], many.tokens[5]) and torch.equal(one.targets[0], many.targets[5])


def test_seeds_and_tests_are_different_draws() -> None:
    knobs = SMALL["parity"][1]
    made = task("parity", tests={"one": knobs, "other": knobs})
    draws = [made.make("train", torch.arange(8), seed=seed).tokens for seed in (0, 1)]
    draws += [made.make("test", torch.arange(8), test=test).tokens for test in ("one", "other")]
    assert len({tuple(tokens.flatten().tolist()) for tokens in draws}) == 4


def test_examples_come_again_in_training_alone() -> None:
    made = task("copying", examples=5)
    assert len(rows(made.make("train", torch.arange(40)).tokens)) == 5
    assert len(rows(made.make("test", torch.arange(40), test="as trained").tokens)) == 40


def test_the_same_items_on_every_machine() -> None:
    """A change of these numbers makes old results incomparable."""
    found = {name: task(name).make("test", torch.arange(4), test="as trained", text=TEXT) for name in SMALL}
    sums = {name: int(digest(torch.cat((x.tokens, x.targets), 1)).sum()) % 10**6 for name, x in found.items()}
    assert sums == SUMS


def test_too_few_different_items_are_refused() -> None:
    knobs = {"context": 4, "shortest": 2, "longest": 3}
    with pytest.raises(DataError, match="too few different ones"):  # $ a a $ is all there is
        both = task("aa", knobs=knobs, tests={"as trained": knobs})
        for split in ("train", "test"):
            both.make(split, torch.arange(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": "paritty"}, "items is 'paritty'; there are associative"),
        ({"knobs": {"context": 8}}, "items 'parity' have a knob 'after'"),
        ({"knobs": {"context": 8, "after": 0, "of": 3}}, "items 'parity' have no knob 'of'"),
        ({"knobs": {"context": 8.5, "after": 0}}, "knob 'context' is 8.5, a whole number is expected"),
        ({"tests": {}}, "tests is empty"),
        ({"examples": "many"}, "examples is a string, a whole number is expected"),
    ],
)
def test_what_is_no_task_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        task("parity", **change)
