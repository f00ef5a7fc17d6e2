"""Graph -> ModelView: the generated model.py.  Its namesake templates/model.py.j2 holds the layout."""

from __future__ import annotations

import keyword
import math
import re
from dataclasses import replace

from codegen.axes import Axes
from codegen.block import Emitter
from codegen.equations import number, spec_text
from codegen.expressions import attribute
from codegen.fires import apart, count_lines, in_sequence, loss_driven, shown_lines, steady_lines, tail_lines
from codegen.forms import form_text
from codegen.layout import comment, docstring_text, fit, wrapped
from codegen.lowerings import compute
from codegen.memories import begins, counts, earlier_pairs, log_retention, moving_params, start_parts, tuple_
from codegen.names import block_classes, class_constant, class_name, function_name, local
from codegen.objectives import slope_name, slopes
from codegen.places import place_of
from codegen.remembered import constant
from codegen.rules import RuleView, rule_view, states
from codegen.segments import learner, quoted, run_lines, write_methods
from codegen.views import BlockView, ModelView
from codegen.written_forms import functions
from nlc.graph.flow import self_query
from nlc.graph.graph import Graph
from nlc.graph.linearity import descends, linear, relative
from nlc.graph.nodes import Carry, Init, Input, Memory, Op, Output, Read, Recurrence, Rule, Shape, Weight, When
from nlc.graph.remembered import state_names
from nlc.graph.twins import twins

FROM_MODEL = (
    "LanguageModel",
    "Layer",
    "Weights",
    "begin",
    "constant",
    "detached",
    "identity",
    "layer_of",
    "nats_of",
    "normal",
    "with_layer",
)


def model_view(graph: Graph, header: tuple[str, ...]) -> ModelView:
    """Everything templates/model.py.j2 prints."""
    axes = Axes.of(graph)
    rules = _rules(graph)
    names = block_classes(graph.name, tuple(graph.blocks))
    blocks = tuple(_block(graph, kind, names[kind], axes) for kind in graph.blocks)
    asks = any(b.final for b in blocks)  # every kind of block is called alike
    blocks = tuple(replace(b, arguments=b.arguments + ", final" * asks) for b in blocks)
    body = tuple(_bare(graph, axes, asks) if graph.bare else run_lines(graph, axes, asks))
    constants = (*functions(graph), *slopes(graph), *_constants(graph))
    frame = tuple(line for w in graph.of(Weight) if not w.block for line in fit(_put(w), 2))
    flows = [line for b in blocks for line in b.flows]
    everything = [
        *body,
        *constants,
        *frame,
        *flows,
        *(line for b in blocks for line in (*b.weights, *b.start, *b.unwritten, *b.forward, *b.writes)),
    ]
    everything += [line for r in rules for line in (*r.constants, *r.lines)]
    return ModelView(
        header=tuple(line for text in header for line in wrapped(text, 118)),
        doc=tuple(wrapped(docstring_text(" ".join(graph.doc.split()) or graph.name), 116)),
        legend=tuple(wrapped(f"Shapes: {axes.legend()}.", 118)),
        imports=_imports("\n".join(everything), graph.bare),
        constants=constants,
        rules=rules,
        blocks=blocks,
        name=class_name(graph.name),
        bare=graph.bare,
        stack=_stack(graph, names),
        fields=(*_fields(graph), *steady_lines(graph)),
        frame=frame,
        body=body,
    )


def _imports(text: str, bare: bool) -> tuple[str, ...]:
    """What the code calls, and nothing else."""
    code = re.sub(r'"""(.|\n)*?"""', "", re.sub(r"#.*", "", text))
    called = set(re.findall(r"(?<![.\w])(?<!def )([A-Za-z_]\w*)\(", code))
    lines = ["import math", ""] if re.search(r"\bmath\.", code) else []
    if re.search(r"\btorch\.", code):
        lines.append("import torch")
    if re.search(r"\bF\.", code):
        lines.append("import torch.nn.functional as F")
    lines += ["from torch import nn", ""]
    called |= {"Weights", "Layer" if bare else "LanguageModel"}
    called -= {"LanguageModel"} if bare else set()
    mine = sorted(n for n in FROM_MODEL if n in called)
    lines += _import("runtime.model", mine)
    ops = sorted((n for n in OPS if n in called), key=lambda n: (n[0].islower(), n))
    if ops:
        lines += _import("runtime.ops", ops)
    if "Gates" in called:
        lines.insert(lines.index("from torch import nn") + 2, "from runtime.kernels import Gates")
    return tuple(lines)


