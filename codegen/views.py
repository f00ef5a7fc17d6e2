"""What the templates print: frozen records, every decision already taken."""

from __future__ import annotations

from dataclasses import dataclass

from codegen.rules import RuleView


@dataclass(frozen=True, slots=True)
class BlockView:
    """One kind of block as a class."""

    name: str
    doc: tuple[str, ...]
    tails: tuple[str, ...]  # class attribute
    weights: tuple[str, ...]  # statements of __init__
    start: tuple[str, ...]  # lines of the dict of registers
    unwritten: tuple[str, ...]  # likewise, of memories written at ticks, before their first write
    flows: tuple[str, ...]  # functions used inside forward
    forward: tuple[str, ...]
    writes: tuple[str, ...]  # methods that write a memory at a tick
    arguments: str  # of forward, after self
    final: bool  # some statement asks whether anybody reads the state afterwards
    returns: str


@dataclass(frozen=True, slots=True)
class ModelView:
    header: tuple[str, ...]
    doc: tuple[str, ...]
    legend: tuple[str, ...]
    imports: tuple[str, ...]
    constants: tuple[str, ...]
    rules: tuple[RuleView, ...]
    blocks: tuple[BlockView, ...]
    name: str
    bare: bool
    stack: str
    fields: tuple[str, ...]  # class attributes
    frame: tuple[str, ...]  # statements that make the frame's weights
    body: tuple[str, ...]  # run and what it calls
