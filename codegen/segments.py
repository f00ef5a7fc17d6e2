"""The run of a language model: blocks over segments, and the levels that write at segment ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from codegen.axes import Axes
from codegen.fires import count_lines, loss_driven
from codegen.forms import form_text
from codegen.layout import cited, comment, fit
from codegen.memories import begins, clock_of, counts, erases, holds, start_parts
from codegen.names import class_constant, function_name
from codegen.places import place_of
from nlc.graph.graph import Graph
from nlc.graph.linearity import descends, relative
from nlc.graph.nodes import Carry, Input, Level, Memory, Meta, Rule, Tail

IGNORED = -100  # a target that teaches nothing
RUN = ("tokens_BT", "targets_BT", "taught_BT", "part_BT", "part_BTV", "nats_BT", "logits_BTV")  # variables of a run

if TYPE_CHECKING:
    from codegen.block import Emitter


def learner(graph: Graph, memory: Memory, rules: Mapping[Rule, str], kept: bool) -> str:
    """`Learner("cms.fast", Mlp(...), gd, first_order=True)`."""
    options = ["gram=True"] * erases(memory) + ["first_order=True"] * (memory.meta is not Meta.FULL)
    options += ["constant=True"] * (memory.meta is Meta.NONE) + ["to_start=True"] * memory.retain_to_start
    options += ["hold=True"] * holds(memory) + ["counts=True"] * counts(memory)
    options += ["relative=True"] * relative(memory) + ["descends=True"] * descends(memory.rule)
    options += ["keep=True"] * kept
    options.append(f"name={quoted(place_of(graph, memory))}")
    told = [quoted(graph[memory.level].name), form_text(memory, graph), rules[memory.rule]]
    return f"Learner({', '.join([*told, *options])})"


def quoted(text: str) -> str:
    return f'"{text}"'


def write_methods(emitter: Emitter, rules: Mapping[Rule, str]) -> list[str]:
    """One method a memory of the block that is written at ticks, or where a call ends: its register after the write."""
    lines: list[str] = []
    graph = emitter.graph
    driven = [m for m in loss_driven(graph) if m.block == emitter.block]
    for memory in driven + [m for m in graph.of(Memory, emitter.block) if ends_early(m) and m not in driven]:
        level: Level = graph[memory.level]
        held = ", held" * bool(held_start(graph, memory))
        lines += ["", f"    def {write_name(graph, memory)}(self, register{held}):"]
        doc = f"Level {level.name}, every {memory.period}: {memory.rule.name} from the sum of the period's gradients."
        lines.append(f'        """{doc}"""')
        start = start_parts(graph, memory, "like")
        start = f"{class_constant(memory.id)}.start(held, {start})" if held else start
        apart = replace(emitter.scope, names={}, like="like")  # forward's variables are not here
        rate = [] if memory.rate_varies else [f"lr={apart.of_one_token(memory.rate)}"]
        if memory in driven:
            call = f"{class_constant(memory.id)}.write(register, {', '.join([start, *rate])})"
        else:
            options = [start] * (memory.retain_to_start or begins(memory)) + [f"hold={holds(memory)}", *rate]
            call = f"ended({class_constant(memory.id)}, register, {', '.join(options)})"
        if "like" in call:
            lines.append("        like = next(iter(register.values()))")
        if re.search(r"\bT\b", call):
            lines.append("        B = T = 1")
        lines += fit(f"return {call}", 2)
    return lines


def held_start(graph: Graph, memory: Memory) -> Memory | None:
    """The memory that holds a nested one's start, where tokens write it."""
    found = graph[memory.nest] if memory.nest else None
    return found if found is not None and found.of else None


def write_name(graph: Graph, memory: Memory) -> str:
    """The method of a block that writes the memory; runtime.model finds it by the memory's place."""
    return f"write_{function_name(place_of(graph, memory))}"


def ends_early(memory: Memory) -> bool:
    """Written where a call ends, from the part of a period that it leaves."""
    return memory.tail is Tail.FLUSH and memory.period.count > 1 and memory.carry is not Carry.MODEL


