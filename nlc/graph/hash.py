"""The canonical hash: equal for equal programs, whatever their memories, levels, values and weights are called.

    graph_hash(graph) -> 64 hexadecimal digits

Every node is labelled by what it is, without ids, names, places and words for the reader; then, in rounds, by the
labels of what it refers to (in order) and of what refers to it (without order), until no round tells more nodes
apart.  The hash is that of all labels together.  What passes derive (recurrences, cost) and `run`, except the batch,
stay out.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

from nlc.equations import to_text
from nlc.graph.encode import encode
from nlc.graph.graph import Graph
from nlc.graph.nodes import (
    AnyNode,
    Fused,
    Input,
    Level,
    Memory,
    Number,
    Op,
    Output,
    Read,
    Recurrence,
    Rule,
    RuleLevel,
    Weight,
)

# Never part of a label: names, places, and fields that refer to nodes (they come in through the rounds).
HIDDEN = {
    "id", "at", "said", "block", "name", "version", "field", "path", "inputs", "weights", "memory", "query", "owner",
    "level", "pairs", "rate", "retain", "weigh", "value", "memories", "owners", "selects", "rule", "objective",
    "rate_varies", "nest", "of", "form_weights", "still",
}  # fmt: skip


def graph_hash(graph: Graph) -> str:
    """Hexadecimal SHA-256."""
    nodes = {id: n for id, n in graph.nodes.items() if not isinstance(n, Recurrence | Fused)}
    kinds = {kind: i for i, kind in enumerate(graph.blocks)}
    own = {
        id: _digest([type(n).__name__, kinds.get(getattr(n, "block", ""), -1), _content(graph, n)])
        for id, n in nodes.items()
    }
    forward = {id: _references(n) for id, n in nodes.items()}
    back: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for id, references in forward.items():
        for role, target in references:
            back[target].append((role, id))
    labels, classes = own, 0
    while len(set(labels.values())) > classes:
        classes = len(set(labels.values()))
        labels = {
            id: _digest(
                [
                    own[id],
                    [(role, labels[t]) for role, t in forward[id]],
                    sorted((role, labels[s]) for role, s in back[id]),
                ]
            )
            for id in nodes
        }
    frame = [graph.bare, graph.tied, [kinds[kind] for kind in graph.stack]]
    frame += [] if graph.bare else [graph.run.batch, graph.sizes["context"]]
    return _digest([frame, sorted(labels.values())])


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _content(graph: Graph, node: AnyNode) -> Any:
    """What a node is, apart from what it refers to."""
    data = {k: v for k, v in encode(node, graph.file).items() if k not in HIDDEN}
    match node:
        case Memory():
            params = [[p.name, encode(p.number, "")] for p in node.objective.params]
            tree = "" if node.objective.tree is None else to_text(node.objective.tree)
            data |= {"rule": _rule(node.rule), "objective": [node.objective.kind, params, tree]}
            if node.form.kind == "equations":
                data |= {"form": _equations(node), "parts": [list(shape) for _, shape in node.parts]}
        case Level():
            data |= {"rule": _rule(node.rule), "rate": node.rate, "objective": node.objective}
        case Number():
            data["value"] = node.value
        case Input() | Output():
            data["name"] = node.name
    if isinstance(node, Memory | Level) and node.source is not None:
        data["source"] = [node.source.path, *node.source.renamed]
    return data


def _equations(memory: Memory) -> Any:
    """A form's own equations, whatever its state, values and weights are called."""
    form = memory.form
    number = {name: i for i, name in enumerate(["x", *(name for name, _ in form.state), *(n.id for n in form.body)])}
    body: list[Any] = []
    for node in form.body:
        if isinstance(node, Op):
            weights = [memory.form_weights.index(w) for w in node.weights]
            body.append([node.op, [number[i] for i in node.inputs], encode(node.options, ""), weights])
        else:
            body.append(node.value)
    return [[axes for _, axes in form.state], body, number[form.result]]


def _rule(rule: Rule | None) -> Any:
    if rule is None:
        return None
    params = [[p.name, encode(p.number, "")] for p in rule.params]
    return [params, [_rule_level(level) for level in rule.levels]]


def _rule_level(level: RuleLevel) -> Any:
    memories = [[m.name, encode(m.form, ""), to_text(m.keys), to_text(m.values), m.objective, to_text(m.lr), m.before,
                 m.start] for m in level.memories]  # fmt: skip
    return [level.period, list(level.state), [to_text(a) for a in level.do], *([memories] if memories else [])]


def _references(node: AnyNode) -> list[tuple[str, str]]:
    """(role, id) of everything a node refers to, in a fixed order."""
    match node:
        case Op():
            return [("input", i) for i in node.inputs] + [("weight", w) for w in node.weights]
        case Read():
            return [("memory", node.memory), ("query", node.query)]
        case Memory():
            found = [("level", node.level)] + [("start", w) for w in node.weights]
            found += [("form", w) for w in node.form_weights]
            found += [(role, m) for role, m in (("nest", node.nest), ("of", node.of)) if m]
            found += [(role, v) for pair in node.pairs for role, v in zip(("key", "value"), pair, strict=True)]
            found += [
                (role, v) for role, v in (("rate", node.rate), ("retain", node.retain), ("weigh", node.weigh)) if v
            ]
            found += [(f"rule {p.name}", p.value) for p in node.rule.params if p.value]
            return found + [(f"objective {p.name}", p.value) for p in node.objective.params if p.value]
        case Weight():
            return [("owner", owner) for owner in node.by if owner]
        case Output():
            return [("value", node.value)]
    return []
