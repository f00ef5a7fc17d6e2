"""Drawings of a graph, none of which needs another program: to_svg, to_mermaid, to_dot.

All three show the same outline: levels by frequency, their memories, and typed flows between them.
"""

from __future__ import annotations

from math import prod

from nlc.graph.draw_levels import said_period, scene_of
from nlc.graph.graph import Graph
from nlc.graph.momenta import Momenta, momenta, said
from nlc.graph.nodes import Level, Memory
from nlc.graph.outline import LOSS, OUT, TOKENS, Outline, outline

DASHED, DOTTED = ("error",), ("initialises",)


def to_svg(graph: Graph) -> str:
    """Levels as bands, the fastest on top; light and dark."""
    return scene_of(graph).svg(f"Levels of {graph.name}", graph.doc)


def to_mermaid(graph: Graph) -> str:
    """A flowchart for Markdown: one subgraph per level."""
    seen = outline(graph)
    lines = ["flowchart LR", f"  {TOKENS}(({_entering(graph)}))", f"  {OUT}(({_leaving(graph)}))"]
    for level in seen.levels:
        lines.append(f'  subgraph {_key(level.id)}["{level.index}. {level.name}: {_period(graph, level)}"]')
        lines += [f'    {_key(m)}["{graph[m].name}<br/>{_form(graph[m])}"]' for m in level.memories]
        if _owns(graph, level.id):
            lines.append(f'    {_key(level.id)}_weights["{len(level.weights)} kinds of weight"]')
        lines.append("  end")
    for rule in momenta(graph):
        lines.append(f'  subgraph {_key(rule.id)}["{said(rule)}"]')
        lines += [f'    {_key(f"{rule.id} {name}")}["{name}<br/>of gradients"]' for name in rule.names]
        lines.append("  end")
        owner, first, last = (_key(x) for x in (_end(graph, rule.owner), *_ends(rule)))
        lines += [f"  {owner} -- gradient --> {first}", f"  {last} -- write --> {owner}"]
    for source, target, roles in _merged(graph, seen):
        label = ", ".join(roles)
        arrow = "-. {} .->" if set(label.split(", ")) <= {*DASHED, *DOTTED} else "-- {} -->"
        lines.append(f"  {_key(source)} {arrow.format(label)} {_key(target)}")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """The same for Graphviz."""
    seen = outline(graph)
    lines = [f"digraph {_quoted(graph.name)} {{", "  rankdir=LR; node [shape=box, style=rounded]; compound=true;"]
    lines += [
        f"  {TOKENS} [shape=circle, label={_quoted(_entering(graph))}];",
        f"  {OUT} [shape=circle, label={_quoted(_leaving(graph))}];",
    ]
    for level in seen.levels:
        lines.append(f"  subgraph {_quoted('cluster ' + level.name)} {{")
        lines.append(f"    label={_quoted(f'{level.index}. {level.name}: {_period(graph, level)}')};")
        lines += [
            f"    {_quoted(m)} [label={_quoted(f'{graph[m].name}|{_form(graph[m])}'.replace('|', chr(10)))}];"
            for m in level.memories
        ]
        if _owns(graph, level.id):
            lines.append(
                f"    {_quoted(level.id + ' weights')} [label={_quoted(f'{len(level.weights)} kinds of weight')}];"
            )
        lines.append("  }")
    for rule in momenta(graph):
        lines.append(f"  subgraph {_quoted('cluster ' + rule.id)} {{")
        lines.append(f"    label={_quoted(said(rule))};")
        lines += [f"    {_quoted(f'{rule.id} {name}')} [label={_quoted(name)}];" for name in rule.names]
        lines.append("  }")
        owner, first, last = (_quoted(x) for x in (_end(graph, rule.owner), *_ends(rule)))
        lines.append(f"  {owner} -> {first} [label={_quoted('gradient')}, style=solid];")
        lines.append(f"  {last} -> {owner} [label={_quoted('write')}, style=solid];")
    for source, target, roles in _merged(graph, seen):
        style = "dashed" if set(roles) <= set(DASHED) else "dotted" if set(roles) <= set(DOTTED) else "solid"
        lines.append(f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(', '.join(roles))}, style={style}];")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _ends(rule: Momenta) -> tuple[str, str]:
    return f"{rule.id} {rule.names[0]}", f"{rule.id} {rule.names[-1]}"


def _merged(graph: Graph, seen: Outline) -> list[tuple[str, str, list[str]]]:
    """(source, target, roles): one arrow for all flows between two places."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for link in seen.links:
        source = OUT if link.source == LOSS else link.source
        ends = [_end(graph, source), _end(graph, link.target)]
        found.setdefault((ends[0], ends[1]), {})[link.role] = None
    return [(source, target, list(roles)) for (source, target), roles in found.items()]


def _end(graph: Graph, id: str) -> str:
    """A level's flows begin and end at its weights, or at the memory that its weights are."""
    if not id.startswith("level:"):
        return id
    return f"{id} weights" if _owns(graph, id) else graph[id].memories[0]


def _owns(graph: Graph, level: str) -> bool:
    """Whether a level owns weights that are no memory of its own."""
    own = {w for m in graph[level].memories for w in graph[m].weights}
    return bool(set(graph[level].weights) - own)


def _period(graph: Graph, level: Level) -> str:
    return said_period(level.period, any(graph[m].form.kind == "attention" for m in level.memories))


def _form(memory: Memory) -> str:
    heads = f", {prod(memory.heads)} heads" if memory.heads else ""
    return f"{memory.form.kind} {memory.inner} to {memory.outer}{heads}"


def _entering(graph: Graph) -> str:
    return "tokens" if not graph.bare else "inputs"


def _leaving(graph: Graph) -> str:
    return "loss" if not graph.bare else "outputs"


def _key(id: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in id)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