@dataclass(frozen=True, slots=True)
class Flow:
    """What flows from block to block: x and the streams beside it, as variables, and the lines that begin them."""

    values: str  # x_BTD, v0_BTD
    begins: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph, axes: Axes) -> Flow:
        found, begins = ["x_BTD"], []
        for node in graph.of(Input, graph.stack[0])[1:]:
            text = f"{node.name}{axes.suffix(node.shape)}"
            text = f"{text}_" if text in RUN else text
            shape = "".join(f", {size}" for size in node.shape)
            begins.append(f"        {text} = x_BTD.new_zeros(*x_BTD.shape[:2]{shape})")
            found.append(text)
        return cls(", ".join(found), tuple(begins))

    def through(self, call: str) -> list[str]:
        return fit(f"{self.values}, {call}", 3)


def run_lines(graph: Graph, axes: Axes, final: bool) -> list[str]:
    """start, run and, where levels write at ticks, read and learn.  final: a block asks whether anybody reads the
    state."""
    flow = Flow.of(graph, axes)
    lines = [
        "    def start(self, B):",
        '        """The initial state of every register, for B sequences."""',
        "        state = {}",
        "        for i, block in enumerate(self.blocks):",
        "            state = with_layer(state, i, block.start(B, self.embedding))",
        "        return state",
        "",
    ]
    head = "self.embedding" if graph.tied else "self.linear"
    if not loss_driven(graph):
        return [
            *lines,
            "    def run(self, tokens_BT, targets_BT, state, clock, final, learn):",
            '        """Logits, nats of every token and the state after them, for sequences that share all clocks."""',
            "        x_BTD = F.embedding(tokens_BT, self.embedding)",
            *flow.begins,
            "        for i, block in enumerate(self.blocks):",
            *flow.through(f"registers = block({flow.values}, layer_of(state, i), clock, learn{', final' * final})"),
            "            state = with_layer(state, i, registers)",
            f"        logits_BTV = linear(rmsnorm(x_BTD, self.rmsnorm), {head})",
            *count_lines(graph, "tokens_BT.shape[1]"),
            "        return logits_BTV, nats_of(logits_BTV, targets_BT), state",
        ]
    return lines + _segmented(graph, flow, head, final)


def _segmented(graph: Graph, flow: Flow, head: str, final: bool) -> list[str]:
    memories = loss_driven(graph)
    levels: dict[str, list[Memory]] = {}
    for m in sorted(memories, key=lambda m: m.period.count):  # a nested memory before what holds its start
        levels.setdefault(m.level, []).append(m)
    ticks = {(clock_of(m, "t"), m.period.count) for m in memories} | {
        (clock_of(m, "t"), m.chunk) for m in memories if m.chunk > 1
    }
    cuts = ", ".join(f"({_at(t)}, {n})" for t, n in sorted(ticks, key=lambda c: (c[1], c[0])))
    said = ", ".join(f"{graph[level].name} ({graph[level].period})" for level in levels)
    unread = ", final or b < T" * final  # by anybody but the next segment
    lines = [
        "    def run(self, tokens_BT, targets_BT, state, clock, final, learn):",
        f'        """Segment by segment: none crosses a tick of {said}.',
        "",
        "        Inside a segment every state of these levels is a constant, so all its tokens go at once.",
        "        `final`: nobody reads the state afterwards, so what only it would show is left out.",
        '        """',
        "        T, wanted = tokens_BT.shape[1], torch.is_grad_enabled()",
        "        logits, nats = [], []",
        *fit(f"for a, b in segments(T, {cuts}):", 2),
        "            awaited = {",
        *_awaited(graph, levels),
        "            }",
        "            # a token's own error needs a graph, whatever the caller wants",
        "            with torch.set_grad_enabled(wanted or any(awaited.values())):",
        "                at = {name: ticks + a for name, ticks in clock.items()}",
        f"                part_BTV, state, calls = self.read(tokens_BT[:, a:b], state, at, learn{unread})",
        "                part_BT = nats_of(part_BTV, targets_BT[:, a:b])",
    ]
    given = f", targets_BT[:, a:b] != {IGNORED}" if any(erases(m) for m in memories) else ""
    lines.append(f"                state = self.learn(part_BT, calls, state, awaited{given})")
    lines += [*_ticks(graph, levels), *_releases(graph, memories)]
    lines += [
        "            if not wanted:",
        "                part_BTV, part_BT = part_BTV.detach(), part_BT.detach()",
        "                state = detached(state)",
        "            logits.append(part_BTV)",
        "            nats.append(part_BT)",
        *count_lines(graph, "T"),
        "        return torch.cat(logits, 1), torch.cat(nats, 1), state",
        "",
        *_read(flow, head, final),
        "",
        "    def glance(self, tokens_BT, state, clock, learn):",
        '        """Logits and the state, of tokens between two ticks that only the levels of `learn` write for."""',
        f"        logits_BTV, state, _ = self.read(tokens_BT, state, clock, learn{', False' * final})",
        "        return logits_BTV, state",
        "",
        *_learn(memories),
    ]
    return lines


