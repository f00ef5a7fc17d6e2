"""The whole program: sequence by sequence, token by token, layer by layer.

In: a graph after all passes, weights by name, tokens (or a bare program's inputs).  Out: a Result in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Input, Memory, Output, Tail, When
from nlc.interpret.inputs import grams
from nlc.interpret.memory import Surprise, emptied, write_sum
from nlc.interpret.operators import DTYPE, rmsnorm
from nlc.interpret.state import NOTHING, Sequence, State, pack, row_of, unpack_pairs, unpack_register
from nlc.interpret.token import Layer, Perturbations, Program, writes

IGNORED = -100  # a target that teaches nothing
States = dict[int, dict[tuple[str, When], Mapping[str, Tensor]]]  # of a token: layer -> (memory, which read) -> parts


@dataclass(frozen=True)
class Result:
    """What a program computes.  Every tensor is float64 and, with `gradients`, differentiable."""

    logits: Tensor | None  # (B, T, vocab); 0 at padding
    nats: Tensor | None  # (B, T) cross-entropy of each token, 0 where it has no target
    loss: Tensor | None  # mean over the tokens that have a target
    outputs: dict[str, Tensor]  # of a bare program, (B, T, ...)
    state: State
    fires: dict[str, list[list[int]]]  # place -> for each sequence, the tokens (from 1, of its clock) at which it wrote
    weights: dict[str, Tensor]  # float64, what the program was run with
    inputs: dict[str, Tensor]
    cotangents: Mapping[str, Tensor] = field(default_factory=dict)
    grams: Mapping[str, Tensor] = field(default_factory=dict)  # asked for: sum of x x^T of each layer's inputs / taught

    @property
    def functional(self) -> Tensor:
        """What `gradients` differentiates: the loss; of a bare program the sum of outputs times cotangents."""
        if self.loss is not None:
            return self.loss
        terms = [(y * self.cotangents.get(name, 1.0)).sum() for name, y in self.outputs.items()]
        return torch.stack(terms).sum()

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """d functional / d weight, by name; 0 where there is no dependence."""
        return self.differentiate(self.functional, self.weights)

    @cached_property
    def input_gradients(self) -> dict[str, Tensor]:
        """d functional / d input of a bare program, by name."""
        return self.differentiate(self.functional, self.inputs)

    def differentiate(self, scalar: Tensor, by: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """d scalar / d each of `by`; 0 where there is no dependence."""
        wanted = {name: x for name, x in by.items() if x.requires_grad}
        if not scalar.requires_grad or not wanted:
            return {name: torch.zeros_like(x) for name, x in by.items()}
        found = torch.autograd.grad(scalar, list(wanted.values()), retain_graph=True, allow_unused=True)
        grads = dict(zip(wanted, found, strict=True))
        return {name: torch.zeros_like(x) if grads.get(name) is None else grads[name] for name, x in by.items()}


@dataclass
class Fed:
    """One token of one sequence, or one time of a bare program's inputs."""

    column: int  # where its results go; -1 for a token fed again
    begins: bool  # a document
    values: Mapping[str, Tensor]  # a bare program's inputs
    token: int = NOTHING
    target: int = IGNORED
    learned: bool = True  # False for the last token, whose target is still to come


@dataclass
class Found:
    """What one sequence gave, by column."""

    rows: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    fires: dict[str, list[int]] = field(default_factory=dict)


