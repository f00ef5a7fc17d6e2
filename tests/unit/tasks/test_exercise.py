"""Training on a task and being examined: which items, what is shown and left alone, what an untrained model gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nlc
from nlc.spec import load_task
from runtime import data, exercise
from runtime.data import Data
from runtime.errors import DataError
from runtime.evaluate.tasks import Task
from runtime.evaluate.tasks.items import IGNORED
from runtime.exercise import Drill, Exercise, examine
from tests.unit.tasks.examples import SMALL
from tests.unit.tasks.test_splits import task

TINY = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 1, "sizes.vocab": 256, "sizes.context": 32}
HOPE = TINY | {
    "levels.titans.chunk": 4, "levels.cms.memories.fast.every": "4 tokens", "levels.cms.memories.mid.every": "8 tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def hay(tmp_path_factory: pytest.TempPathFactory) -> Data:
    path = tmp_path_factory.mktemp("hay") / "text.txt"
    path.write_bytes(b"It was the best of times, it was the worst of times.\n" * 100)
    return data.load(path)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return nlc.compile(nlc.load("transformer", set=TINY)).model(seed=0)


@pytest.fixture(scope="module")
def hope() -> nn.Module:
    return nlc.compile(nlc.load("hope", set=HOPE)).model(seed=0)


def of(name: str, hay: Data | None = None) -> Exercise:
    made = task(name)
    return Exercise(made, hay if made.hides else None)


def test_steps_take_item_after_item_and_ranks_share_them() -> None:
    made = of("copying")
    whole = [Drill(made, 4, seed=5).at(step) for step in (0, 1)]
    assert torch.equal(torch.cat([b.tokens for b in whole]), made.task.make("train", range(8), seed=5).tokens)
    assert whole[0].starts is None and int((whole[0].targets != IGNORED).sum()) == 4 * 5
    parts = [Drill(made, 4, 5, rank, 2).at(1).tokens for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole[1].tokens)
    starts_BT = Drill(made, 4, 5, streams=True).at(1).starts
    assert starts_BT is not None and starts_BT.nonzero()[:, 1].tolist() == [0] * 4


@pytest.mark.parametrize("name", SMALL)
def test_an_untrained_model_scores_chance(name: str, transformer: nn.Module, hay: Data) -> None:
    """A twentieth more at most: with its embedding for a head it repeats a token, which some first answers are."""
    found = examine(transformer, of(name, hay), "as trained", items=64, tokens=256)
    chance = of(name).task.kind().chance
    assert found.share.low <= chance + 0.05 and found.share.answers >= 64


def test_the_model_is_left_alone(hope: Any) -> None:
    hope.train()
    before, fires = {n: p.clone() for n, p in hope.named_parameters()}, dict(hope.fires)
    examine(hope, of("in_context"), "as trained", items=4, tokens=64)
    assert hope.training and hope.fires == fires and all(torch.equal(p, before[n]) for n, p in hope.named_parameters())


def test_learning_off_is_another_model() -> None:
    model = nlc.compile(nlc.load("deltanet", set=TINY)).model(seed=0)
    for weight in model.parameters():  # what a memory says is added with weights that begin at zero
        nn.init.normal_(weight, std=0.3)
    losses = [examine(model, of("in_context"), "as trained", items=4, tokens=64, learn=on).loss for on in (True, False)]
    assert losses[0] != losses[1]


def test_what_is_predicted_is_what_reading_gives_where_no_memory_learns_from_the_loss() -> None:
    model: Any = nlc.compile(nlc.load("deltanet", set=TINY)).model(seed=0).double()
    tokens = torch.arange(40).view(2, 20) % 7
    none = torch.full_like(tokens, IGNORED)
    with torch.no_grad():
        assert torch.allclose(model.predicted(tokens, none), model(tokens)[0], rtol=1e-12, atol=1e-12)
        still = model.unlearning(tokens)[0]
        assert torch.allclose(model.predicted(tokens, none, False), still, rtol=1e-12, atol=1e-12)


def test_no_answer_is_shown_to_a_memory_that_learns_from_the_loss(hope: Any) -> None:
    """With targets, the continuum of hope learns from them inside a sequence; an examination has none to give."""
    tokens = torch.arange(64).view(2, 32) % 7
    fed = [torch.full_like(tokens, 3), torch.full_like(tokens, 5)]
    with torch.no_grad():
        states = [hope.nats(tokens, y)[1] for y in fed]
        register = "blocks.0.cms.fast"
        assert not torch.equal(states[0][register]["W_in"], states[1][register]["W_in"])
        taught = hope.run(tokens, fed[0], hope.start(2), {"sequence": 0, "stream": 0}, True, hope.learning(True))[0]
        none = torch.full_like(tokens, IGNORED)
        assert torch.equal(hope.predicted(tokens, fed[0]), taught)
        assert not torch.allclose(hope.predicted(tokens, none), taught)
        assert torch.equal(hope.predicted(tokens, fed[0], False), hope.predicted(tokens, none, False))


@pytest.mark.parametrize("whole", [0, 1])
def test_a_text_that_is_learned_may_be_learned_from_when_asked_what_it_is(whole: int) -> None:
    """As in training: its bytes teach a memory that learns from the loss, those of the label never do."""
    made = exercise.load(Task.read(load_task(f"class_incremental(whole={whole})").as_dict()))
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def predicted(self, tokens: torch.Tensor, targets: torch.Tensor, learn: bool) -> torch.Tensor:
            seen.append(targets)
            return torch.zeros(*tokens.shape, 256)

    items = made.items("test", range(4), test="after all tasks")
    found = examine(Spy(), made, "after all tasks", items=4, tokens=10_000)
    (known,) = seen
    assert (known[items.answers >= 0] == IGNORED).all() and found.share.answers == 4
    taught = known != IGNORED
    assert bool(taught.any()) == bool(whole) and torch.equal(known[taught], items.tokens.roll(-1, 1)[taught])


def test_what_is_kept_of_it_makes_it_again(hay: Data, tmp_path: Path) -> None:
    made = of("passkey", hay)
    facts = made.facts()
    again = exercise.load(type(made.task).read(facts["task"]), facts["path"], facts["field"])
    assert again.facts() == facts and torch.equal(Drill(again, 2, 0).at(3).tokens, Drill(made, 2, 0).at(3).tokens)
    other = tmp_path / "other.txt"
    other.write_bytes(b"x" * 3000)
    assert exercise.load(made.task, other).facts()["sha256"] != facts["sha256"]
    assert of("parity").facts()["sha256"] != of("copying").facts()["sha256"]


def test_what_does_not_go_together_is_refused(hay: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"say --set sizes.context=21 --set sizes.vocab=2"):
        of("parity").check(64, 256)
    with pytest.raises(DataError, match="--data is for tasks that hide something"):
        exercise.load(task("parity"), hay.path)
    for text, said in (("[]", "does not describe a task"), ("{", "is not JSON"), ("{}", "name is missing")):
        (tmp_path / "task.json").write_text(text)
        with pytest.raises(DataError, match=said):
            exercise.read(tmp_path / "task.json")
    with pytest.raises(DataError, match="No such file"):
        exercise.read(tmp_path / "none.json")


def test_a_text_is_known_once_it_has_been_asked_for(hope: Any, hay: Data) -> None:
    """A memory that learns from the loss may learn from the bytes so far: the same loss as reading the text gives."""
    of = Exercise(Task.read(load_task("text(context=32)").as_dict()), hay)
    items = of.items("test", range(4), test="as trained")
    assert torch.equal(items.tokens[:, 1:], items.targets[:, :-1])
    found = examine(hope, of, "as trained", items=4, tokens=1000)
    with torch.no_grad():
        told = hope.loss(items.tokens, items.targets, final=True)[0]
        still = hope.loss(items.tokens, items.targets, final=True, learn=False)[0]
    assert found.loss == pytest.approx(float(told), rel=1e-5) and abs(float(told - still)) > 1e-6
    assert examine(hope, of, "as trained", items=4, tokens=1000, learn=False).loss == pytest.approx(
        float(still), rel=1e-5
    )
