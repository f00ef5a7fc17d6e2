"""Small programs for tests of the graph: `model(...)` over tokens, `cell(...)` bare; both give the built graph."""

from __future__ import annotations

import textwrap

from nlc.diagnostics import SpecError
from nlc.graph.graph import Graph
from nlc.passes import build
from nlc.spec import loads

SIZES = "{width: 32, heads: 2, layers: 3, vocab: 50, context: 16}"
TRAIN = """
  - {name: train, every: 1 step, objective: loss, rule: adamw, memories: rest}
"""


def model(levels: str, block: str, sizes: str = SIZES, train: bool = True, more: str = "", after: str = "") -> Graph:
    """A model over tokens: `levels` are items of the list, `block` the equations."""
    text = f"nlc: 1\nname: small\nsizes: {sizes}\nrun: {{batch: 4}}\n{textwrap.dedent(more)}levels:\n"
    text += (
        textwrap.indent(textwrap.dedent(levels).strip("\n"), "  ") + "\n" + (TRAIN.strip("\n") + "\n" if train else "")
    )
    if block:
        text += "block: |\n" + textwrap.indent(textwrap.dedent(block).strip("\n"), "  ") + "\n"
    return build(loads(text), check=True, after=after)


def cell(levels: str, block: str, inputs: str = "{k: [heads, head], v: [heads, head], q: [heads, head]}",
         outputs: str = "[y]", sizes: str = "{heads: 2, head: 8}") -> Graph:  # fmt: skip
    """A bare program."""
    text = f"nlc: 1\nname: cell\nsizes: {sizes}\ninputs: {inputs}\noutputs: {outputs}\nlevels:\n"
    text += textwrap.indent(textwrap.dedent(levels).strip("\n"), "  ") + "\nblock: |\n"
    text += textwrap.indent(textwrap.dedent(block).strip("\n"), "  ") + "\n"
    return build(loads(text), check=True)


def values(
    block: str, inputs: str = "{x: [width]}", outputs: str = "[y]", sizes: str = "{width: 12, heads: 3}"
) -> Graph:
    """A bare program without memories: only operators."""
    text = f"nlc: 1\nname: values\nsizes: {sizes}\ninputs: {inputs}\noutputs: {outputs}\nblock: |\n"
    text += textwrap.indent(textwrap.dedent(block).strip("\n"), "  ") + "\n"
    return build(loads(text), check=True)


def refusals(make: object, *args: object, **kwargs: object) -> list[str]:
    """What a program is refused with: `code line: message (hint; note)` of each diagnostic."""
    try:
        make(*args, **kwargs)  # type: ignore[operator]
    except SpecError as error:
        return [f"{d.code} {d.at.line}: {d.message} ({d.hint}; {d.note})" for d in error.diagnostics]
    return []
