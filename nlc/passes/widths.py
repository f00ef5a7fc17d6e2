"""For pass shapes: heads, widths and parts of memories, and the shapes of the fields that act on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nlc.diagnostics import Reporter
from nlc.equations import parse_axis
from nlc.graph.graph import Graph
from nlc.graph.memories import part_names
from nlc.graph.nodes import AnyNode, Carry, Form, Init, Memory, Shape
from nlc.graph.static import Refused, above_0, size
from nlc.operators import show
from nlc.passes.objectives import objective_shape
from nlc.rule_shapes import Misfit, fits_channels
from nlc.source import Position


@dataclass(frozen=True, slots=True)
class Widths:
    heads: Shape
    inner: int
    outer: int
    attention: bool = False


def widths_of(
    memory: Memory, queries: Sequence[Shape], keys: Sequence[Shape], values: Sequence[Shape], square: bool
) -> Widths | None:
    """What the shapes known so far say; None while they do not say enough.

    In: the width of its queries and keys.  Out: `out`, or the width of its values; where the error is the objective,
    and (with `square`) where the memory stands in its own values, the width in."""
    entering = [s for s in (*queries, *keys) if s]
    if not entering:
        return None
    inner, heads = entering[0][-1], max((s[:-1] for s in (*entering, *values) if s), key=lambda h: (len(h), h))
    if memory.form.kind == "attention":
        if not keys or not values or not values[0]:
            return None
        return Widths(keys[0][:-1], inner, values[0][-1], attention=True)
    if memory.outer:
        return Widths(heads, inner, memory.outer)
    if memory.objective.kind == "loss" or not memory.pairs or square:
        return Widths(heads, inner, inner)
    return Widths(heads, inner, values[0][-1]) if len(values) == len(memory.pairs) and values[0] else None


def finish(
    graph: Graph, memory: Memory, widths: Widths, known: Mapping[str, Shape], report: Reporter
) -> dict[str, AnyNode]:
    """The memory and its weights with every shape; checks the shapes of its pairs and fields."""
    form = _form(memory, widths, report)
    try:
        parts = parts_of(form, widths, graph.sizes, dict(memory.said).get("form", memory.at), report)
    except Refused:
        return {}
    nodes: dict[str, AnyNode] = {}
    names = part_names(form)
    for id, name in zip(memory.weights, names[: len(memory.weights)], strict=True):
        weight = graph[id]
        shape = _persistent(memory, name, form, known) if widths.attention else dict(parts)[name]
        init, scale = weight.init, weight.scale
        if name == "W_out" and memory.form.residual and not form.residual:  # widths differ: nothing passes it by
            init, scale = Init.NORMAL, None
        if scale is None:
            scale = shape[-1] ** -0.5
        nodes[id] = replace(weight, shape=shape, init=init, scale=scale)
    done = replace(
        memory,
        form=form,
        heads=widths.heads,
        inner=widths.inner,
        outer=widths.outer,
        parts=() if widths.attention else parts,
    )
    _pairs(done, known, report)
    _fields(done, known, report)
    if done.objective.kind == "expression":
        objective_shape(done, known, report)
    return {**nodes, done.id: done}


def _form(memory: Memory, widths: Widths, report: Reporter) -> Form:
    form, at = memory.form, dict(memory.said).get("form", memory.at)
    if form.kind in ("mlp", "swiglu"):
        hidden = form.hidden or form.times * widths.inner
        if hidden != int(hidden) or hidden < 1:
            report.error(
                "NLC0602", at, f"'{memory.id}': {form.times:g} times a width of {widths.inner} is not a whole number"
            )
            hidden = 1
        return replace(form, hidden=int(hidden), times=0.0, residual=form.residual and widths.inner == widths.outer)
    if form.kind == "vector" and widths.inner != widths.outer:
        report.error(
            "NLC0601",
            at,
            f"'{memory.id}': a vector memory maps {widths.inner} numbers to as many, not to {widths.outer}",
        )
    return form


def parts_of(
    form: Form, widths: Widths, sizes: Mapping[str, int], at: Position, report: Reporter
) -> tuple[tuple[str, Shape], ...]:
    """Names and shapes of a form's state, heads included."""
    inner, outer, hidden = widths.inner, widths.outer, form.hidden
    if form.kind == "equations":
        return _written_parts(form, widths, sizes, at, report)
    ends = {
        "W_in": (hidden, inner),
        "W_gate": (hidden, inner),
        "W_out": (outer, hidden if form.depth > 1 else inner),
        "M": (outer, inner),
        "m": (inner,),
    }
    found = []
    for name in part_names(form):
        if name.startswith("b_"):
            shape: Shape = (outer if name == "b_out" else hidden,)
        else:
            shape = ends.get(name, (hidden, hidden))
        found.append((name, (*widths.heads, *shape)))
    return tuple(found)