Levels = Mapping[str, list[Memory]]  # id of a level -> its memories


def _awaited(graph: Graph, levels: Levels) -> list[str]:
    """For each level, whether a write is still to come that somebody reads."""
    waiting = []
    for level, members in levels.items():
        name, n = graph[level].name, members[0].period.count
        soon = ["not final", *(f"or {n} - ({t} + a) % {n} + a < T" for t in _by_clock(members))]
        whole = fit(f'"{name}": "{name}" in learn and ({" ".join(soon)}),', 4)
        second = fit(f"and ({' '.join(soon)}),", 4)
        second = second if len(second) == 1 else fit("and (", 4) + ["    " * 5 + one for one in soon] + fit("),", 4)
        waiting += whole if len(whole) == 1 else [*fit(f'"{name}": "{name}" in learn', 4), *second]
    return waiting


def _by_clock(members: list[Memory]) -> dict[str, list[Memory]]:
    """The memories of a level that tick together: `carry:` and `tail:` are each memory's own."""
    found: dict[str, list[Memory]] = {}
    for m in members:
        found.setdefault(_at(clock_of(m, "t")), []).append(m)
    return found


def _ticks(graph: Graph, levels: Levels) -> list[str]:
    """The writes of each level, where its period ends with the segment."""
    lines: list[str] = []
    ticking = [(graph[level], *one) for level, members in levels.items() for one in _by_clock(members).items()]
    for node, t, members in ticking:
        m, n = members[0], members[0].period.count
        lines += comment(f"level {node.name}: every {m.period}", cited(m.at), 4)
        lines.append(f'                if awaited["{node.name}"] and ({t} + b) % {n} == 0:')
        for m in {place_of(graph, m): m for m in members}.values():
            held = ', state.get(f"{place}.start")' * bool(held_start(graph, m))
            lines += _in_layers(graph, m, m, f"block.{write_name(graph, m)}(state[place]{held})", "i, block")
        for m, over in {place_of(graph, m): (m, over) for m, over in _lives(graph, members)}.values():
            lines += comment(f"{m.name} begins again from the start held for it", "", 5)
            lines += _in_layers(graph, m, over, f'{class_constant(m.id)}.begun(state[f"{{place}}.start"])', "i")
    return lines


def _in_layers(graph: Graph, memory: Memory, ticking: Memory, register: str, names: str) -> list[str]:
    """Replace the memory's register in every layer where `ticking` is written with its level."""
    over = {"i, block": "enumerate(self.blocks)", "i": "range(len(self.blocks))"}[names]
    place, tick, several = place_of(graph, memory), place_of(graph, ticking), len(graph.blocks) > 1
    which = f'if "{tick}" in calls[i]:'
    if len({m.level for m in graph.of(Memory) if place_of(graph, m) == tick}) > 1:  # kinds of block order it apart
        level = graph[ticking.level].name
        which = f'if (call := calls[i].get("{tick}")) and call.learner.level == "{level}":'
    body = [f'place = f"blocks.{{i}}.{place}"', f"state = state | {{place: {register}}}"]
    return [
        f"                    for {names} in {over}:",
        *[f"                        {which}"] * several,
        *_indented(body, 7 if several else 6),
    ]