def _import(module: str, names: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    return [line] if len(line) <= 120 else [f"from {module} import (", *(f"    {n}," for n in names), ")"]


OPS = frozenset(
    "Boxes Call Equations Learner Matrix Mlp Remembered Swiglu Vector Write apply_matrix attention causal_conv "
    "convolution ended exact_l2norm exact_layernorm gated_norm heads held l2norm layernorm linear log_share memory "
    "merge newton_schulz norm now outer own_errors past periodic poly previous read readout rmsnorm root rope "
    "segments shared_product softplus trace".split()
)


# ---- constants and rules ---------------------------------------------------------------------------------------------


def needs_rule(memory: Memory) -> bool:
    """Its rule is called as a function: at a tick, or token by token where it has no closed form."""
    return in_sequence(memory) and (
        memory.objective.kind == "loss" or memory.period.count > 1 or linear(memory.rule) is None
    )


def rule_names(graph: Graph) -> dict[Rule, str]:
    """A function name for every distinct rule that memories call."""
    found: dict[Rule, str] = {}
    for memory in graph.of(Memory):
        if needs_rule(memory) and memory.rule not in found:
            name = local(function_name(memory.rule.name))
            taken = set(found.values())
            found[memory.rule] = name if name not in taken else f"{name}_{function_name(memory.name)}"
    return found


def _rules(graph: Graph) -> tuple[RuleView, ...]:
    return tuple(rule_view(rule, name) for rule, name in rule_names(graph).items())


def _constants(graph: Graph) -> tuple[str, ...]:
    """One constant a memory: its form, or how it is written, as are those that are written alike."""
    lines: list[str] = []
    names = rule_names(graph)
    for recurrence in graph.of(Recurrence):
        alike = {twin.id for group in twins(graph, recurrence) for twin in group[1:]}
        for m in recurrence.members:
            memory: Memory = graph[m]
            if recurrence.lowering in ("attention", "shared_product") or m in alike:
                continue
            if recurrence.lowering == "weights":
                lines += fit(f"{class_constant(memory.id)} = {form_text(memory, graph)}")
                continue
            if recurrence.lowering == "segment":
                lines += fit(f"{class_constant(memory.id)} = {learner(graph, memory, names, recurrence.kept)}")
                continue
            lines += fit(f"{class_constant(memory.id)} = {_write(graph, memory, names, recurrence)}")
    return tuple(lines)


def _write(graph: Graph, memory: Memory, names: dict[Rule, str], recurrence: Recurrence) -> str:
    shape = linear(memory.rule)
    objective = memory.objective
    kind = f'"{objective.kind}"' if objective.tree is None else slope_name(memory)
    options = [f"form={form_text(memory, graph)}", f"objective={kind}"]
    if shape is not None and shape.erase:
        options.append("erase=True")
    if memory.chunk > 1 and memory.period.count == 1:
        options.append(f"chunk={memory.chunk}")
    if memory.grad_at_kept:
        options.append("kept=True")
    if memory.meta.value != "full":
        options.append(f'meta="{memory.meta.value}"')
    if self_query(graph, memory):
        options.append("self_values=True")
    if memory.window > 1:
        options.append(f"window={memory.window}")
    if memory.period.count > 1 or shape is None:
        options.append(f"rule={names[memory.rule]}")
        if kept := states(memory.rule):
            options.append(f"rule_state={tuple_([quoted(s) for s in kept])}")
    elif shape.state:
        options.append("momentum=True")
    if begins(memory) and not memory.retain_to_start:
        options.append("to_start=False")
    options += ["keep=True"] * recurrence.kept + [f"name={quoted(place_of(graph, memory))}"]
    options += ["relative=True"] * relative(memory)
    options += ["descends=True"] * (memory.period.count > 1 and descends(memory.rule))
    options += ["kernel=True"] * bool(recurrence.kernel)
    return f"Write({', '.join(options)})"


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _block(graph: Graph, kind: str, name: str, axes: Axes) -> BlockView:
    emitter = Emitter(graph, kind, axes, compute, own=bool(loss_driven(graph)))
    emitter.all()
    results = [emitter.scope.spread(o.value) for o in graph.of(Output, kind)]
    inputs = [emitter.scope.names[n.id] for n in graph.of(Input, kind)]
    calls = [line for m, taps in _calls(emitter) for line in fit(_call(emitter, m, taps), 3)]
    forward = _preamble(emitter, inputs[0], [*calls, *results])
    returns = ", ".join(results)
    returns = f"({returns})" if graph.bare and len(results) > 1 else returns
    if loss_driven(graph):
        forward += ["        calls = {", *(f"{c}" for c in calls), "        }"] if calls else ["        calls = {}"]
        returns += ", s, calls"
    else:
        returns += ", s"
    return BlockView(
        name=name,
        doc=_equations(emitter),
        tails=tuple(tail_lines(graph, kind)),
        weights=tuple(line for w in graph.of(Weight, kind) for line in fit(_put(w), 2)),
        start=tuple(_start(emitter)),
        unwritten=tuple(_unwritten(emitter)),
        flows=tuple(emitter.functions),
        forward=tuple(forward),
        writes=tuple(write_methods(emitter, rule_names(graph))),
        arguments=", ".join([*inputs, "s", "clock", "learn"]),
        final=emitter.final,
        returns=returns,
    )


def _calls(emitter: Emitter) -> list[tuple[Memory, list[str]]]:
    """Each memory that a tick writes, with the taps of its reads, which teach a start held for it, too."""
    found = [(emitter.graph[m], list(taps.values())) for m, taps in emitter.calls.items()]
    starts = [m for m in emitter.graph.of(Memory, emitter.block) if m.of]
    return found + [(m, list(emitter.calls[m.of].values())) for m in starts if m.of in emitter.calls]


def _call(emitter: Emitter, memory: Memory, taps: list[str]) -> str:
    """What the block leaves for a write at the next tick."""
    options = [class_constant(memory.id), f"({', '.join(taps)}{',' if len(taps) == 1 else ''})"]
    alone = memory.rate_varies and memory.period.count == 1  # no sum to weigh: the rate is the rule's own lr
    if memory.rate_varies and not alone:
        options.append(f"rate={emitter.scope.spread(memory.rate, memory.heads)}")
    if memory.retain:
        options.append(f"keep={log_retention(emitter.scope, memory)}")
    options += moving_params(emitter.scope, memory, "params", memory.rate if alone else "")
    return f'"{place_of(emitter.graph, memory)}": Call({", ".join(options)}),'


def _preamble(emitter: Emitter, like: str, after: list[str]) -> list[str]:
    """Names that the body, and what it leaves, use; then the body."""
    text = re.sub("#.*", "", "\n".join([*emitter.lines, *after]))
    B, T = (re.search(rf"(?<![\w.]){letter}\b(?!_)", text) for letter in "BT")
    lines = ["        s = dict(s)"]
    if B and T:
        lines.append(f"        B, T = {like}.shape[:2]")
    elif B or T:
        lines.append(f"        B = {like}.shape[0]" if B else f"        T = {like}.shape[1]")
    if re.search(r"(?<![\w.])t\b", text):
        lines.append('        t = clock["sequence"]')
    return lines + emitter.lines


def _equations(emitter: Emitter) -> tuple[str, ...]:
    """The block as its spec writes it."""
    graph, lines = emitter.graph, []
    for node in emitter.values.values():
        name = getattr(node, "name", "")
        if name and isinstance(node, Op | Read) and not node.field and not (isinstance(node, Op) and node.op == "item"):
            lines += wrapped(f"{name} = {spec_text(graph, node.id)}", 112)
    return tuple(lines)


def _constant(value: float) -> str:
    """The number; math.log(0.05) where that is the same and shorter to read."""
    written = number(value)
    if len(written) > 12 and math.log(short := float(f"{math.exp(value):.9g}")) == value:
        return f"math.log({number(short)})"
    return written


def _put(weight: Weight) -> str:
    shape = ", ".join(map(str, weight.shape or ()))
    scale = 1.0 if weight.scale is None else weight.scale
    match weight.init:
        case Init.CONSTANT:
            value = f"constant({_constant(scale)}{', ' if shape else ''}{shape})"
        case Init.IDENTITY:
            *leading, rows, n = weight.shape or (0, 0)
            axes = f"{n}" if rows == n else f"{rows}, {n}"
            value = f"{number(scale)} * torch.eye({axes}).repeat({', '.join(map(str, [*leading, 1, 1]))})"
        case Init.NORMAL:
            value = f"normal({_scale(scale, weight.shape or ())}{', ' if shape else ''}{shape})"
    return f'self.put("{weight.path}", {value})'


def _scale(scale: float, shape: Shape) -> str:
    """128**-0.5 where that is one of the axes, or the number would be long; else the number."""
    n = round(scale**-2) if scale > 0 else 0
    root = n > 1 and abs(n**-0.5 - scale) < 1e-12
    return f"{n}**-0.5" if root and (n in shape or len(number(scale)) > 6) else number(scale)


def _start(emitter: Emitter) -> list[str]:
    """The registers of one layer at the start of B sequences; those written at ticks begin as the shared weights."""
    graph, lines = emitter.graph, []
    for node in emitter.values.values():
        if isinstance(node, Op) and node.op in ("conv", "prev"):
            taps = dict(node.options).get("window", 2) - 1
            shape = ", ".join(map(str, node.shape or ()))
            lines.append(
                f'"{place_of(graph, node)}": {{"past": like.new_zeros(B, {taps}{", " if shape else ""}{shape})}},'
            )
    for recurrence in graph.of(Recurrence, emitter.block):
        for m in recurrence.members:
            memory: Memory = graph[m]
            if recurrence.lowering == "attention":
                several = (len(memory.pairs),) if len(memory.pairs) > 1 else ()
                k, v = (", ".join(map(str, (*several, *graph[i].shape))) for i in memory.pairs[0])
                lines.append(
                    f'"{place_of(graph, memory)}": {{"k": like.new_zeros(B, 0, {k}), "v": like.new_zeros(B, 0, {v})}},'
                )
            elif recurrence.lowering not in ("weights", "segment"):
                lines.append(f'"{place_of(graph, memory)}": {_begin(graph, memory)},')
    return [line for entry in lines for line in fit(entry, 3)]


def _unwritten(emitter: Emitter) -> list[str]:
    """The registers of memories written at ticks, before their first write."""
    graph = emitter.graph
    mine = [m for m in loss_driven(graph) if m.block == emitter.block]
    return [line for m in mine for line in fit(f'"{place_of(graph, m)}": {_begin(graph, m)},', 3)]


def _begin(graph: Graph, memory: Memory) -> str:
    shape = linear(memory.rule)
    options = ["hold=True"] if memory.chunk > memory.period.count else []
    theirs = {name for level in memory.rule.levels for m in level.memories for name in state_names(m)}
    if kept := tuple(name for name in states(memory.rule) if name not in theirs):
        names = kept if needs_rule(memory) or shape is None else ("m",)
        options.append(f"rule={tuple_([quoted(s) for s in names])}")
    if counts(memory):
        options.append("count=True")
    if memory.window > 1:
        options.append(f"window={earlier_pairs(graph, memory)}")
    if own := [m for level in memory.rule.levels for m in level.memories]:
        function = rule_names(graph)[memory.rule]
        options.append(f"remembered={tuple_([constant(function, m) for m in own])}")
        columns = [quoted(name) for name, shape in memory.parts if len(shape) == len(memory.heads) + 1]
        options += [f"vectors={tuple_(columns)}"] if columns else []
    return f"begin({', '.join(['B', start_parts(graph, memory, 'like'), *options])})"


# ---- the model -------------------------------------------------------------------------------------------------------


def _stack(graph: Graph, names: dict[str, str]) -> str:
    """The layers: `Block() for _ in range(4)`, or the kinds in order."""
    if len(graph.blocks) == 1:
        return f"{names[graph.stack[0]]}() for _ in range({len(graph.stack)})"
    return f"kind() for kind in {tuple_([names[k] for k in graph.stack])}"


def _fields(graph: Graph) -> tuple[str, ...]:
    """Class attributes: what runtime.model asks of a model."""
    writing = [level.name for level in graph.levels if any(in_sequence(graph[m]) for m in level.memories)]
    memories = graph.of(Memory)
    streams = [place_of(graph, m) for m in memories if m.carry is Carry.STREAM]
    lines = [] if graph.bare else [f"vocab = {graph.sizes['vocab']}"]
    if graph.cost and graph.cost.span:
        lines.append(
            f"span = {graph.cost.span}  # activations of so many tokens at a time: all do not fit into run.memory"
        )
    if graph.bare:
        (kind,) = graph.blocks
        axes = ", ".join(f'"{argument(n.name)}": {tuple_([str(d) for d in n.shape])}' for n in graph.of(Input, kind))
        lines += fit(f"inputs = {{{axes}}}")
    lines += fit(f"writing = {tuple_([quoted(w) for w in writing])}")
    seen = {graph[r.memory].level for r in graph.of(Read) if r.when is When.AFTER and in_sequence(graph[r.memory])}
    if writing and not graph.bare:
        at_once = [quoted(level.name) for level in graph.levels if level.id in seen]
        lines += fit(f"at_once = {tuple_(at_once) if at_once else '()'}")
        lines += fit(f"shown = {{{', '.join(shown_lines(graph))}}}")
    if streams:
        lines += fit(f"streams = {tuple_([quoted(s) for s in streams])}")
    if several := apart(graph):
        said = ", ".join(f'"{level}": {tuple_([quoted(name) for name in names])}' for level, names in several.items())
        lines += fit(f"apart = {{{said}}}")
    return tuple(lines)


def _bare(graph: Graph, axes: Axes, final: bool) -> list[str]:
    """forward of a bare program.  final: its block asks whether anybody reads the state."""
    (kind,) = graph.blocks
    words = [argument(n.name) for n in graph.of(Input, kind)]
    given, first = ", ".join(words), words[0]
    outputs = [o.name for o in graph.of(Output, kind)]
    shapes = "; ".join(
        f"{word} (B, T{''.join(f', {d}' for d in n.shape)})"
        for n, word in zip(graph.of(Input, kind), words, strict=True)
    )
    clock, writing, out, registers = (
        f"{word}_" if word in words else word for word in ("clock", "writing", "out", "registers")
    )
    told = ", ".join([clock, writing] + ["final"] * final)
    if graph.cost and graph.cost.span:
        call, after = f"{out}, state = self.spanned(({given},), state, {told})", "state"
    else:
        call = f"{out}, {registers} = self.blocks[0]({given}, layer_of(state, 0), {told})"
        after = f"with_layer(state, 0, {registers})"
    return [
        f"    def forward(self, *, {given}, state=None, learn=True, final=False):",
        *docstring(f"{', '.join(outputs)} and the state after them, not to be used where `final`.", f"{shapes}."),
        f"        state, {clock} = self.begun(state, {', '.join(f'{word}={word}' for word in words)})",
        f"        {writing} = self.learning(learn)",
        f"        {call}",
        *count_lines(graph, f"{first}.shape[1]", clock, writing),
        "        if final:",
        f"            return {out}, None",
        f"        state = self.advanced({after}, {first}.shape[1])",
        f"        return {out}, self.closed(state, {writing})",
        "",
        "    def start(self, B, like):",
        '        """The initial state of every register, for B sequences."""',
        "        return with_layer({}, 0, self.blocks[0].start(B, like))",
    ]


def docstring(first: str, more: str) -> list[str]:
    """On one line where there is room."""
    one = f'        """{first}  {more}"""'
    if len(one) <= 120:
        return [one]
    return [f'        """{first}', "", *(f"        {line}" for line in wrapped(more, 112)), '        """']


def argument(name: str) -> str:
    """An input as an argument of forward: its own name, unless forward or Python has another use for it."""
    return f"{name}_" if keyword.iskeyword(name) else name


__all__ = ["attribute", "comment", "model_view"]
