"""Sequences of tasks that are learned in order, and what is known of them: by a plain program, and by no training."""

from __future__ import annotations

import os
from collections import Counter
from math import log2
from pathlib import Path
from typing import Any

import pytest
import torch

import nlc
from nlc.spec import load_task
from runtime.errors import DataError
from runtime.evaluate.tasks import Task
from runtime.evaluate.tasks.continual.classes import ClassLessons, Topics
from runtime.evaluate.tasks.continual.domains import Domains
from runtime.evaluate.tasks.continual.labelled import cut
from runtime.evaluate.tasks.continual.lessons import How
from runtime.evaluate.tasks.items import IGNORED
from runtime.evaluate.tasks.kinds import ORDERED

KNOBS: dict[str, Any] = {
    "context": 32, "tasks": 3, "classes": 2, "shots": 16, "passes": 1, "replay": 0, "mixed": 0, "whole": 0, "order": 0,
    "words": 2, "length": 5,
}  # fmt: skip
TINY = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.vocab": 256, "sizes.context": 32}


def lessons(**changed: int) -> ClassLessons:
    return Topics(**KNOBS | changed).lessons()


def test_a_sequence_is_a_text_a_tab_and_a_label_that_is_asked_for() -> None:
    made = lessons()
    items = made.items("train", [0])
    example = made.training[0]
    end = made.ends[example.label]
    tokens, targets = bytes(items.tokens[0].tolist()), items.targets[0]
    assert tokens.strip(b"\n") == example.text + b"\t" + end[:-1] and tokens.index(b"\t") == made.room
    assert bytes(targets[targets != IGNORED].tolist()) == end
    assert items.answers[0][targets != IGNORED].tolist() == [0] * len(end)
    following = items.tokens[0, 1:][targets[:-1] != IGNORED]
    assert bytes(following.tolist()) == end[:-1] + b"\n"[: len(following) - len(end) + 1]
    whole = lessons(whole=1).items("train", [0]).targets[0]
    assert bytes(whole[whole != IGNORED].tolist()) == (example.text + b"\t" + end)[1:]


def test_training_and_test_share_no_text() -> None:
    made = lessons()
    assert not {e.text for e in made.training} & {e.text for e in made.testing}
    assert Counter(e.label for e in made.training) == dict.fromkeys(range(6), 16)


def test_what_is_left_of_a_long_text_is_asked_or_learned() -> None:
    """Sequences too, not texts alone, are in one of both."""

    def made(context: int, *test: str) -> ClassLessons:
        train, asked = (
            [("tell me a joke", "fun"), ("pay", "money")],
            [*((text, "fun") for text in test), ("rent", "money")],
        )
        of = cut("here", train, asked, ["fun", "money"], 2, 1, 0, 0)
        return ClassLessons(Topics(**KNOBS | {"context": context}), of, None)

    context = len("money\na joke")
    assert {e.text for e in made(32, "never a joke", "sing").testing} == {b"never a joke", b"sing", b"rent"}
    short = made(context, "never a joke", "sing")
    assert {e.text for e in short.testing} == {b"sing", b"rent"} and short.facts()["test_examples"] == 2
    with pytest.raises(DataError, match="the last 6 bytes of every test text of label 'fun' end a training text, too"):
        made(context, "never a joke")


def test_the_order_depends_on_its_seed_alone() -> None:
    assert lessons().of.labels == lessons().of.labels and lessons().digest == lessons().digest
    assert lessons(order=1).of.labels != lessons().of.labels and set(lessons(order=1).of.labels) == set(
        lessons().of.labels
    )


def test_a_program_that_counts_words_solves_it_in_any_order() -> None:
    """Naive Bayes forgets nothing: so whatever a model loses it had learned."""
    made = lessons()
    counts = [Counter(word for e in made.training if e.label == label for word in e.text.split()) for label in range(6)]

    def guess(text: bytes) -> int:
        return max(range(6), key=lambda label: sum(log2(counts[label][word] + 1) for word in text.split()))

    right = sum(guess(e.text) == e.label for e in made.testing)
    assert right / len(made.testing) > 0.97


@pytest.mark.parametrize("spec", ["transformer", "deltanet"])
def test_an_untrained_model_scores_chance(spec: str) -> None:
    made = lessons(tasks=4, classes=4)
    model: Any = nlc.compile(nlc.load(spec, set=TINY)).model(seed=0)
    known = made.known(model, range(4), 3, How(32, 2048))
    right = sum(float(one.right_B.sum()) for one in known) / 128
    assert right <= 1 / 16 + 0.1 and all(one.share.items == 32 for one in known)