def _lives(graph: Graph, written: list[Memory]) -> list[tuple[Memory, Memory]]:
    """The nested memories whose lives end when these are written, each with the one of these that ends it: what holds
    their start is written, or begins again itself."""
    over = {m.id: m for m in written}
    found = []
    for memory in sorted((m for m in graph.of(Memory) if m.nest), key=lambda m: m.period.count, reverse=True):
        if memory.nest in over and held_start(graph, memory):
            over[memory.id] = over[memory.nest]
            found.append((memory, over[memory.nest]))
    return found


def _releases(graph: Graph, memories: list[Memory]) -> list[str]:
    """Where a chunk ends that is longer than the period: reads see the state from there on."""
    lines: list[str] = []
    for m in {place_of(graph, m): m for m in memories if holds(m)}.values():
        place = place_of(graph, m)
        lines += comment(f"reads of {m.name} see the state at every {m.chunk} tokens", "", 4)
        lines += [
            f"                if ({_at(clock_of(m, 't'))} + b) % {m.chunk} == 0:",
            "                    for i in range(len(self.blocks)):",
            f'                        if register := state.get(f"blocks.{{i}}.{place}"):',
            f"                            released = {class_constant(m.id)}.released(register)",
            f'                            state = state | {{f"blocks.{{i}}.{place}": released}}',
        ]
    return lines


def _read(flow: Flow, head: str, final: bool) -> list[str]:
    """The method that runs all blocks over one segment."""
    return [
        f"    def read(self, tokens_BT, state, clock, learn{', final' * final}):",
        '        """All blocks over tokens between two ticks, and the calls of each memory written at ticks."""',
        "        x_BTD, calls = F.embedding(tokens_BT, self.embedding), []",
        "        if not x_BTD.requires_grad:  # an own error needs a graph even where nothing else is trained",
        "            x_BTD = x_BTD.detach().requires_grad_()",
        *flow.begins,
        "        for i, block in enumerate(self.blocks):",
        *flow.through(f"registers, call = block({flow.values}, layer_of(state, i), clock, learn{', final' * final})"),
        "            state = with_layer(state, i, registers)",
        "            calls.append(call)",
        f"        return linear(rmsnorm(x_BTD, self.rmsnorm), {head}), state, calls",
    ]


def _learn(memories: list[Memory]) -> list[str]:
    """The method that takes each token's own error to the memories that learn from it."""
    taught = ", taught_BT" if any(erases(m) for m in memories) else ""
    full = any(m.meta is Meta.FULL for m in memories)
    return [
        f"    def learn(self, nats_BT, calls, state, awaited{taught}):",
        '        """Every token\'s own error at each layer of these memories, added to its period\'s (eq. 71)."""',
        "        called = [(i, name, call) for i, made in enumerate(calls) for name, call in made.items()]",
        "        learners = [(i, name, call) for i, name, call in called if awaited[call.learner.level]]",
        "        if not learners:",
        "            return state",
        "        outputs = [z for _, _, call in learners for z in call.outputs()]",
        f"        errors = iter(own_errors(nats_BT.sum(), outputs{', create_graph=True' if full else ''}))",
        "        for i, name, call in learners:",
        '            place = f"blocks.{i}.{name}"',
        "            own = [next(errors) for _ in call.outputs()]",
        f"            state = state | {{place: call.learner.gather(state.get(place, {{}}), call, own{taught})}}",
        "        return state",
    ]


def _indented(lines: list[str], indent: int) -> list[str]:
    return ["    " * indent + line for line in lines]


def _at(t: str) -> str:
    return 'clock["sequence"]' if t == "t" else t
