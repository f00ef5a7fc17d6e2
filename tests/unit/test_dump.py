"""A graph as text and JSON, both read back equal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nlc.diagnostics import CompilerBug
from nlc.graph.dump import from_json, from_text, to_json, to_text
from nlc.graph.words import Reader, word, written
from nlc.passes import PASSES, build
from nlc.spec import load
from tests.unit.programs import cell

SHIPPED = ("hope", "hope_deep", "hope_attention", "titans_lmm", "linear_attention", "transformer")


@pytest.mark.parametrize("name", SHIPPED)
def test_reads_back_equal(name: str) -> None:
    graph = build(load(name))
    assert from_text(to_text(graph)) == graph
    assert from_json(to_json(graph)) == graph


@pytest.mark.parametrize("after", ["build", *(name for name, _, _ in PASSES)])
def test_reads_back_equal_after_every_pass(after: str) -> None:
    graph = build(load("hope"), after=after)
    assert from_text(to_text(graph)) == graph
    assert from_json(to_json(graph)) == graph


def test_expressions_and_values_read_back() -> None:
    level = """
    - name: a
      every: 2 tokens
      objective: 'sum(abs(M - v) ** p) / 3 + norm(k, p=1)'
      rule: momentum(beta=0.5 * sigmoid(sum(q)))
      memories: {m: {form: 'mlp(hidden=2x, act=silu)', keys: k, values: v}}
    """
    graph = cell(
        level, "a, b = split(q, [3, 5])\ny = m(q) * where(sum(a) > sum(b), -1.5e-7, 2) + a[-1]",
        sizes="{heads: 2, head: 8, p: 3}",
    )  # fmt: skip
    assert from_text(to_text(graph)) == graph
    assert from_json(to_json(graph)) == graph


def test_the_text_reads_like_the_equations() -> None:
    text = to_text(build(load("hope", {"sizes.width": 256, "sizes.heads": 4})))
    assert "\nop h = conv(h/rmsnorm; window=4) weights=[blocks.*.h.conv] name=h shape=[256] @44:7+4\n" in text
    assert "\nread k/key = titans.key(u) when=chunk shape=[4,64] @47:14+3\n" in text
    assert all(len(line) < 180 for line in text.splitlines() if not line.startswith(("rule ", "    reason=")))


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -2.5, 1e-08, "x:1", "a b", "", "true", "3", "[x]", 'quo"te', [1, ["a", []]], {"a": {"b": None}}],
)
def test_words_read_back(value: object) -> None:
    assert Reader(written(value)).value() == value


def test_words_need_quotes_only_when_they_must() -> None:
    assert word("blocks.*.h.conv") == "blocks.*.h.conv"
    assert word("1e3") == '"1e3"'


def test_another_format_is_refused() -> None:
    with pytest.raises(CompilerBug, match="format"):
        from_text("graph x format=99\n")


def test_the_same_bytes_in_every_process() -> None:
    code = """
from nlc.graph.draw import to_dot, to_mermaid, to_svg
from nlc.graph.dump import to_json, to_text
from nlc.passes import build
from nlc.spec import load
g = build(load("hope"))
print(to_text(g) + to_json(g) + to_svg(g) + to_dot(g) + to_mermaid(g))
"""
    made = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1
