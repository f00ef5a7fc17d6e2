"""`streams:`: what is refused, and what a gradient reaches through them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import cell, model, refusals

from nlc.passes import build
from nlc.passes.gradients import reach
from nlc.spec import load

STREAMS = "streams: {{z: [{}]}}\n"


def test_a_weight_is_reached_through_the_next_block() -> None:
    more = "streams: {z: [width]}\nblocks:\n  one: |\n    z = linear(x)\n  two: x = x + z\nstack: [one, two]\n"
    graph = model("", "", more=more, sizes="{width: 8, layers: 2, vocab: 9, context: 4}")
    assert "blocks.one.*.z.linear" in reach(graph).outer


@pytest.mark.parametrize(
    ("shape", "block", "expected"),
    [
        ("width", "x = x + z", "NLC0905 5: no block assigns the stream 'z': it stays 0"),
        ("width", "z = linear(x)", "NLC0905 5: nothing reads the stream 'z'"),
        ("width", "x = x + z\nz = sum(x)", "NLC0601 11: z enters the block as [32] and leaves it as a number"),
        ("wide", "x = x + z\nz = x", "NLC0503 5: unknown size 'wide'"),
    ],
)
def test_refused(shape: str, block: str, expected: str) -> None:
    found = refusals(model, "", block, more=STREAMS.format(shape))
    assert len(found) == 1 and found[0].startswith(expected), found


def test_a_name_is_one_thing() -> None:
    level = "- {name: a, every: 1 token, memories: {z: {form: matrix, keys: x, values: x}}}"
    found = refusals(model, level, "w = z\nx = x + z(w)\nz = x", more=STREAMS.format("width"))
    assert any("'z' is a memory and a value" in one for one in found), found
    (found,) = refusals(model, "", "x = x + width\nwidth = x", more="streams: {width: [width]}\n")
    assert found.startswith("NLC0504 5: 'width' is a size and a stream")


def test_a_bare_program_has_none() -> None:
    found = refusals(cell, "", "w = v\ny = k + q + w", sizes="{heads: 2, head: 8}\nstreams: {w: [head]}")
    assert found[0].startswith("NLC0411 4: a bare program has no stream 'w'"), found


def test_the_documented_spec_is_legal(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
    (shown,) = (b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "value_residual" in b)
    (tmp_path / "shown.yaml").write_text(shown)
    assert build(load(tmp_path / "shown.yaml")).stack == ("first", "other", "other", "other")
