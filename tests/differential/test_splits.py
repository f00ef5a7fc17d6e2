"""Any split of a text into calls, through save and load and into other processes, gives what one call gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nlc.compile import compile
from runtime.session import Session
from tests.differential.sessions import LENGTH, SPECS, TOLERANCE, apart, assert_same, package, text, trained, weights_of

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "specs"
Made = tuple[Path, Path]
Whole = tuple[Made, Session, Tensor]

# Cuts of the text, and whether the state goes through a file there.
SPLITS = st.dictionaries(st.integers(1, LENGTH - 1), st.booleans(), max_size=6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """whole(spec): its package, a session that has read the text in one call, and the logits of that call."""
    found: dict[str, Whole] = {}

    def of(name: str) -> Whole:
        if name not in found:
            made = package(name, tmp_path_factory.mktemp("package"))
            session = Session(trained(made))
            found[name] = made, session, session.feed(text())
        return found[name]

    return of


def read(made: Made, cuts: dict[int, bool], folder: Path) -> tuple[Session, Tensor]:
    """The text in pieces; where a cut says so, saved and gone on with by a model that was loaded anew."""
    session, logits, words = Session(trained(made)), [], text()
    for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), LENGTH], strict=True):
        logits.append(session.feed(words[a:b]))
        if cuts.get(b):
            session = Session.load(session.save(folder / "state"), trained(made))
    return session, torch.cat(logits)


@pytest.mark.parametrize("name", SPECS)
def test_any_split_equals_the_whole(name: str, whole: Callable[[str], Whole], tmp_path: Path) -> None:
    made, one, logits = whole(name)

    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(SPLITS)
    def check(cuts: dict[int, bool]) -> None:
        session, found = read(made, cuts, tmp_path)
        assert apart(found, logits) <= TOLERANCE
        assert_same(session, one)

    check()


@pytest.mark.parametrize("name", SPECS)
def test_token_by_token_equals_the_whole(name: str, whole: Callable[[str], Whole]) -> None:
    made, _, logits = whole(name)
    session = Session(trained(made))
    session.feed(text()[:90])  # the next ones cross a chunk, a period, and end in a part of each
    found = torch.cat([session.feed(text()[at : at + 1]) for at in range(90, 125)])
    assert apart(found, logits[90:125]) <= TOLERANCE


PROGRAM = """
import sys, torch
from pathlib import Path
from runtime.session import Session
from tests.differential.sessions import text, trained
folder, package, weights = map(Path, sys.argv[1:4])
first, last = map(int, sys.argv[4:])
made = trained((package, weights))
session = Session.load(folder / "state", made) if first else Session(made)
torch.save(session.feed(text()[first:last]), folder / f"{first}.pt")
session.save(folder / "state")
"""


@pytest.mark.parametrize("name", SPECS)
def test_processes_that_hand_on_a_state_equal_the_whole(
    name: str, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    made, one, logits = whole(name)
    cuts = [0, 211, 409, LENGTH]  # in the middle of chunks and of both periods
    for a, b in pairwise(cuts):
        arguments = [*map(str, (tmp_path, *made, a, b))]
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], check=True, timeout=120, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    found = torch.cat([torch.load(tmp_path / f"{a}.pt") for a in cuts[:-1]])
    assert apart(found, logits) <= TOLERANCE
    assert_same(Session.load(tmp_path / "state", trained(made)), one)


@pytest.mark.parametrize("learn", [False, ["cms.fast"], ["titans"]], ids=["off", "fast", "titans"])
def test_a_split_equals_the_whole_whatever_learns(
    learn: bool | list[str], whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    made = whole("hope")[0]
    one, other = Session(trained(made), learn=learn), Session(trained(made), learn=learn)
    logits = one.feed(text(130))
    found = [other.feed(text(130)[:70]), other.feed(text(130)[70:71])]
    other = Session.load(other.save(tmp_path / "state"), trained(made))
    assert other.learn == one.learn
    found.append(other.feed(text(130)[71:]))
    assert apart(torch.cat(found), logits) <= TOLERANCE
    assert_same(other, one)


SEQUENCES = sorted(path.stem for path in PROGRAMS.glob("*.yaml") if "inputs:" not in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_kind_of_state_comes_back_from_a_file_and_a_token_at_a_time(name: str, tmp_path: Path) -> None:
    program = compile(PROGRAMS / f"{name}.yaml", tmp_path / name)
    made = tmp_path / name, weights_of(program, tmp_path / "weights.safetensors")
    words = text(13) % program.graph.sizes["vocab"]
    one = Session(trained(made))
    one.feed(words[:7])
    other = Session.load(one.save(tmp_path / "state"), trained(made))
    rest = one.feed(words[7:])
    assert torch.equal(rest, other.feed(words[7:]))
    assert_same(other, one, exactly=True)
    if one.model.ending:  # calls are part of what is meant
        return
    single = Session(trained(made))
    found = torch.cat([single.feed(word[None]) for word in words])
    assert apart(found[7:], rest) <= TOLERANCE
    assert_same(single, one)
