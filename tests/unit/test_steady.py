"""A model says that tokens are read by the same operations, wherever they are, if its blocks ask for no clock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codegen.fires import steady_lines
from codegen.model import model_view
from nlc.passes import build
from nlc.spec import load

SPECS = sorted([*Path("specs/architectures").glob("*.yaml"), *Path("tests/specs").glob("*.yaml")])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_what_is_said_of_a_graph_is_so_in_its_text(spec: Path) -> None:
    graph = build(load(spec))
    blocks = model_view(graph, ()).blocks
    lines = [line for block in blocks for line in block.forward if not line.strip().startswith("t = ")]
    code = [re.sub(r"#.*|phase=[^,]*", "", line) for line in lines]
    asks = any(re.search(r"(?<![\w.])t\b|clock\[", line) for line in code)
    grows = any("attention(" in line for line in code)
    assert bool(steady_lines(graph)) == (not graph.bare and not grows and not asks)
