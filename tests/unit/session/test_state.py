"""A state on disk: whole, whose it is, what it says, and going on from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.errors import RunError
from runtime.session import Sampling, Session, Trained, find, saved
from tests.differential.sessions import package, text, trained


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return package("hope", tmp_path_factory.mktemp("hope"))


@pytest.fixture
def session(made: tuple[Path, Path]) -> Session:
    """Hope after 60 tokens: 12 in a period of 24, 60 in a chunk of 64 and a period of 96."""
    one = Session(trained(made), seed=4)
    one.read(text(60))
    return one


def other_weights(made: tuple[Path, Path], folder: Path) -> Trained:
    weights = load_file(made[1])
    weights["embedding"] = weights["embedding"] + 0.1
    save_file(weights, folder / "other.safetensors")
    return find(made[0], weights=folder / "other.safetensors", dtype=torch.float64)


def test_what_is_drawn_does_not_depend_on_saves(session: Session, tmp_path: Path) -> None:
    whole = list(session.fork().generate(12, Sampling(0.9, top_k=40)))
    found = []
    for _ in range(3):
        found += list(session.generate(4, Sampling(0.9, top_k=40)))
        session = Session.load(session.save(tmp_path / "state"), session.trained)
    assert found == whole and session.tokens == 72


def test_a_token_that_is_drawn_has_been_read(session: Session) -> None:
    other = session.fork()
    drawn = list(session.generate(5))
    other.feed(drawn)
    assert session.stream.logits is not None and other.stream.logits is not None
    assert torch.allclose(session.stream.logits, other.stream.logits, rtol=1e-10)


def test_a_stream_that_nobody_began_begins_as_a_document_does(made: tuple[Path, Path]) -> None:
    one, other = Session(trained(made)), Session(trained(made))
    other.feed(list(b"\n"))
    assert list(one.generate(3, Sampling(0))) == list(other.generate(3, Sampling(0)))


def test_forks_go_their_own_ways(session: Session) -> None:
    other = session.fork()
    other.feed([1, 2, 3])
    assert (session.tokens, other.tokens) == (60, 63)
    session.reset()
    assert session.tokens == 0 and session.stream.state is None


def test_a_border_begins_a_document(session: Session, made: tuple[Path, Path]) -> None:
    session.border()
    fresh = Session(trained(made))
    assert torch.allclose(session.feed(text(20)), fresh.feed(text(20)), rtol=1e-10)
    assert session.tokens == 80


def test_learning_off_leaves_every_memory_at_its_start(made: tuple[Path, Path], tmp_path: Path) -> None:
    session = Session(trained(made), learn=False)
    session.read(text(130))
    facts = saved.read(session.save(tmp_path / "state")).facts
    assert facts["learn"] == [] and all(memory["distance"] == 0 for memory in facts["memories"].values())


def test_levels_are_named_and_a_name_may_stand_for_several(session: Session) -> None:
    session.learn = ["cms"]
    assert session.learn == {"cms.fast", "cms.mid"}
    with pytest.raises(RunError, match=r"no level 'titan'.*did you mean 'titans'.*levels: titans, cms.fast, cms.mid"):
        session.learn = ["titan"]


def test_a_state_says_what_its_memories_hold(session: Session, tmp_path: Path) -> None:
    before = session.stream.state
    session.feed(text(61)[60:])
    found = saved.read(session.save(tmp_path / "state"))
    assert before is not None and session.stream.state is not None
    key = found.facts["memories"]["blocks.0.titans.key"]
    now, start = session.stream.state["blocks.0.titans.key"]["M"][0], session.model.blocks[0].titans.key.start
    assert math.isclose(key["norm"], float(now.norm()))
    assert math.isclose(key["distance"], float((now - start).norm()))
    assert math.isclose(key["moved"], float((now - before["blocks.0.titans.key"]["M"][0]).norm()))
    fast = found.facts["memories"]["blocks.1.cms.fast"]  # the last token waits for its target: 60 are learned from
    assert fast["pending"] == 12 and fast["gathered"] > 0 and key["pending"] == 60 and key["gathered"] is None
    assert found.facts["tokens"] == 61 and found.facts["surprise"]["tokens"] == 60


def test_surprise_is_what_the_text_costs_whatever_the_calls(session: Session, made: tuple[Path, Path]) -> None:
    words = text(60)
    logits = Session(trained(made)).feed(words)
    nats = torch.nn.functional.cross_entropy(logits[:-1], words[1:], reduction="sum")
    other = Session(trained(made))
    for piece in words.split(7):
        other.feed(piece)
    for one in (session, other):
        assert math.isclose(one.stream.surprise.nats, float(nats)) and one.stream.surprise.tokens == 59


@pytest.mark.parametrize("name", ["state.safetensors", "session.json", "manifest.json"])
def test_an_altered_file_is_named(session: Session, tmp_path: Path, name: str) -> None:
    place = session.save(tmp_path / "state")
    data = bytearray((place / name).read_bytes())
    data[0] ^= 1
    (place / name).write_bytes(data)
    with pytest.raises(RunError, match=name) as refused:
        Session.load(place, session.trained)
    assert refused.value.status == 4


def test_a_missing_file_is_named(session: Session, tmp_path: Path) -> None:
    place = session.save(tmp_path / "state")
    (place / "state.safetensors").unlink()
    with pytest.raises(RunError, match=r"torn: state.safetensors is missing"):
        Session.load(place, session.trained)


def test_other_weights_are_refused_unless_allowed(session: Session, made: tuple[Path, Path], tmp_path: Path) -> None:
    place, other = session.save(tmp_path / "state"), other_weights(made, tmp_path)
    with pytest.raises(RunError, match=r"another model(.|\n)*weights: \w{16} -> \w{16}(.|\n)*--allow") as refused:
        Session.load(place, other)
    assert refused.value.status == 2
    assert Session.load(place, other, allow=True).tokens == 60


def test_another_program_is_refused_and_says_what_differs(session: Session, tmp_path: Path) -> None:
    place = session.save(tmp_path / "state")
    for name, said in (("titans_lmm", "memory titans.key M: .* -> nothing"), ("hope_attention", "graph: ")):
        with pytest.raises(RunError, match=said):
            Session.load(place, trained(package(name, tmp_path)), allow=True)


def test_a_state_goes_where_the_model_is(session: Session, made: tuple[Path, Path], tmp_path: Path) -> None:
    there = trained(made)
    there.model.to("meta")
    state = Session.load(session.save(tmp_path / "state"), there).stream.state
    assert state is not None and {x.device.type for x in state["clock"].values()} == {"cpu"}
    parts = [x for place, register in state.items() if place != "clock" for x in register.values()]
    assert {x.device.type for x in parts} == {"meta"}


def test_a_session_computes_in_the_precision_of_its_run(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    under, run = [], session.model.run
    monkeypatch.setattr(
        session.model, "run", lambda *given: under.append(torch.is_autocast_enabled("cpu")) or run(*given)
    )
    half = replace(session.trained, settings=replace(session.trained.settings, precision="bfloat16"))
    for run_of, mixed in ((session.trained, False), (half, True)):
        one = Session(run_of)
        one.feed([5, 6])
        one.feed([7])  # its lesson waits
        assert one.stream.state is not None and under == [mixed] * len(under)
        under.clear()


def test_another_precision_is_refused(session: Session, made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="dtype: float64 -> float32"):
        Session.load(session.save(tmp_path / "state"), find(made[0], weights=made[1], dtype=torch.float32), allow=True)


def test_nothing_but_a_state_is_replaced(session: Session, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RunError, match="is no saved state: give another name"):
        session.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    session.save(tmp_path / "state")
    session.feed([5])
    assert saved.read(session.save(tmp_path / "state")).facts["tokens"] == 61


def test_a_copy_is_whole_and_replaces_nothing(session: Session, tmp_path: Path) -> None:
    place = session.save(tmp_path / "state")
    copy = saved.fork(place, tmp_path / "copy")
    assert (copy / "state.safetensors").read_bytes() == (place / "state.safetensors").read_bytes()
    assert json.loads((copy / "session.json").read_text()) == json.loads((place / "session.json").read_text())
    with pytest.raises(RunError, match="already there"):
        saved.fork(place, copy)


def test_a_state_names_nothing_of_the_machine(session: Session, made: tuple[Path, Path], tmp_path: Path) -> None:
    place = session.save(tmp_path / "state")
    assert str(made[0].parent) not in (place / "session.json").read_text()
    moved = place.rename(tmp_path / "elsewhere")
    assert Session.load(moved, session.trained).tokens == 60


@pytest.mark.parametrize(
    ("tokens", "said"),
    [([], "at least one"), ([300], "token 300 is outside the vocabulary of 256"), ([-1], "token -1")],
)
def test_tokens_that_cannot_be_read_are_refused(session: Session, tokens: list[int], said: str) -> None:
    with pytest.raises(RunError, match=said):
        session.feed(tokens)


def test_nothing_read_is_nothing_to_save(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing has been read yet"):
        Session(trained(made)).save(tmp_path / "state")
