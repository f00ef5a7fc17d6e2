"""Which states are kept within a budget of memory, and which are made again."""

from __future__ import annotations

import pytest

from nlc.diagnostics import SpecError
from nlc.explain import explain
from nlc.graph.graph import Graph
from nlc.graph.nodes import Recurrence
from nlc.passes import build
from nlc.source import Position
from nlc.spec import load
from nlc.spec.fields import parse_bytes

AT = Position("", 1, 1)
STATE = 4 * 4 * (2 * 128 * 512 + 512 + 128)  # bytes of one memory of the continuum, in the four layers of hope


def hope(memory: str, **settings: object) -> Graph:
    """Of a context in which a chunk ends but once, so that it is not run in spans."""
    small = {"run.batch": 1, "sizes.context": 512, "levels.titans.chunk": 512, "run.memory": memory}
    return build(load("hope", set=small | settings), check=True)


def kept(graph: Graph) -> list[str]:
    return sorted(graph[r.members[0]].name for r in graph.of(Recurrence) if r.kept)


def least() -> int:
    """Bytes that a step takes where nothing is kept beyond what must be: the smallest budget under which mid is kept,
    less what mid keeps: a state and sums for each of its two writes."""
    low, high = 0, 10**10
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if kept(hope(f"{half} B")) else (half, high)
    return high - 2 * 2 * STATE


def test_the_slowest_memory_is_kept_first() -> None:
    always = least()
    assert kept(hope(f"{always + 4 * STATE - 1} B")) == []
    assert kept(hope(f"{always + 4 * STATE} B")) == ["mid"]
    assert kept(hope(f"{always + (4 + 16) * STATE - 1} B")) == ["mid"]
    assert kept(hope(f"{always + (4 + 16) * STATE} B")) == ["fast", "mid"]


def test_what_is_kept_counts_as_activations() -> None:
    none, some = hope("0 B").cost, hope("8 GB").cost
    assert none is not None and some is not None
    assert some.activation_bytes - none.activation_bytes == (4 + 16) * STATE // 512


def test_explain_says_what_became_of_each() -> None:
    def said(memory: str) -> set[str]:
        return {r.kept for r in explain(hope(memory)).recurrences if r.lowering == "segment"}

    assert said("8 GB") == {"its states are kept for the backward pass"}
    (again,) = said("0 B")
    assert "made again" in again


@pytest.mark.parametrize(
    ("text", "count"),
    [("8 GB", 8 * 10**9), ("1.5GB", 15 * 10**8), ("512 MiB", 512 * 2**20), ("0 B", 0), ("3kB", 3000), ("1 TiB", 2**40)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text, AT) == count


@pytest.mark.parametrize("text", ["8", "8 G", "-1 GB", "GB", "8 gigs", "1e9 B"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="NLC0417"):
        load("hope", set={"run.memory": text})