class Interpreter:
    """Runs sequences through a program, one after the other.  `grams`: sums of x x^T, where they are asked for."""

    def __init__(self, program: Program, grams: bool = False) -> None:
        self.program, self.graph = program, program.graph
        self.grams: dict[str, Tensor] | None = {} if grams else None
        self.places = {place: memory for place, (_, memory) in program.registers().items()}
        self.lanes = program.lanes()  # where pairs of attention outlive a document

    def resume(self, state: State | None, B: int) -> list[Sequence]:
        """One Sequence per row: as at the start, or as the state says."""
        sequences = []
        for b in range(B):
            sequence = Sequence()
            self.program.begin(sequence)
            if state is not None:
                self.restore(sequence, row_of(state, b))
            sequences.append(sequence)
        return sequences

    def restore(self, sequence: Sequence, row: State) -> None:
        sequence.clock, sequence.stream = int(row["clock"]["sequence"]), int(row["clock"]["stream"])
        sequence.unlearned = int(row.get("unlearned", {}).get("token", NOTHING))
        for place, fresh in sequence.registers.items():
            sequence.registers[place] = unpack_register(self.places[place], fresh, row[place])
        for place in sequence.pasts:
            sequence.pasts[place] = row[place]["past"].to(DTYPE)
        for place, memory in self.program.attentions().items():
            if row.get(place):
                pairs = unpack_pairs(row[place], several=len(memory.pairs) > 1)
                ticks = sequence.stream if place in self.lanes else sequence.clock
                sequence.pairs[place] = pairs[max(0, len(pairs) - ticks) :]  # without the zeros in front

    def run(self, sequence: Sequence, fed: list[Fed]) -> Found:
        """Feed one sequence its tokens; then its part chunks and periods end as `tail:` says."""
        found, last = Found(), list[Layer]()
        for one in fed:
            if one.begins:
                self.program.begin(sequence)
            found.rows[one.column], layers = self.feed(sequence, one, found)
            last = layers if one.learned else last
        self.close(sequence, last, found)
        return found

    def feed(self, sequence: Sequence, fed: Fed, found: Found) -> tuple[dict[str, Tensor], list[Layer]]:
        """All layers at one token; then, unless its target is still to come, all writes."""
        layers, result = self.forward(sequence, fed, {})
        self.look(layers)
        if fed.learned:
            errors = self.errors(sequence, fed, layers)
            for layer, of_layer in zip(layers, errors, strict=True):
                for place in layer.commit(of_layer):
                    found.fires.setdefault(place, []).append(layer.ticks(self.places[place]))
            sequence.clock += 1
            sequence.stream += 1
        return result, layers

    def look(self, layers: list[Layer]) -> None:
        """Add what the layers multiply at one token to the sums."""
        if self.grams is not None:
            outs = self.graph.of(Output, self.graph.stack[-1])
            leaving = None if self.graph.bare else layers[-1].value(outs[0].value)
            for name, gram in grams(layers, leaving):
                self.grams[name] = self.grams[name] + gram if name in self.grams else gram

    def forward(self, sequence: Sequence, fed: Fed, states: States) -> tuple[list[Layer], dict[str, Tensor]]:
        """All layers at one token, which may be given other states to read; nothing is written."""
        entering = fed.values if self.graph.bare else self.entering(fed.token)
        layers = []
        for i, kind in enumerate(self.graph.stack):
            layers.append(Layer(self.program, i, sequence, entering, states=dict(states.get(i, {}))))
            entering = {out.name: layers[-1].value(out.value) for out in self.graph.of(Output, kind)}
        return layers, dict(entering) if self.graph.bare else self.predict(entering["x"], fed.target)

    def entering(self, token: int) -> Mapping[str, Tensor]:
        """What the first block takes: the token's embedding, and every stream at 0."""
        streams = {i.name: torch.zeros(i.shape, dtype=DTYPE) for i in self.graph.of(Input, self.graph.stack[0])}
        return streams | {"x": self.frame("embedding")[token]}

    def frame(self, name: str) -> Tensor:
        return self.program.weights[name]

    def predict(self, x: Tensor, target: int) -> dict[str, Tensor]:
        """logits = linear(rmsnorm(x)); the cross-entropy of the next token in nats, where it is known."""
        head = self.frame("embedding" if self.graph.tied else "linear")
        logits = head @ (rmsnorm(x) * self.frame("rmsnorm"))
        if target == IGNORED:
            return {"logits": logits}
        return {"logits": logits, "nats": torch.logsumexp(logits, -1) - logits[target]}

    def errors(self, sequence: Sequence, fed: Fed, layers: list[Layer]) -> list[dict[str, Surprise]]:
        """What this token's own loss says to each memory that learns from it (language.md, `objective: loss`).

        It is the derivative of the token's loss as a function of the states this token read, and of nothing else: all
        that it reads of earlier tokens is constant.
        """
        read: States = {}
        for layer in layers:
            read[layer.layer] = {key: parts for m in layer.driven() for key, parts in layer.read_of(m).items()}
        grads: States = {i: {} for i in read}
        if fed.target != IGNORED and any(read.values()):
            grads = torch.func.grad(lambda states: self.forward(sequence, fed, states)[1]["nats"])(read)
        return [
            {
                memory.id: layer.error(
                    memory, [g for (id, _), g in grads[layer.layer].items() if id == (memory.of or memory.id)]
                )
                for memory in layer.driven()
            }
            for layer in layers
        ]

    def close(self, sequence: Sequence, last: list[Layer], found: Found) -> None:
        """The end of a call: `tail: flush` applies what is pending, `drop` forgets it; streams are cut from the graph.

        `last` are the layers at the last token learned from: after a flush nothing is pending without one.
        """
        for place, (i, memory) in self.program.registers().items():
            register = sequence.registers[place]
            ticks = sequence.stream if memory.carry is Carry.STREAM else sequence.clock
            pending = (ticks - register.origin) % memory.period.count
            if memory.tail is Tail.FLUSH:
                if pending and last and memory.id in self.program.learning:
                    register = last[i].perturbed(memory, write_sum(memory, register, last[i].flows(memory)))
                    found.fires.setdefault(place, []).append(ticks)
                register = replace(register, held=register.now, origin=ticks)
            elif memory.tail is Tail.DROP:
                unfinished = (ticks - register.origin) % memory.chunk
                register = emptied(replace(register, now=register.held if unfinished else register.now, origin=ticks))
            sequence.registers[place] = register
            if memory.carry is Carry.STREAM:
                sequence.detach(place)
        for place in self.lanes:
            seen = sequence.pairs[place]
            sequence.pairs[place] = [tuple((k.detach(), v.detach()) for k, v in token) for token in seen]