def test_labels_that_are_asked_are_those_seen_and_the_tasks_own() -> None:
    """After task 1 a text of task 2 is told from the labels of both: the chance that is taken from it says so."""
    made = lessons()
    asked: list[int] = []
    from runtime.evaluate.tasks.continual import classes

    def spy(model: Any, text: Any, labels: Any, **how: Any) -> Any:
        asked.append(len(labels))
        return torch.zeros(len(text), dtype=torch.long)

    before, classes.likeliest = classes.likeliest, spy  # type: ignore[attr-defined]
    try:
        made.known(torch.nn.Linear(1, 1), [0, 1, 2], 1, How(8, 10_000))  # type: ignore[arg-type]
    finally:
        classes.likeliest = before  # type: ignore[attr-defined]
    assert asked == [4, 6] and made.chances == [1 / 2, 1 / 4, 1 / 6]


def test_a_text_that_is_too_long_loses_its_beginning() -> None:
    made = lessons(context=20)
    item = made.items("train", [0])
    assert bytes(item.tokens[0, : made.room].tolist()) == made.training[0].text[-made.room :]
    with pytest.raises(DataError, match="have no room for a text and label"):
        Topics(**KNOBS | {"context": 5}).lessons()


def test_domains_are_the_same_text_in_alphabets_of_their_own(tmp_path: Path) -> None:
    for name, text in (("a.txt", b"the cat sat. " * 60), ("b.txt", b"le chat dort. " * 60)):
        (tmp_path / name).write_bytes(text)
    knobs: dict[str, Any] = {
        "context": 16,
        "domains": 2,
        "sequences": 8,
        "passes": 1,
        "replay": 0,
        "mixed": 0,
        "order": 0,
    }
    made = Domains(**knobs).lessons(tmp_path)
    items = made.items("train", [0, 8])
    assert b"cat" in bytes(items.tokens[0].tolist()) and b"chat" in bytes(items.tokens[1].tolist()) * 2
    assert torch.equal(items.tokens[:, 1:], items.targets[:, :-1])
    assert made.course(4).ends == (2, 4)
    with pytest.raises(DataError, match="has 2 files, and 3 domains are a file each"):
        Domains(**knobs | {"domains": 3}).lessons(tmp_path)
    model: Any = nlc.compile(nlc.load("transformer", set=TINY)).model(seed=0)
    known = made.known(model, [0, 1], 0, How(4, 64))
    assert all(7.5 < one.value < 10 for one in known)  # bits per byte of a model that knows nothing
    built_in = Domains(**knobs).lessons()
    one, other = (pair[0].tokens[:4000] for pair in built_in.texts)
    assert not torch.equal(one, other) and sorted(one.bincount(minlength=256)) == sorted(other.bincount(minlength=256))


@pytest.mark.parametrize("name", ["class_incremental", "text_domains"])
def test_a_shipped_task_is_what_its_lessons_are(name: str) -> None:
    task = Task.read(load_task(name).as_dict())
    made = task.kind().lessons()  # type: ignore[attr-defined]
    assert task.ordered and made.tasks == len(made.chances) and made.course(16).steps > 0


@pytest.mark.skipif("NLC_DATA" not in os.environ, reason="NLC_DATA names no folder with the published sets")
@pytest.mark.parametrize("name", [name for name in ORDERED if name not in ("topics", "domains")])
def test_the_published_sets_as_lessons(name: str) -> None:
    """Ten tasks of fifteen labels and their like; no training text is in the test."""
    task = Task.read(load_task(name).as_dict())
    made = task.kind().lessons()  # type: ignore[attr-defined]
    knobs = task.knobs
    assert made.tasks == knobs["tasks"] and made.of.each == knobs["classes"] and made.room >= 64
    assert not {e.text for e in made.training} & {e.text for e in made.testing}
    assert made.items("test", range(4)).tokens.shape == (4, knobs["context"])
    if name == "clinc150":
        assert made.of.facts()["test_examples"] == 4500
        changed = Task.read(load_task("clinc150(by_domain=1)").as_dict())
        labels = changed.kind().lessons().of.labels  # type: ignore[attr-defined]
        assert len(set(labels)) == 150 and labels[0] != made.of.labels[0]
