"""The steps of a tape, cut into regions: what repeats, as layers, segments and gradients do, is compiled once.

Where to cut is decided by the operations alone, by what the last few were: so equal sequences of them are cut alike,
wherever they stand.  A cut is before a matrix product, which inductor fuses with nothing anyway.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import fx

from runtime.compiled.tape import Slot, Step, Tape

SHORTEST, LONGEST = 40, 600  # steps of a region, but for the last
WINDOW = 6  # steps that decide
OFTEN = 8  # one product in so many is a cut
PRODUCTS = frozenset(("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"))


@dataclass(frozen=True, slots=True)
class Region:
    """Steps, the slots they read of what was made before them, and those they make for others."""

    steps: list[Step]
    reads: list[int]
    makes: list[int]


def cut(tape: Tape) -> list[Region]:
    """All steps, in their order."""
    groups: list[list[Step]] = [[]]
    whole, marks = unfinished(tape), [mark(tape, step) for step in tape.steps]
    for i, step in enumerate(tape.steps):
        if step.operation._schema.name in PRODUCTS and len(groups[-1]) >= SHORTEST and not whole[i]:
            recent = crc32(repr(marks[max(0, i - WINDOW) : i]).encode())
            if recent % OFTEN == 0 or len(groups[-1]) >= LONGEST:
                groups.append([])
        groups[-1].append(step)
    return bounded(tape, [part for group in groups for part in parted(tape, group)])


def mark(tape: Tape, step: Step) -> int:
    """A number of an operation and the shapes it makes."""
    return crc32(repr((str(step.operation), [tape.looks[at] for at in step.made if at is not None])).encode())


def unfinished(tape: Tape) -> list[bool]:
    """Of each step, whether a tensor made a little before it is written to from there on: such are not cut apart."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, step in enumerate(tape.steps):
        for at in step.made:
            if at is not None:
                first.setdefault(tape.storages[at], i)
        last |= dict.fromkeys(step.changes, i)
    found = [False] * len(tape.steps)
    for storage, end in last.items():
        begin = first.get(storage, end)
        if end - begin <= LONGEST:
            found[begin + 1 : end + 1] = [True] * (end - begin)
    return found


def parted(tape: Tape, group: list[Step]) -> list[list[Step]]:
    """A step that writes to what was there before its group is alone: a region makes, and changes nothing."""
    parts: list[list[Step]] = [[]]
    own: set[int] = set()
    for step in group:
        if step.changes - own:
            parts += [[step], []]
            own = set()
            continue
        parts[-1].append(step)
        own |= {tape.storages[at] for at in step.made if at is not None} - {tape.storages[at] for at in step.reads}
    return [part for part in parts if part]


def bounded(tape: Tape, groups: list[list[Step]]) -> list[Region]:
    """With what each group reads and makes."""
    last = {at: i for i, group in enumerate(groups) for step in group for at in step.reads}
    last |= {at: len(groups) for at in tape.made if at is not None}
    found = []
    for i, group in enumerate(groups):
        made: set[int] = set()
        reads: dict[int, None] = {}
        for step in group:
            reads |= {at: None for at in step.reads if at not in made}
            made |= {at for at in step.made if at is not None and at not in reads}
        found.append(Region(group, list(reads), sorted(at for at in made if last.get(at, -1) > i)))
    return found


def key_of(tape: Tape, region: Region) -> tuple[Any, ...]:
    """What a region computes, whatever its slots are called; equal ones do the same."""
    local: dict[int, int] = {}

    def number(tree: Any) -> Any:
        if isinstance(tree, Slot):
            return Slot(local.setdefault(tree.at, len(local)))
        return tuple(map(number, tree)) if isinstance(tree, tuple) else (type(tree).__name__, repr(tree))

    looks = tuple((*tape.looks[at], local.setdefault(at, len(local))) for at in region.reads)
    steps = tuple(
        (str(step.operation), number(step.given), number(step.named), number(tuple(map(slot_of, step.made))))
        for step in region.steps
    )
    return looks, steps, tuple(local[at] for at in region.makes)


def slot_of(at: int | None) -> Slot | None:
    return None if at is None else Slot(at)


def graph_of(region: Region) -> fx.GraphModule:
    """A region as a function of what it reads, giving what it makes."""
    graph = fx.Graph()
    nodes: dict[int, Any] = {at: graph.placeholder(f"x{i}") for i, at in enumerate(region.reads)}

    def node_of(tree: Any) -> Any:
        if isinstance(tree, Slot):
            return nodes[tree.at]
        return [node_of(x) for x in tree] if isinstance(tree, tuple) else tree

    for step in region.steps:
        given, named = tuple(map(node_of, step.given)), {name: node_of(x) for name, x in step.named}
        node = graph.call_function(step.operation, given, named)
        for i, at in enumerate(step.made):
            if at is not None:
                nodes[at] = graph.call_function(operator.getitem, (node, i)) if step.several else node
    graph.output(tuple(nodes[at] for at in region.makes))
    return fx.GraphModule(torch.nn.Module(), graph)
