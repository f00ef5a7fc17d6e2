"""Items of every kind: their targets are what a plain solver finds in their tokens; guessing is right by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlc.spec import load_task, tasks
from runtime.evaluate.tasks import Items, Share, Task
from runtime.evaluate.tasks.draw import Draw, mixed
from runtime.evaluate.tasks.items import IGNORED
from runtime.evaluate.tasks.kinds import KINDS
from runtime.evaluate.tasks.score import graded
from tests.unit.tasks import solvers
from tests.unit.tasks.examples import SMALL, TEXT

SOLVERS: dict[str, Callable[[Any, list[int]], dict[int, int]]] = {
    "associative": solvers.associative, "in_context": solvers.in_context, "fuzzy": solvers.fuzzy,
    "copying": solvers.copying, "parity": solvers.parity, "permutations": solvers.permuted, "shuffle": solvers.shuffle,
    "aa": solvers.words(solvers.after_aa), "abab": solvers.words(solvers.after_abab),
    "counters": solvers.words(solvers.after_counters(2)),
    "passkey": solvers.needles, "number": solvers.needles, "word": solvers.needles,
}  # fmt: skip


def some(name: str, count: int = 24, first: int = 0) -> tuple[Any, Items]:
    items, knobs = SMALL[name]
    kind = KINDS[items](**knobs)
    return kind, kind.items(Draw(mixed(torch.arange(first, first + count))), TEXT)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_and_ranges(name: str) -> None:
    kind, items = some(name)
    asked_BT = items.targets != IGNORED
    assert items.tokens.shape == items.targets.shape == items.answers.shape == (24, kind.context)
    assert int(items.tokens.min()) >= 0 and int(items.tokens.max()) < kind.vocab and kind.choices.stop <= kind.vocab
    assert set(items.targets[asked_BT].tolist()) <= set(kind.choices) and bool(asked_BT.any())
    assert torch.equal(items.answers >= 0, asked_BT)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name][0] in SOLVERS])
def test_targets_are_what_the_tokens_say(name: str) -> None:
    """Every target of every item, and none that the definition does not ask for."""
    kind, items = some(name)
    for tokens, targets in zip(items.tokens.tolist(), items.targets.tolist(), strict=True):
        said = SOLVERS[SMALL[name][0]](kind, tokens)
        told = {t: y for t, y in enumerate(targets) if y != IGNORED}
        if name == "fuzzy":  # whether the last pair is whole cannot be told from its tokens
            assert said.items() <= told.items() and all(told[t] == tokens[t + 1] for t in list(told)[:-1])
        elif SMALL[name][0] in ("aa", "abab", "counters"):  # nor whether the last word is
            last = len(tokens) - 1 - tokens[::-1].index(0)
            assert told.items() <= said.items() and {t for t in told if t < last} == set(range(last))
        else:
            assert said == told


def test_facts_are_the_same_in_every_item_and_others_under_another_number() -> None:
    kind, items = some("memorisation", 200)
    asked_BT = items.targets != IGNORED
    keys, values = items.tokens[:, :-1][asked_BT[:, 1:]], items.targets[:, 1:][asked_BT[:, 1:]]
    pairs = set(zip(keys.tolist(), values.tolist(), strict=True))
    assert len(pairs) == kind.keys == len({value for _, value in pairs})
    other = KINDS["memorisation"](context=13, vocab=12, facts=4).items(Draw(mixed(torch.arange(200))), None)
    assert not torch.equal(other.targets, items.targets) and torch.equal(other.tokens, items.tokens)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name][0] not in ("passkey", "number", "word")])
def test_guessing_is_right_by_chance(name: str) -> None:
    """The stated chance lies in the 99.99 % interval of what guessing gets in a few thousand answers."""
    kind, items = some(name, 400)
    draw = torch.Generator().manual_seed(0)
    guess_BT = torch.randint(kind.choices.start, kind.choices.stop, items.tokens.shape, generator=draw)
    right_B, asked_B = graded(guess_BT == items.targets, items.answers)
    p, n = kind.chance, int(asked_B.sum())
    assert abs(float(right_B.sum()) / n - p) < 4 * (p * (1 - p) / n) ** 0.5 + 1 / n


def test_chance_of_a_needle_counts_its_values() -> None:
    assert KINDS["passkey"](**SMALL["passkey"][1]).chance == pytest.approx(1e-5)
    assert KINDS["word"](**SMALL["word"][1]).chance == pytest.approx(1 / (70 * 70 * 14))


def test_a_needle_lies_as_deep_as_its_mark_says() -> None:
    kind, items = some("passkey", 60)
    found = {}
    for tokens, depth in zip(items.tokens.tolist(), items.marks["depth"].tolist(), strict=True):
        found.setdefault(depth, set()).add(bytes(tokens).index(b"\nThe pass key is "))
    assert sorted(found) == [0, 0.5, 1] and all(len(places) == 1 for places in found.values())
    first, middle, last = (found[depth].pop() for depth in sorted(found))
    assert (
        first == 0
        and abs(2 * middle - last) <= 1
        and last + len("\nThe pass key is 12345. Remember it.\n") < kind.context
    )


def test_a_haystack_may_be_longer_than_its_text() -> None:
    kind = KINDS["passkey"](**SMALL["passkey"][1] | {"context": 3 * len(TEXT)})
    assert kind.items(Draw(torch.arange(2)), TEXT).tokens.shape == (2, 3 * len(TEXT))


def test_an_item_is_the_same_alone_and_among_others() -> None:
    for name in SMALL:
        _, many = some(name, 9)
        _, one = some(name, 1, first=7)
        assert torch.equal(one.tokens[0], many.tokens[7]) and torch.equal(one.targets[0], many.targets[7])


def test_items_differ() -> None:
    for name in SMALL:
        _, items = some(name, 24)
        assert len(torch.unique(items.tokens, dim=0)) > 20


def test_queries_come_sooner_with_a_smaller_power() -> None:
    def mean(power: float) -> float:
        kind = KINDS["associative"](context=128, vocab=32, pairs=4, power=power)
        items = kind.items(Draw(mixed(torch.arange(64))), None)
        return float((items.targets != IGNORED).nonzero()[:, 1].double().mean())

    assert mean(0.01) < mean(1.0) - 10 and abs(mean(1.0) - (8 + 127) / 2) < 6


def test_share_of_nothing_says_that_nothing_is_known() -> None:
    assert Share.of(torch.zeros(3), torch.zeros(3)) == Share(0.0, 0.0, 1.0, 0, 0)


@pytest.mark.parametrize("name", [name for name in tasks() if name != "fuzzy_recall"])
def test_stated_chance_is_that_of_every_token_guessed(name: str) -> None:
    """The mean over all answers of 1 / choices^tokens.  Needles are guessed among values alone."""
    task = Task.read(load_task(name).as_dict())
    if task.hides or task.ordered:
        pytest.skip("made from a text, or learned in order")
    kind = task.kind()
    answers_BT = task.make("test", range(400), test=next(iter(task.tests))).answers
    count_BN = torch.zeros(len(answers_BT), int(answers_BT.max()) + 1)
    count_BN.scatter_add_(1, answers_BT.clamp_min(0), (answers_BT >= 0).float())
    tokens = count_BN[count_BN > 0].double()
    guessed = (len(kind.choices) ** -tokens).mean()
    assert kind.chance == pytest.approx(float(guessed), rel=0.15)  # of words the lengths are drawn


def test_every_fact_can_be_learned() -> None:
    """At every degree of difficulty each key of `memorisation` stands in some training item."""
    told = load_task("memorisation")
    for degree in ({}, *told.sweep):
        knobs = {**told.knobs, "examples": told.examples, **degree}
        asked = knobs["examples"] * knobs["context"] // 2
        assert asked >= 32 * (knobs["vocab"] - 1) // 2