def _written_parts(
    form: Form, widths: Widths, sizes: Mapping[str, int], at: Position, report: Reporter
) -> tuple[tuple[str, Shape], ...]:
    """The state of a form written as equations; in and out are the memory's widths."""
    known = {**sizes, "in": widths.inner, "out": widths.outer}
    found = []
    for part, axes in form.state:
        trees = [parse_axis(text, at) for text in axes]
        shape = tuple(above_0(size(t, known, report), t, report, f"an axis of '{part}'") for t in trees)
        found.append((part, (*widths.heads, *shape)))
    return tuple(found)


def _persistent(memory: Memory, name: str, form: Form, known: Mapping[str, Shape]) -> Shape:
    """Learned pairs that attention always sees: as many keys, and values, as `persistent` says."""
    key, value = memory.pairs[0]
    return (form.persistent, *known[key if name == "k" else value])


def _pairs(memory: Memory, known: Mapping[str, Shape], report: Reporter) -> None:
    for i, (key, value) in enumerate(memory.pairs):
        for field, id, width in (("keys", key, memory.inner), ("values", value, memory.outer)):
            shape, expected = known.get(id), (*memory.heads, width)
            if shape is None or shape == expected or (shape[-1:] == (width,) and _serves(shape[:-1], memory.heads)):
                continue
            at = dict(memory.said).get(field, memory.at)
            which = f"{field}[{i}]" if len(memory.pairs) > 1 else field
            report.error(
                "NLC0601", at, f"'{memory.id}': {which} are {show(shape)}, and the memory takes {show(expected)}"
            )


def _serves(few: Shape, many: Shape) -> bool:
    return few == many or (len(few) == len(many) == 1 and many[0] % few[0] == 0)


def _fields(memory: Memory, known: Mapping[str, Shape], report: Reporter) -> None:
    """rate, retention and parameters are numbers, per head or for all; retention may be one per key channel."""
    said = dict(memory.said)
    channels = (*memory.heads, memory.inner)
    checks = [("rate", memory.rate, False), ("retain", memory.retain, memory.form.kind in ("matrix", "vector"))]
    checks += [
        ("weigh", memory.weigh, False),
        *(("rule", p.value or "", False) for p in memory.rule.params if p.number != "k"),
    ]
    for field, id, by_channel in checks:
        shape = known.get(id)
        if shape is None or shape in ((), memory.heads) or (by_channel and shape == channels):
            continue
        per = f"{show(memory.heads)} (one per head)" if memory.heads else ""
        expected = " or ".join(
            filter(None, ["a number", per, f"{show(channels)} (one per key channel)" if by_channel else ""])
        )
        report.error(
            "NLC0601", said.get(field, memory.at), f"'{memory.id}': {field} is {show(shape)}", f"{expected} expected"
        )
    if memory.retain and memory.form.kind in ("matrix", "vector") and known.get(memory.retain) == channels:
        _by_channel(memory, said.get("retain", memory.at), report)
    for param in (p for p in memory.rule.params if p.value and p.number == "k"):
        shape, at = known.get(param.value or ""), said.get("rule", memory.at)
        if shape is not None and shape != channels:
            message = f"'{memory.id}': {param.name} of {memory.rule.name} is {show(shape)}"
            report.error("NLC0601", at, message, f"{show(channels)} (as the keys) expected")
    values = (*memory.heads, memory.outer)
    for param in memory.objective.params:
        shape = known.get(param.value or "")
        if memory.objective.kind != "expression" and shape is not None and shape != values[: len(shape)]:
            at = said.get("objective", memory.at)
            report.error(
                "NLC0601",
                at,
                f"'{memory.id}': {param.name} of {memory.objective.kind} is {show(shape)}",
                f"a number, or {show(values)}",
            )
    if memory.retain_to_start and memory.carry is Carry.MODEL:
        report.error(
            "NLC0411",
            said.get("retain_to", memory.at),
            f"'{memory.id}' is carried by the model: it has no start to decay to",
        )


def _by_channel(memory: Memory, at: Position, report: Reporter) -> None:
    """A rule's program may have no use for one share a key channel."""
    try:
        fits_channels(memory.rule, memory.form.kind == "vector")
    except Misfit as error:
        there = f"in rule '{memory.rule.name}' {error.message}"
        message, hint = (
            f"'{memory.id}': retain is one number per key channel, and {there}",
            f"{error.hint} ({error.at})",
        )
        report.error("NLC0601", at, message, f"{hint}; or one number per head")
