"""One token through one layer: its values by demand, its reads, and the writes it causes.

A value is computed when something asks for it, once.  That order makes `read: after` plain: such a read asks for the
write, the write for the memory's keys, values, rate and retention, and those only for states from before the token.
Nothing is changed until `Layer.commit`, when every memory of every layer has its surprise: all writes are simultaneous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nlc.diagnostics import CompilerBug
from nlc.graph.graph import Graph
from nlc.graph.nodes import Carry, Form, Input, Memory, Meta, Number, Op, Param, Read, Unit, When
from nlc.interpret import forms
from nlc.interpret.memory import Flows, Register, Surprise, detached, fresh, grams, held, no_gram, total, write
from nlc.interpret.operators import DTYPE, FUNCTIONS, rope, weighted
from nlc.interpret.state import Pairs, Sequence

Parts = Mapping[str, Tensor]
Perturbations = Mapping[tuple[str, int], Tensor | Parts]


def attends(memory: Memory) -> bool:
    return memory.form.kind == "attention"


def writes(memory: Memory) -> bool:
    """Whether the memory is written inside a sequence: it has a register."""
    return not attends(memory) and memory.carry is not Carry.MODEL and memory.period.unit is Unit.TOKEN


def visible(form: Form, history: list[Pairs], now: int) -> list[Pairs]:
    """The pairs of earlier tokens that the token at position `now` attends to; the newest is the token before it."""
    tokens = len(history)
    if form.window:
        tokens = min(tokens, form.window - 1)
    if form.segment:
        tokens = min(tokens, now % form.segment)
    return history[len(history) - tokens :]


@dataclass(frozen=True)
class Program:
    """A graph with its weights, and what the caller wants done with it."""

    graph: Graph
    weights: Mapping[str, Tensor]  # float64, by the names of a state dict
    learning: frozenset[str]  # ids of the memories that write
    perturb: Perturbations

    def weight(self, layer: int, id: str) -> Tensor:
        return self.weights[self.name(layer, id)]

    def name(self, layer: int, id: str) -> str:
        node = self.graph[id]
        return f"blocks.{layer}.{node.path}" if node.block else node.path

    def start(self, layer: int, memory: Memory) -> dict[str, Tensor]:
        """The memory's initial state; its weights where it is never written inside a sequence."""
        if memory.weights:
            return {name: self.weight(layer, id) for (name, _), id in zip(memory.parts, memory.weights, strict=True)}
        if memory.start == "identity":
            return {name: torch.eye(shape[-2], shape[-1], dtype=DTYPE).expand(shape) for name, shape in memory.parts}
        return {name: torch.zeros(shape, dtype=DTYPE) for name, shape in memory.parts}

    def form_weights(self, layer: int, memory: Memory) -> dict[str, Tensor]:
        """The weights that the equations of a form use beside the state, by id."""
        return {id: self.weight(layer, id) for id in memory.form_weights}

    def fresh(self, layer: int, memory: Memory, start: Parts | None = None) -> Register:
        """The register at the beginning of a life: from its own start, or from the one given."""
        shape = self.graph[memory.retain].shape if memory.retain else None
        wide = {p.name: self.graph[p.value].shape or () for p in memory.objective.params if p.value}
        blank = {name: torch.zeros(max(own, memory.heads, key=len), dtype=DTYPE) for name, own in wide.items()}
        return fresh(memory, self.start(layer, memory) if start is None else start, shape, blank)

    def holder(self, memory: Memory) -> Memory | None:
        """The register that holds a nested memory's start."""
        found = self.graph[memory.nest] if memory.nest else None
        return found if found is not None and writes(found) else None

    def place(self, layer: int, node: Memory | Op) -> str:
        """Where a memory's, a convolution's or prev's state is found: blocks.0.titans.key, blocks.0.h.conv."""
        name = node.id.removeprefix(f"{node.block}/") if len(self.graph.blocks) > 1 else node.id
        if isinstance(node, Op):
            name = name.replace("/", ".") if "/" in name else f"{name}.{node.op}"
        return f"blocks.{layer}.{name}"

    def registers(self) -> dict[str, tuple[int, Memory]]:
        """Layer and memory of every register, by place."""
        kinds = enumerate(self.graph.stack)
        return {self.place(i, m): (i, m) for i, kind in kinds for m in self.graph.of(Memory, kind) if writes(m)}

    def attentions(self) -> dict[str, Memory]:
        """The memory of every history of pairs, by place."""
        kinds = enumerate(self.graph.stack)
        return {self.place(i, m): m for i, kind in kinds for m in self.graph.of(Memory, kind) if attends(m)}

    def lanes(self) -> tuple[str, ...]:
        """The places of attention whose pairs outlive a document."""
        return tuple(place for place, m in self.attentions().items() if m.carry is Carry.STREAM)

    def begin(self, sequence: Sequence) -> None:
        """A document begins: all that depends on earlier tokens is as at the start, but for streams."""
        sequence.clock = 0
        for place, (layer, memory) in self.registers().items():
            if memory.carry is not Carry.STREAM or place not in sequence.registers:
                sequence.registers[place] = self.fresh(layer, memory)
        for layer, kind in enumerate(self.graph.stack):
            for op in self.graph.of(Op, kind):
                if op.op in ("conv", "prev"):
                    shape = self.graph[op.inputs[0]].shape
                    past = (dict(op.options)["window"] - 1, *shape) if op.op == "conv" else (1, *shape)
                    sequence.pasts[self.place(layer, op)] = torch.zeros(past, dtype=DTYPE)
        for place, memory in self.attentions().items():
            if memory.carry is not Carry.STREAM or place not in sequence.pairs:
                sequence.pairs[place] = []


