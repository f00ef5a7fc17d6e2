"""The canonical hash: equal for equal programs."""

from __future__ import annotations

import re

import pytest

from nlc.graph.graph import Graph
from nlc.graph.hash import graph_hash
from nlc.passes import build
from nlc.spec import load, loads
from tests.unit.programs import cell, values

HOPE = build(load("hope"))


def renamed(text: str, names: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(names)})\b", lambda m: names[m.group()], text)


def hope_text() -> str:
    from pathlib import Path

    return (Path(__file__).parents[2] / "specs" / "architectures" / "hope.yaml").read_text()


def test_names_do_not_matter() -> None:
    names = {
        "eta": "speed",
        "alpha": "keepers",
        "fast": "quick",
        "titans": "self_referential",
        "u": "w",
        "train": "outer",
        "h": "g",
    }
    other = build(loads(renamed(hope_text(), names)))
    assert "self_referential.speed" in other.nodes
    assert graph_hash(other) == graph_hash(HOPE)


def test_the_order_of_levels_and_memories_does_not_matter() -> None:
    spec = hope_text()
    first, second = spec.index("  - name: titans"), spec.index("  - name: cms")
    third = spec.index("  - name: train")
    swapped = spec[:first] + spec[second:third] + spec[first:second] + spec[third:]
    assert graph_hash(build(loads(swapped))) == graph_hash(HOPE)


def test_words_for_the_reader_and_how_to_train_do_not_matter() -> None:
    changed = {
        "doc": "another",
        "name": "other",
        "run.steps": 5,
        "run.clip": 2.0,
        "run.seed": 3,
        "run.schedule": "constant",
    }
    assert graph_hash(build(load("hope", changed))) == graph_hash(HOPE)


def test_a_default_said_is_the_default() -> None:
    assert graph_hash(
        build(load("hope", {"levels.titans.grad_at": "old", "levels.titans.read": "chunk"}))
    ) == graph_hash(HOPE)


@pytest.mark.parametrize(
    "change",
    [
        {"run.batch": 8},
        {"sizes.width": 256},
        {"sizes.context": 1024},
        {"sizes.layers": 2},
        {"tied": False},
        {"levels.titans.chunk": 16},
        {"levels.titans.rule": "gd"},
        {"levels.titans.objective": "dot"},
        {"levels.titans.read": "before"},
        {"levels.titans.rate": "sigmoid(linear(eta(u), out=1) - 1)"},
        {"levels.titans.retain_to": "zero"},
        {"levels.cms.meta": "full"},
        {"levels.cms.rate": "learned(0.1)"},
        {"levels.cms.memories.fast.every": "32 tokens"},
        {"levels.cms.carry": "stream"},
        {"levels.titans.tail": "flush"},
        {"levels.train.rule": "adamw(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)"},
    ],
    ids=str,
)
def test_another_program_has_another_hash(change: dict[str, object]) -> None:
    assert graph_hash(build(load("hope", change))) != graph_hash(HOPE)


def of(block: str) -> str:
    return graph_hash(values(block))


def test_structure_matters() -> None:
    found: list[str] = [
        of("y = x - silu(x)"),
        of("y = silu(x) - x"),
        of("y = linear(x) + linear(x)"),
        of("a = linear(x, name=w)\ny = a + linear(x, name=w)"),
        of("y = linear(linear(x))"),
    ]
    assert len(set(found)) == len(found)
    assert of("h = silu(x)\ny = h * x") == of("y = silu(x) * x")


def test_which_memory_feeds_which_matters() -> None:
    levels = (
        "- {name: a, every: 1 token, memories: {m: {form: matrix, keys: k, values: v}, n: {form: matrix, "
        "keys: KEY, values: v}}}"
    )

    def made(key: str) -> Graph:
        return cell(levels.replace("KEY", key), "y = m(q) + n(q)")

    assert graph_hash(made("k")) != graph_hash(made("m(k)"))
    assert graph_hash(made("m(k)")) != graph_hash(made("n(k)"))
