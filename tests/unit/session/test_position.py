"""Tokens that are read one at a time: each once, and what they teach at the next border, or when somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nlc.compile import compile
from nlc.spec import load
from runtime.ops import one as products
from runtime.session import Session, find, near
from tests.differential.sessions import apart, assert_same, package, text, trained, weights_of

Made = tuple[Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Hope: a border every 24 tokens (cms.fast), 64 (titans) and 96 (cms.mid)."""
    return package("hope", tmp_path_factory.mktemp("hope"))


@pytest.fixture
def session(made: Made) -> Session:
    return Session(trained(made))


def test_a_token_costs_one_pass_and_a_border_one_more(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    words, lengths, read = text(60), [], session.model.read
    session.feed(words[:25])
    session.model.steady = False  # or tokens are read by a tape
    monkeypatch.setattr(session.model, "read", lambda *given: lengths.append(given[0].shape[1]) or read(*given))
    for word in words[25:52]:
        session.feed(word[None])
    # Before token 25 the one that the state kept is read; at 48 a period of 24 is learned from, and token 48 read.
    assert lengths == [1, *[1] * 23, 24, 1, 1, 1, 1]


def test_the_state_is_there_when_it_is_asked_for(session: Session, made: Made) -> None:
    words, whole = text(60), Session(trained(made))
    logits = whole.feed(words)
    found = [session.feed(words[:25])]
    for i, word in enumerate(words[25:]):
        found.append(session.feed(word[None]))
        if i % 5 == 0:
            assert session.stream.state is not None
    assert apart(torch.cat(found), logits) < 1e-12
    assert_same(session, whole)


def test_what_waits_is_learned_by_the_levels_that_learned_then(session: Session, made: Made) -> None:
    other, words = Session(trained(made)), text(60)
    for one in (session, other):
        one.feed(words[:30])
    for word in words[30:40]:
        session.feed(word[None])
    other.feed(words[30:40])
    for one in (session, other):
        one.learn = ["titans"]
        one.feed(words[40:50])
        one.learn = False
        one.feed(words[50:])
    assert_same(session, other)


def test_a_fork_and_a_border_take_along_what_waits(session: Session, made: Made) -> None:
    other, words = Session(trained(made)), text(60)
    session.feed(words[:30])
    for word in words[30:35]:
        session.feed(word[None])
    other.feed(words[:35])
    fork = session.fork()
    for one in (session, other):
        one.border()
        one.feed(words[35:40])
    assert_same(session, other)
    assert fork.stream.state is not None and int(fork.stream.state["clock"]["sequence"][0]) == 34


PLAIN = {"sizes.width": 16, "sizes.heads": 2, "sizes.layers": 2, "sizes.vocab": 256, "run.batch": 2}
VARIANTS = {
    "linear_attention": {},  # read after each write: written as it goes
    "titans_lmm": {"levels.titans.chunk": "8"},
    "hope": {"levels.cms.memories.fast.every": "8 tokens", "levels.titans.carry": "stream", "levels.titans.chunk": "1"},
    "hope_deep": {"levels.cms.memories.fast.every": "6 tokens", "levels.cms.tail": "flush"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_token_by_token_is_a_few_at_a_time(name: str, tmp_path: Path) -> None:
    program = compile(load(name, {**PLAIN, **VARIANTS[name]}), tmp_path / name)
    made, words = (tmp_path / name, weights_of(program, tmp_path / "weights.safetensors")), text(90)
    one, other = Session(trained(made)), Session(trained(made))
    flushed = bool(one.model.ending)  # then calls are part of what is meant
    words = words[:20] if flushed else words
    for part in words.split(1 if flushed else 7):
        other.feed(part)
    for word in words:
        one.feed(word[None])
        assert flushed or len(one.stream.position._waiting) <= 64
    assert_same(one, other)


@pytest.mark.parametrize("how", ["asked", "saved"])
def test_twenty_tokens_are_seven_and_a_save_and_thirteen_to_the_bit(made: Made, tmp_path: Path, how: str) -> None:
    """In float32, over a border of cms.fast, at token 48."""
    single = find(made[0], weights=made[1], dtype=torch.float32)
    found: list[list[torch.Tensor]] = []
    for cuts in ([20], [7, 13]):
        session, logits = Session(single, seed=1), []
        session.feed(text(37))
        for count in cuts:
            for _ in session.generate(count):
                assert session.stream.logits is not None
                logits.append(session.stream.logits)
            assert session.stream.state is not None
            if how == "saved":
                session = Session.load(session.save(tmp_path / "state"), single)
        found.append(logits)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_registers_lie_in_memory_as_they_do_after_a_load(session: Session) -> None:
    for words in (text(70), text(3), text(1), text(1)):
        session.feed(words)
        waiting = session.stream.position.waiting
        for state in (session.stream.state, waiting and waiting.seen):
            assert all(x.is_contiguous() for register in (state or {}).values() for x in register.values())


def test_where_large_weights_and_registers_lie_changes_no_result(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, words = Session(trained(made)), text(60)
    logits = whole.feed(words)
    for module in (products, near):
        monkeypatch.setattr(module, "NEAR", (0, 1 << 23))  # all are large
    session, found = Session(trained(made)), []
    for word in words:
        before = session.stream.state
        kept = {place: {n: x.clone() for n, x in r.items()} for place, r in (before or {}).items()}
        found.append(session.feed(word[None]))
        assert all(torch.equal(x, kept[place][n]) for place, r in (before or {}).items() for n, x in r.items())
    assert apart(torch.cat(found), logits) < 1e-12
    assert_same(session, whole)


def test_what_is_observed_is_the_state_without_a_look_at_the_last_token(session: Session) -> None:
    model, words = session.model, text(40)[None]
    _, state = model(words[:, :30])
    _, whole = model(words[:, 30:], state)
    found = model.observed(words[:, 30:], state)
    assert all(torch.equal(x, whole[place][n]) for place, register in found.items() for n, x in register.items())
    assert found.keys() == whole.keys()


def test_registers_that_no_write_has_changed_are_not_copied_again() -> None:
    kept, other = torch.randn(1, 2048, 128), torch.randn(1, 128, 2048)
    first = near.registers({"a": {"W": kept, "sum.W": kept + 1}, "b": {"W": other}})
    again = near.registers({"a": {"W": kept}, "b": {"W": other + 1}})
    assert again["a"]["W"] is first["a"]["W"] and again["b"]["W"] is not first["b"]["W"]
    assert torch.equal(first["a"]["W"], kept) and first["a"]["W"].stride(-2) == 1  # short rows, long columns
    assert torch.equal(first["b"]["W"], other) and first["b"]["W"].stride(-1) == 1