@dataclass
class Layer:
    """One layer at one token."""

    program: Program
    layer: int
    sequence: Sequence
    entering: Mapping[str, Tensor]  # the values of its Inputs, by name
    values: dict[str, Any] = field(default_factory=dict)  # by id
    states: dict[tuple[str, When], Parts] = field(default_factory=dict)  # what reads see, by memory id
    layer_inputs: dict[str, list[Parts]] = field(default_factory=dict)  # of each read of a memory
    written: dict[str, tuple[Register, bool]] = field(default_factory=dict)
    pasts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.program.graph.stack[self.layer]

    # ---- values -----------------------------------------------------------------------------------------------------

    def value(self, id: str) -> Any:
        if id not in self.values:
            self.values[id] = self.compute(self.program.graph[id])
        return self.values[id]

    def compute(self, node: Any) -> Any:
        match node:
            case Input():
                return self.entering[node.name]
            case Number():
                return torch.full(node.shape, float(node.value), dtype=DTYPE)
            case Read():
                return self.read(node)
            case Op():
                return self.operate(node)
        raise CompilerBug(f"{node.id!r} is not a value")

    def operate(self, op: Op) -> Any:
        options = dict(op.options)
        weights = [self.program.weight(self.layer, id) for id in op.weights]
        place = self.program.place(self.layer, op)
        match op.op:
            case "param":
                return weights[0]
            case "prev":
                return self.sequence.pasts[place][0]
            case "conv":
                recent = torch.cat((self.sequence.pasts[place], self.value(op.inputs[0])[None]))
                self.pasts[place] = recent[1:]
                return (weights[0] * recent).sum(0)
            case "rope":
                return rope(self.value(op.inputs[0]), self.sequence.clock, options.get("base", 10000.0))
        inputs = [self.value(id) for id in op.inputs]
        if weights:
            return weighted(op.op, inputs[0], weights, options)
        return FUNCTIONS[op.op](*inputs, **options)

    # ---- reads ------------------------------------------------------------------------------------------------------

    def read(self, node: Read) -> Tensor:
        memory = self.program.graph[node.memory]
        query = self.value(node.query)
        if attends(memory):
            return self.attend(memory, query)
        weights = self.program.form_weights(self.layer, memory)
        y, inputs = forms.apply(memory, self.state(memory, node.when), query, weights)
        self.layer_inputs.setdefault(memory.id, []).append(inputs)
        return y

    def state(self, memory: Memory, when: When) -> Parts:
        """The state a read sees: the chunk's first, the one before this token's write, or the one after it."""
        if (memory.id, when) not in self.states:
            if not writes(memory):
                parts: Parts = self.program.start(self.layer, memory)
            elif when is When.AFTER:
                parts = self.write(memory)[0].now
            else:
                parts = self.register(memory).held if when is When.CHUNK else self.register(memory).now
            constant = memory.meta is Meta.NONE and memory.carry is not Carry.MODEL
            self.states[memory.id, when] = detached(parts) if constant else parts
        return self.states[memory.id, when]

    def attend(self, memory: Memory, query: Tensor) -> Tensor:
        """Softmax attention over the pairs of the sequence, or of the lane, this token's included, as the form sees."""
        history = self.sequence.pairs[self.program.place(self.layer, memory)]
        seen = [*visible(memory.form, history, self.ticks(memory) - 1), self.pairs(memory)]
        pairs = [pair for token in seen for pair in token]
        if memory.form.persistent:
            k, v = (self.program.weight(self.layer, id) for id in memory.weights)
            pairs = list(zip(k, v, strict=True)) + pairs
        return forms.attend(query, [k for k, _ in pairs], [v for _, v in pairs])

    def pairs(self, memory: Memory) -> Pairs:
        """This token's keys and values of an attention memory."""
        return tuple((self.value(key), self.value(value)) for key, value in memory.pairs)

    # ---- writes -----------------------------------------------------------------------------------------------------

    def register(self, memory: Memory) -> Register:
        return self.sequence.registers[self.program.place(self.layer, memory)]

    def ticks(self, memory: Memory) -> int:
        """Tokens of the memory's clock, this one included."""
        return (self.sequence.stream if memory.carry is Carry.STREAM else self.sequence.clock) + 1

    def flows(self, memory: Memory) -> Flows:
        def params(given: tuple[Param, ...]) -> dict[str, Any]:
            return {p.name: p.number if p.value is None else self.value(p.value) for p in given}

        holder = self.program.holder(memory)
        return Flows(
            start=self.register(holder).now if holder else self.program.start(self.layer, memory),
            rate=self.value(memory.rate) if memory.rate else torch.ones((), dtype=DTYPE),
            retain=self.value(memory.retain) if memory.retain else None,
            pairs=tuple((self.value(key), self.value(value)) for key, value in memory.pairs),
            objective=params(memory.objective.params),
            rule=params(memory.rule.params),
            weigh=self.value(memory.weigh) if memory.weigh else None,
            form=self.program.form_weights(self.layer, memory),
        )

    def write(self, memory: Memory, error: Surprise | None = None) -> tuple[Register, bool]:
        """The memory's register after this token, and whether it was written."""
        if memory.id not in self.written:
            register = self.register(memory)
            if memory.id not in self.program.learning:
                self.written[memory.id] = (register, False)
            else:
                if memory.objective.kind == "loss" and error is None:
                    raise CompilerBug(f"memory {memory.id!r} is written from a loss that is not known yet")
                register, fired = write(memory, register, self.flows(memory), self.ticks(memory), error)
                if fired:
                    register = self.perturbed(memory, register)
                self.written[memory.id] = (register, fired)
        return self.written[memory.id]

    def perturbed(self, memory: Memory, register: Register) -> Register:
        """The caller's own addition to this write, if there is one."""
        delta = self.program.perturb.get((self.program.place(self.layer, memory), self.ticks(memory)))
        if delta is None:
            return register
        parts = delta if isinstance(delta, Mapping) else {memory.parts[0][0]: delta}
        return replace(register, now=total([register.now, parts]))

    def driven(self) -> list[Memory]:
        """The memories that write what the loss says of this token."""
        memories = self.program.graph.of(Memory, self.kind)
        return [m for m in memories if m.objective.kind == "loss" and m.id in self.program.learning and writes(m)]

    def read_of(self, memory: Memory) -> dict[tuple[str, When], Parts]:
        """The states of a memory that this token read."""
        return {key: parts for key, parts in self.states.items() if key[0] == (memory.of or memory.id)}

    def error(self, memory: Memory, gradients: list[Parts]) -> Surprise:
        """What the token's loss says to a memory, given the derivative by each of its states that were read.

        A token without a target has none, and teaches nothing: no gradient, and no input to erase along.
        """
        zero = {name: torch.zeros(shape, dtype=DTYPE) for name, shape in memory.parts}
        if not gradients:
            return Surprise(zero, no_gram(memory))
        if memory.meta is not Meta.FULL:
            gradients = [detached(grad) for grad in gradients]
        inputs = [grams(memory, x) for x in self.layer_inputs[memory.of or memory.id]]
        return Surprise(total([zero, *gradients]), total([no_gram(memory), *inputs]))

    def commit(self, errors: Mapping[str, Surprise]) -> list[str]:
        """Write every memory, and remember what operators and attention need.  Returns the places that fired."""
        fired, new = [], {}
        memories = self.program.graph.of(Memory, self.kind)
        for memory in memories:
            if writes(memory):
                register, was_written = self.write(memory, errors.get(memory.id))
                place = self.program.place(self.layer, memory)
                new[place] = held(memory, register, self.ticks(memory))
                fired += [place] if was_written else []
        new |= self.begun(memories, new)
        for op in self.program.graph.of(Op, self.kind):
            if op.op == "prev":
                self.pasts[self.program.place(self.layer, op)] = self.value(op.inputs[0])[None]
            elif op.op == "conv":
                self.value(op.id)
        for memory in memories:
            if attends(memory):
                place = self.program.place(self.layer, memory)
                history = [*self.sequence.pairs[place], self.pairs(memory)]
                self.sequence.pairs[place] = visible(memory.form, history, self.ticks(memory))
        self.sequence.registers |= new
        self.sequence.pasts |= self.pasts
        return fired

    def begun(self, memories: list[Memory], new: Mapping[str, Register]) -> dict[str, Register]:
        """The registers of nested memories whose holder was written, or begins again itself: fresh, from its state."""
        found: dict[str, Register] = {}
        for memory in sorted((m for m in memories if m.nest), key=lambda m: m.period.count, reverse=True):
            holder = self.program.holder(memory)
            if holder is None:
                continue
            place = self.program.place(self.layer, holder)
            if place in found or self.written[holder.id][1]:
                held = found.get(place, new[place]).now
                found[self.program.place(self.layer, memory)] = self.program.fresh(self.layer, memory, held)
        return found