def interpret(
    graph: Graph,
    weights: Mapping[str, Tensor],
    tokens: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    state: State | None = None,
    starts: Tensor | None = None,
    mask: Tensor | None = None,
    learn: bool | Collection[str] = True,
    perturb: Perturbations | None = None,
    cotangents: Mapping[str, Tensor] | None = None,
    gradients: bool = True,
    looking: bool = False,
) -> Result:
    """Run a graph token by token in float64.

    weights     by the names of a state dict; those that require gradients stay in the caller's graph
    tokens      (B, T); without `targets` the last token of a sequence is read, not learned from, and kept in the state
    targets     (B, T), -100 where a token teaches nothing
    inputs      of a bare program, by name, (B, T, ...)
    starts      (B, T) first token of a document;  mask (B, T) False is padding
    learn       True, False, or the names of the levels that write
    perturb     {(place, n): delta}: added to the write at token n (from 1, of its clock) of the memory at a place such
                as blocks.0.titans.key; a tensor for the first part, or a mapping by part
    cotangents  of a bare program's outputs: `gradients` differentiates sum(output * cotangent); 1 where not given
    gradients   False keeps no graph: for long runs
    looking     True sums x x^T over the inputs of every layer, for rules of the weights that look at them

    Raises ValueError for arguments that do not fit the graph.
    """
    first = next(iter((inputs or {}).values()), None) if graph.bare else tokens
    if first is None:
        raise ValueError("inputs: a bare program takes them by name" if graph.bare else "tokens: none were given")
    with torch.set_grad_enabled(gradients):
        ready = {name: leaf(x, gradients) for name, x in weights.items()}
        given = {name: leaf(x, gradients) for name, x in (inputs or {}).items()}
        runner = Interpreter(Program(graph, ready, learners(graph, learn), perturb or {}), looking)
        for place, _ in perturb or {}:
            if place not in runner.places:
                raise ValueError(f"perturb: no memory is written at {place!r}; places: {', '.join(runner.places)}")
        sequences = runner.resume(state, len(first))
        found = [
            runner.run(sequence, lane(b, sequence, given, tokens, targets, starts, mask, first.shape[1]))
            for b, sequence in enumerate(sequences)
        ]
        return assemble(runner, sequences, found, first.shape[1], ready, given, cotangents or {})


