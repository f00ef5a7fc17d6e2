"""The cases a program is judged on: tokens, targets, borders, padding, and how they are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Memory, Op

LENGTH = 100
RUN = 70  # identical tokens, more than the longest chunk
ARITHMETIC = frozenset(  # what hands an input on as it is, or as a part of a sum or product
    "add sub mul div neg pow min max where heads merge fold split item slice concat mean sum stop".split()
)


@dataclass(frozen=True)
class Case:
    """One input.  `pieces` are the lengths it is also fed in; `main`: every level must fire, no gradient may vanish."""

    name: str
    tokens: Tensor
    targets: Tensor
    starts: Tensor | None = None
    mask: Tensor | None = None
    pieces: tuple[int, ...] = ()
    main: bool = False
    inputs: dict[str, Tensor] = field(default_factory=dict)

    def on(self, device: str) -> Case:
        """The same on a device."""
        there = {name: x.to(device) for name in ("tokens", "targets", "starts", "mask")
                 if (x := getattr(self, name)) is not None}  # fmt: skip
        return replace(self, **there, inputs={name: x.to(device) for name, x in self.inputs.items()})

    @property
    def length(self) -> int:
        return self.tokens.shape[1]


def random_split(length: int, draw: torch.Generator, pieces: int = 5) -> tuple[int, ...]:
    """`length` as a sum of positive parts, cut at random."""
    cuts = (torch.randperm(length - 1, generator=draw)[: pieces - 1] + 1).sort().values.tolist() if length > 1 else []
    return tuple(b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True))


def cases(vocab: int, seed: int, full: bool) -> Iterator[Case]:
    """Random text in a batch of 3 with an ignored target; one token; 63; repeated tokens; documents; padding."""
    draw = torch.Generator().manual_seed(seed)

    def text(B: int, T: int) -> tuple[Tensor, Tensor]:
        fed = torch.randint(vocab, (B, T + 1), generator=draw)
        return fed[:, :-1], fed[:, 1:].clone()

    tokens, targets = text(3 if full else 1, LENGTH)
    targets[0, 17] = -100
    pieces = random_split(LENGTH, draw)
    yield Case("random, batch 3" if full else "random, batch 1", tokens, targets, pieces=pieces, main=True)
    if not full:
        return
    for length in (1, 63):
        tokens, targets = text(1, length)
        yield Case(f"length {length}, batch 1", tokens, targets, pieces=random_split(length, draw, 3))
    # Two runs: in one, a token's gate scales all gradients alike, and a rule that normalises its step, as muon does,
    # cancels it, so that its own gradient (in atlas 1e-9 of the largest) would be the rounding of large terms.
    same = torch.tensor([[5] * RUN + [6] * (LENGTH - RUN)])
    yield Case("identical tokens", same, same.clone(), pieces=random_split(LENGTH, draw, 3))
    tokens, targets = text(3, LENGTH)
    starts = torch.zeros(3, LENGTH, dtype=torch.bool)
    starts[:, 0] = True
    starts[0, 41] = starts[1, 7] = starts[1, 64] = True
    yield Case("document borders", tokens, targets, starts=starts)
    tokens, targets = text(3, LENGTH)
    mask = torch.ones(3, LENGTH, dtype=torch.bool)
    mask[0, 90:] = mask[1, :13] = mask[2, 30:37] = False
    yield Case("padding", tokens, targets, mask=mask)


def shares(graph: Graph) -> set[str]:
    """The inputs of a bare program that are themselves a rate, a retention or an objective's parameter.

    These have a legal range: what a program makes of any other input must be legal whatever that is.
    """
    ahead, seen = [], set()
    for memory in graph.of(Memory):
        ahead += [memory.rate, memory.retain, *(p.value for p in memory.objective.params)]
    while ahead:
        id = ahead.pop()
        if id and id not in seen:
            seen.add(id)
            node = graph[id]
            ahead += node.inputs if isinstance(node, Op) and node.op in ARITHMETIC else ()
    return {node.name for node in graph.of(Input) if node.id in seen}


def vectors(graph: Graph, B: int, T: int, draw: torch.Generator) -> dict[str, Tensor]:
    """Inputs of a bare program (B, T, ...): shares in (0, 1), other vectors of length 1, other numbers gaussian."""
    inputs, squashed = {}, shares(graph)
    for node in graph.of(Input):
        x = torch.randn(B, T, *node.shape, generator=draw, dtype=torch.float64)
        if node.name in squashed:
            x = x.sigmoid()
        elif node.shape:
            x = x / x.norm(dim=-1, keepdim=True)
        inputs[node.name] = x
    return inputs


def streams(graph: Graph, seed: int, full: bool) -> Iterator[Case]:
    """The same lengths for a bare program."""
    draw = torch.Generator().manual_seed(seed)
    lengths = ((3, LENGTH, True), (1, 1, False), (1, 63, False)) if full else ((1, LENGTH, True),)
    for B, T, main in lengths:
        inputs = vectors(graph, B, T, draw)
        none = torch.zeros(B, T, dtype=torch.long)
        yield Case(f"length {T}, batch {B}", none, none, pieces=random_split(T, draw, 4), main=main, inputs=inputs)
