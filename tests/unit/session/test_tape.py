"""A tape says of every token what the model says, to the bit; what it cannot answer for has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nlc.compile import compile
from nlc.spec import load
from runtime.session import Session
from runtime.session.tape import Bound, Recording, record
from runtime.state import State
from tests.differential.sessions import TINY, package, text, trained, weights_of

STEADY = {
    "hope": {"levels.cms.memories.fast.every": "12 tokens"},
    "hope_deep": {"levels.cms.memories.fast.every": "12 tokens", "levels.titans.chunk": "24"},
}


@pytest.fixture(params=STEADY)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    program = compile(load(request.param, {**TINY, **STEADY[request.param]}), tmp_path / request.param)
    return tmp_path / request.param, weights_of(program, tmp_path / "weights.safetensors")


@pytest.mark.parametrize("learn", [True, ["cms.fast"], False], ids=["on", "fast", "off"])
def test_with_and_without_tapes_a_stream_is_the_same_to_the_bit(
    made: tuple[Path, Path], learn: bool | list[str]
) -> None:
    words, found, tapes = text(60), list[Tensor](), 0
    for taped in (True, False):
        session = Session(trained(made), learn=learn)
        session.model.steady &= taped
        logits = [session.feed(words[:14])]
        for word in words[14:]:
            logits.append(session.feed(word[None]))
            tapes += isinstance(session.stream.position._tape, Bound)
        found.append(torch.cat(logits))
        assert session.stream.state is not None
        found += [x for register in session.stream.state.values() for x in register.values()]
    half = len(found) // 2
    assert tapes > 25 and all(torch.equal(*both) for both in zip(found[:half], found[half:], strict=True))


def test_a_register_that_takes_the_value_of_another_where_a_chunk_ends_is_on_no_tape(tmp_path: Path) -> None:
    """The first token by itself is the last one of a chunk; boxes without heads are views that each call makes anew."""
    program = compile(Path("tests/specs/stack_boxes.yaml"), tmp_path / "made")
    one = tmp_path / "made", weights_of(program, tmp_path / "weights.safetensors")
    words, found = text(40) % program.graph.sizes["vocab"], []
    for taped in (True, False):
        for read in (1, 2, 3, 6):
            session = Session(trained(one))
            session.feed(words[:read])
            session.model.steady, session.learn = taped, False
            found.append(torch.cat([session.feed(word[None]) for word in words[read:]]))
    assert all(map(torch.equal, found[:4], found[4:]))


def test_forks_and_what_was_saved_share_a_tape_and_nothing_else(made: tuple[Path, Path], tmp_path: Path) -> None:
    words, session = text(60), Session(trained(made))
    session.feed(words[:15])
    for word in words[15:18]:
        session.feed(word[None])
    fork, place = session.fork(), session.save(tmp_path / "state")
    assert fork.stream.position._tape is not None
    waiting = session.stream.position.waiting
    assert waiting is not None
    kept = {p: {n: x.clone() for n, x in r.items()} for p, r in waiting.seen.items()}
    first = torch.cat([session.feed(word[None]) for word in words[18:22]])
    assert all(torch.equal(x, kept[p][n]) for p, r in waiting.seen.items() for n, x in r.items())
    for word in words[30:32]:
        fork.feed(word[None])
    again = Session.load(place, session.trained)
    assert torch.equal(torch.cat([again.feed(word[None]) for word in words[18:22]]), first)


@pytest.mark.parametrize("name", ["hope_attention", "cms_sequential"])
def test_a_model_that_looks_at_positions_has_none(name: str, tmp_path: Path) -> None:
    found = package("hope_attention", tmp_path) if name == "hope_attention" else None
    program = compile(load(name, TINY), tmp_path / "own")
    session = Session(trained(found or (tmp_path / "own", weights_of(program, tmp_path / "weights.safetensors"))))
    session.feed(text(3))
    for word in text(6)[3:]:
        session.feed(word[None])
    assert not session.model.steady and session.stream.position._tape is None


# ---- a tape alone

W = torch.arange(12.0).view(1, 4, 3)
Reading = Callable[[Tensor, State], tuple[Tensor, State]]


def ordinary(token: Tensor, seen: State) -> tuple[Tensor, State]:
    """Views of a constant, a change in place, several results, a register that moves, and a call for its effect."""
    past, M = torch.cat((seen["conv"]["past"], token), 0)[1:], seen["memory"]["M"]
    M[0].sum()
    a, b = (past @ M[0].mT).split([1, 3], 1)
    return (a * b).clamp_min_(0.5), seen | {"conv": {"past": past}}


def test_a_tape_is_the_operations_that_its_token_needs() -> None:
    seen = {"conv": {"past": torch.zeros(2, 3)}, "memory": {"M": W}}
    _, seen, tape = record(ordinary, torch.ones(1, 3), seen, [])
    assert tape is not None and tape.tape.moving == (("conv", "past"),)
    for i in range(4):
        token, before = torch.full((1, 3), float(i)), seen
        past = before["conv"]["past"].clone()
        logits, after = ordinary(token, before)
        found, seen = tape.read(token, before)
        assert torch.equal(found, logits) and torch.equal(seen["conv"]["past"], after["conv"]["past"])
        assert torch.equal(before["conv"]["past"], past) and seen["memory"] is before["memory"]


def in_shapes(token: Tensor, seen: State) -> tuple[Tensor, State]:
    """A row in several shapes, which is changed in one of them, and is a row of three heads in the end."""
    row = (token + seen["conv"]["past"].squeeze(0)).view(1, 1, 3)
    flat = row.detach().view(3)
    row.mul_(token)
    heads = torch.tanh(flat.unsqueeze(0)).view(1, 3, 1)
    return heads @ heads.transpose(1, 2), seen | {"conv": {"past": flat.view(1, 3).contiguous()}}


def test_rows_go_by_their_numbers_and_have_a_shape_where_it_matters() -> None:
    seen = {"conv": {"past": torch.ones(1, 3)}}
    _, seen, tape = record(in_shapes, torch.ones(1, 3), seen, [])
    assert tape is not None
    for i in range(4):
        token, before = torch.full((1, 3), i / 7), seen
        logits, after = in_shapes(token, before)
        found, seen = tape.read(token, before)
        assert torch.equal(found, logits) and torch.equal(seen["conv"]["past"], after["conv"]["past"])
        assert not (found.is_inference() or seen["conv"]["past"].is_inference())
    with Recording() as recording:
        tape.repeat(token, seen["conv"]["past"])
    names = [step.function.__name__ for step in recording.steps]
    assert names == [*["view"] * 2, "add", "mul_", "tanh", "matmul"]  # those of what is given, and none of results


def in_buffers(token: Tensor, seen: State) -> tuple[Tensor, State]:
    """Views that outlive what they were taken of, two results of one size, numbers, and changes in place."""
    past = (token + 0.25) * seen["conv"]["past"]
    a, b = past.view(4, 1).sigmoid().split([2, 2])
    more = torch.nn.functional.silu(past - 1).div_(3).view(2, 2)
    torch.mul(more, more, out=more)
    return torch.cat((a + b, more.double() @ b.double())), seen | {"conv": {"past": past}}


def test_what_is_written_to_the_same_place_is_handed_out_elsewhere() -> None:
    seen: State = {"conv": {"past": torch.ones(1, 4)}}
    _, seen, tape = record(in_buffers, torch.ones(1, 4), seen, [])
    assert tape is not None
    kept: list[tuple[Tensor, Tensor]] = []
    for i in range(5):
        token, before = torch.full((1, 4), 0.3 + i), seen
        logits, after = in_buffers(token, before)
        found, seen = tape.read(token, before)
        kept += [(found, logits), (seen["conv"]["past"], after["conv"]["past"])]
    assert all(torch.equal(*both) and both[0].is_contiguous() for both in kept)
    with Recording() as recording:
        tape.repeat(token, seen["conv"]["past"])
    written = [step for step in recording.steps if "out" in step.named]
    assert {step.function.__name__ for step in written} == {"add", "mul", "sigmoid", "silu", "sub", "cat"}
    names = [step.function.__name__ for step in recording.steps]
    assert names.count("view") == 2 and "split" not in names  # of what is given


def test_a_tape_that_gives_something_else_is_none() -> None:
    """What is read changes what it was given: it says something else the second time."""

    def twice(token: Tensor, seen: State) -> tuple[Tensor, State]:
        return token.mul_(2) + 0, seen

    logits, _, tape = record(twice, torch.ones(1, 3), {"memory": {"M": W}}, [])
    assert tape is None and torch.equal(logits, torch.full((1, 3), 2.0))


def test_a_tape_serves_other_registers_of_the_same_shape_alone() -> None:
    seen, other = ({"conv": {"past": torch.zeros(2, 3)}, "memory": {"M": M, "sum.M": M}} for M in (W, W + 1))
    _, _, bound = record(ordinary, torch.ones(1, 3), seen, [])
    assert bound is not None
    again = bound.tape.of({**other, "memory": {"M": W + 1}})  # what a period gathers is not read
    assert again is not None
    assert torch.equal(again.read(torch.ones(1, 3), other)[0], ordinary(torch.ones(1, 3), other)[0])
    for changed in ({"M": W.double()}, {"M": W[:, :2]}, {"M": W, "held.M": W + 1}):
        assert bound.tape.of({**seen, "memory": changed}) is None
    two = {"conv": {"past": torch.zeros(2, 3)}, "memory": {"M": W, "held.M": W}}
    _, _, bound = record(ordinary, torch.ones(1, 3), two, [])
    assert bound is not None and bound.tape.of({**two, "memory": {"M": W, "held.M": W + 1}}) is None


REFUSED: dict[str, Reading] = {
    "a number out of a tensor": lambda x, seen: (x * float(x.sum()), seen),
    "a tensor from nowhere": lambda x, seen: (x * torch.as_tensor(HIDDEN), seen),
    "another register": lambda x, seen: (x * 2, seen | {"new": {"x": x}}),
    "logits that are a constant": lambda x, seen: (seen["memory"]["M"], seen),
}
HIDDEN = torch.ones(3)


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_tape_cannot_answer_for_has_none(why: str) -> None:
    token, seen = torch.ones(1, 3), {"memory": {"M": W}}
    logits, after, tape = record(REFUSED[why], token, seen, [])
    expected, _ = REFUSED[why](token, seen)
    assert tape is None and torch.equal(logits, expected) and after.keys() >= seen.keys()