def leaf(x: Tensor, gradients: bool) -> Tensor:
    """The tensor in float64, differentiable unless nothing is to be."""
    if x.requires_grad and gradients:
        return x.to(DTYPE)
    return x.detach().to(DTYPE).clone().requires_grad_(gradients)


def learners(graph: Graph, learn: bool | Collection[str]) -> frozenset[str]:
    """The memories that write: those of the levels named."""
    memories = [m for m in graph.of(Memory) if writes(m)]
    if isinstance(learn, bool):
        return frozenset(m.id for m in memories if learn)
    levels = {m.id: graph[m.level].name for m in memories}
    for name in learn:
        if name not in levels.values():
            known = ", ".join(dict.fromkeys(levels.values()))
            raise ValueError(f"learn: no level {name!r} writes inside a sequence; levels: {known}")
    return frozenset(id for id, level in levels.items() if level in learn)


def lane(
    b: int,
    sequence: Sequence,
    inputs: Mapping[str, Tensor],
    tokens: Tensor | None,
    targets: Tensor | None,
    starts: Tensor | None,
    mask: Tensor | None,
    T: int,
) -> list[Fed]:
    """What one sequence is fed: the token that was kept, then its tokens without padding, each with its target."""
    columns = [t for t in range(T) if mask is None or bool(mask[b, t])]
    fed = [Fed(t, starts is not None and bool(starts[b, t]), {n: x[b, t] for n, x in inputs.items()}) for t in columns]
    if tokens is None or not fed:
        return fed
    for one in fed:
        one.token = int(tokens[b, one.column])
        one.target = IGNORED if targets is None else int(targets[b, one.column])
    if sequence.unlearned != NOTHING:
        fed.insert(0, Fed(-1, False, {}, sequence.unlearned))
        fed[0].target = IGNORED if fed[1].begins else fed[1].token
        sequence.unlearned = NOTHING
    if targets is None:
        for one, following in pairwise(fed):
            one.target = IGNORED if following.begins else following.token
        fed[-1].learned = False
        sequence.unlearned = fed[-1].token
    return fed


def assemble(
    runner: Interpreter,
    sequences: list[Sequence],
    found: list[Found],
    T: int,
    weights: dict[str, Tensor],
    inputs: dict[str, Tensor],
    cotangents: Mapping[str, Tensor],
) -> Result:
    """Put each token's results at its place, 0 where there are none."""
    graph, bare = runner.graph, runner.graph.bare
    shapes = {out.name: graph[out.value].shape for out in graph.of(Output)} if bare else {}
    shapes |= {} if bare else {"logits": (graph.sizes["vocab"],), "nats": ()}
    tables = {}
    for name, shape in shapes.items():
        nothing = torch.zeros(shape, dtype=DTYPE)
        rows = [torch.stack([one.rows.get(t, {}).get(name, nothing) for t in range(T)]) for one in found]
        tables[name] = torch.stack(rows)
    taught = sum("nats" in row for one in found for t, row in one.rows.items() if t >= 0)
    nats = tables.get("nats")
    return Result(
        logits=tables.get("logits"),
        nats=nats,
        loss=None if nats is None else nats.sum() / max(taught, 1),
        outputs=tables if bare else {},
        state=pack(sequences, runner.places),
        fires={place: [one.fires.get(place, []) for one in found] for place in runner.places},
        weights=weights,
        inputs=inputs,
        cotangents=cotangents,
        grams={name: gram / max(taught, 1) for name, gram in (runner.grams or {}).items()},
    )
