"""Broken specs and the exact message each gets: tests/golden/errors/<case>.yaml and <case>.txt, both read in review.

Files that would not do in a repository (large, binary, a bomb of aliases) are made here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nlc.diagnostics import SpecError
from nlc.passes import build
from nlc.spec import load

HERE = Path(__file__).parent / "errors"
PARTS = {"extends_loop_b"}  # files that belong to another case
CASES = sorted(path.stem for path in HERE.glob("*.yaml") if path.stem not in PARTS)

HEAD = b"nlc: 1\nname: deep\nsizes: {width: 8, heads: 1, layers: 1, vocab: 16, context: 8}\n"

Golden = Callable[[Path, str], None]


def message(file: str) -> str:
    """What `nlc check FILE` says."""
    begin = time.perf_counter()
    with pytest.raises(SpecError) as error:
        build(load(file))
    assert time.perf_counter() - begin < 5
    return str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_broken_spec(case: str, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    golden(HERE / f"{case}.txt", message(f"{case}.yaml"))


def bomb() -> bytes:
    lines = ["nlc: 1", "x-a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x-{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("case", "data"),
    [
        pytest.param("binary", bytes(range(256)) * 4, id="binary"),
        pytest.param("binary_text", b"nlc: 1\nname: a\x00b\n", id="binary_text"),
        pytest.param("large", b"x-note: " + b"a " * (5 * 1024 * 1024), id="large"),
        pytest.param("bomb", bomb(), id="bomb"),
        pytest.param("bomb_loop", b"nlc: 1\nlevels: &l [*l]\n", id="bomb_loop"),
        pytest.param("deep", b"nlc: 1\nblock: " + b"[" * 10_000, id="deep"),
        pytest.param("deep_equation", HEAD + b"block: x = " + b"-(" * 150 + b"x" + b")" * 150, id="deep_equation"),
        pytest.param("long_equation", HEAD + b"block: x = " + b"x + " * 20_000 + b"x", id="long_equation"),
    ],
)
def test_hostile_file(case: str, data: bytes, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{case}.yaml").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    golden(HERE / f"{case}.txt", message(f"{case}.yaml"))


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_brackets_are_read_no_further_than_the_limit_of_their_depth(
    bracket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scanner that reads on looks through all open brackets at each: a hundred million steps for these."""
    from ruamel.yaml.scanner import Scanner

    looks: list[int] = []
    look = Scanner.stale_possible_simple_keys
    monkeypatch.setattr(Scanner, "stale_possible_simple_keys", lambda self: looks.append(self.flow_level) or look(self))
    (tmp_path / "deep.yaml").write_text("nlc: 1\nblock: " + bracket * 200_000)
    assert "deep.yaml:2:48: error: nested more than 40 deep" in message(str(tmp_path / "deep.yaml"))
    assert len(looks) < 1000 and max(looks) == 40


def test_every_text_belongs_to_a_case() -> None:
    made = {"binary", "binary_text", "large", "bomb", "bomb_loop", "deep", "deep_equation", "long_equation"}
    assert {path.stem for path in HERE.glob("*.txt")} == {*CASES, *made}
