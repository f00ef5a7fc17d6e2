"""A graph as text and as JSON; both read back equal.

    to_text(graph) / from_text(text)         one node per statement, in the manner of the equations
    to_json(graph) / from_json(text)         plain data, for programs

    op h = conv(h/rmsnorm; window=4) weights=[blocks.*.h.conv] name=h shape=[256] @42:7+4
    read k/key = titans.key(u) when=chunk shape=[4,64] @46:14+3

A field at its default is left out; `@` is the place in the spec.  A statement goes on in indented lines.  The text
leaves out where the fields of memories and levels stand (`said`), which is not part of what a graph is; what rules
remember is written for the reader alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NamedTuple

from nlc.diagnostics import CompilerBug
from nlc.graph.encode import decode, encode
from nlc.graph.graph import Graph
from nlc.graph.momenta import momenta
from nlc.graph.nodes import (
    AnyNode,
    Cost,
    Fused,
    Input,
    Level,
    Loss,
    Memory,
    Number,
    Op,
    Output,
    Read,
    Recurrence,
    Rule,
    RuleLevel,
    Run,
    Weight,
)
from nlc.graph.words import Reader, word, written

KINDS: dict[str, type[AnyNode]] = {
    "input": Input, "number": Number, "op": Op, "read": Read, "weight": Weight, "memory": Memory, "level": Level,
    "recurrence": Recurrence, "fused": Fused, "output": Output, "loss": Loss,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}
FORMAT = 1
WIDTH = 130


def to_json(graph: Graph, indent: int | None = 1) -> str:
    """The graph as JSON text."""
    data = {
        "format": FORMAT, "name": graph.name, "file": graph.file, "doc": graph.doc, "sizes": dict(graph.sizes),
        "run": encode(graph.run, graph.file), "stack": list(graph.stack), "tied": graph.tied, "bare": graph.bare,
        "cost": encode(graph.cost, graph.file),
        "nodes": [{"kind": NAMES[type(n)], **encode(n, graph.file)} for n in graph.nodes.values()],
        "momenta": [{**asdict(m), "period": str(m.period)} for m in momenta(graph)],
    }  # fmt: skip
    return json.dumps(data, indent=indent, ensure_ascii=False)


def from_json(text: str) -> Graph:
    """The graph that to_json wrote.  Raises CompilerBug for another format."""
    data = json.loads(text)
    if data.get("format") != FORMAT:
        raise CompilerBug(f"a graph of format {data.get('format')}, and this compiler reads {FORMAT}")
    file = data["file"]
    nodes = []
    for entry in data["nodes"]:
        kind = KINDS[entry.pop("kind")]
        nodes.append(decode(kind, entry, file))
    return Graph(
        name=data["name"], file=file, doc=data["doc"], sizes=data["sizes"], run=decode(Run, data["run"], file),
        stack=tuple(data["stack"]), tied=data["tied"], bare=data["bare"], nodes={n.id: n for n in nodes},
        cost=decode(Cost | None, data["cost"], file),
    )  # fmt: skip


# ---- text -----------------------------------------------------------------------------------------------------


def to_text(graph: Graph) -> str:
    """The graph as text, one statement per node."""
    header = {
        "format": FORMAT, "file": graph.file, "doc": graph.doc, "sizes": dict(graph.sizes),
        "run": encode(graph.run, graph.file), "stack": _runs(graph.stack), "tied": graph.tied, "bare": graph.bare,
    }  # fmt: skip
    lines = [_wrapped(f"graph {word(graph.name)}", header)]
    programs = _programs(graph)
    for name, levels in programs.items():
        lines.append(_wrapped(f"rule {word(name)}", {"levels": encode(levels, graph.file)}))
    lines += [_statement(graph, node, programs) for node in graph.nodes.values()]
    for rule in momenta(graph):
        said = {"of": rule.owner, "rule": rule.rule, "every": str(rule.period), "names": list(rule.names)}
        lines.append(_wrapped(f"momentum {word(rule.id)}", said))
    if graph.cost is not None:
        totals = encode(graph.cost, graph.file)
        entries = totals.pop("by_node", [])
        lines.append(_wrapped("cost", totals))
        lines += [f"spent {word(id)} {' '.join(map(str, numbers))}" for id, *numbers in entries]
    return "\n".join(lines) + "\n"


def _runs(stack: tuple[str, ...]) -> list[list[Any]]:
    """[block, block, block] as [[3, block]]."""
    runs: list[list[Any]] = []
    for kind in stack:
        if runs and runs[-1][1] == kind:
            runs[-1][0] += 1
        else:
            runs.append([1, kind])
    return runs


def _programs(graph: Graph) -> dict[str, tuple[RuleLevel, ...]]:
    """Each rule's program, once; a second program under the same name is written where it is used."""
    found: dict[str, tuple[RuleLevel, ...]] = {}
    for node in graph.nodes.values():
        if isinstance(node, Memory | Level) and node.rule is not None and node.rule.levels:
            found.setdefault(node.rule.name, node.rule.levels)
    return found


def _statement(graph: Graph, node: AnyNode, programs: dict[str, tuple[RuleLevel, ...]]) -> str:
    data = encode(node, graph.file)
    if data.get("block") == graph.stack[0]:  # the first kind of block goes without saying
        del data["block"]
    id, at = data.pop("id"), data.pop("at")
    data.pop("said", None)
    head = f"{NAMES[type(node)]} {word(id)}"
    match node:
        case Op():
            options = "; " + " ".join(f"{k}={written(v)}" for k, v in data.pop("options")) if node.options else ""
            head += f" = {data.pop('op')}({', '.join(map(word, data.pop('inputs')))}{options})"
        case Read():
            head += f" = {word(data.pop('memory'))}({word(data.pop('query'))})"
        case Memory() | Level() if node.rule is not None:
            if programs.get(node.rule.name) == node.rule.levels:
                del data["rule"]["levels"]
            else:
                data["rule"].setdefault("levels", [])
    return _wrapped(head, data, f" @{at}", wrap=isinstance(node, Memory | Level | Recurrence | Fused))


def _wrapped(head: str, data: dict[str, Any], tail: str = "", wrap: bool = True) -> str:
    lines = [head]
    items = [f"{name}={written(value)}" for name, value in data.items()]
    for i, item in enumerate([*items, *([tail.strip()] if tail else [])]):
        for piece in _pieces(item) if wrap else [item]:
            if wrap and i and len(lines[-1]) + len(piece) > WIDTH:
                lines.append("   ")
            lines[-1] += piece if lines[-1].endswith(",") else f" {piece}"
    return "\n".join(lines)


def _pieces(item: str) -> list[str]:
    """A long list, cut after its commas; quoted text stays whole."""
    if len(item) < WIDTH or '"' in item:
        return [item]
    *pieces, last = item.split(",")
    return [*(f"{piece}," for piece in pieces), last]


class _Said(NamedTuple):
    """One statement: its kind, its id, and what follows."""

    kind: str
    id: str
    reader: Reader


def from_text(text: str) -> Graph:
    """The graph that to_text wrote."""
    statements = [_said(s) for s in _joined(text)]
    header = statements[0].reader.fields()
    if statements[0].kind != "graph" or header.get("format") != FORMAT:
        raise CompilerBug(f"not the text of a graph of format {FORMAT}")
    file, programs = header["file"], {}
    stack = tuple(kind for n, kind in header["stack"] for _ in range(n))
    nodes: list[AnyNode] = []
    cost: dict[str, Any] | None = None
    for kind, id, reader in statements[1:]:
        if kind == "rule":
            programs[id] = reader.fields()["levels"]
        elif kind == "momentum":  # which follows from the rules
            continue
        elif kind == "cost":
            cost = {**reader.fields(), "by_node": []}
        elif kind == "spent":
            assert cost is not None
            cost["by_node"].append([id, *reader.values()])
        else:
            nodes.append(_node(KINDS[kind], id, reader, programs, stack[0], file))
    return Graph(
        name=statements[0].id, file=file, doc=header["doc"], sizes=header["sizes"],
        run=decode(Run, header["run"], file), stack=stack, tied=header["tied"], bare=header["bare"],
        nodes={n.id: n for n in nodes}, cost=decode(Cost | None, cost, file),
    )  # fmt: skip


def _joined(text: str) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            found[-1] += line
        elif line:
            found.append(line)
    return found


def _said(statement: str) -> _Said:
    reader = Reader(statement)
    kind = reader.word()
    return _Said(kind, "" if kind == "cost" else reader.word(), reader)


def _node(kind: type[AnyNode], id: str, reader: Reader, programs: dict[str, Any], block: str, file: str) -> AnyNode:
    data: dict[str, Any] = {"id": id, "block": block} if "block" in kind.__dataclass_fields__ else {"id": id}
    if kind is Op:
        data |= dict(zip(("op", "inputs", "options"), reader.call(), strict=True))
    elif kind is Read:
        data["memory"], (data["query"],), _ = reader.call()
    data |= reader.fields()
    if is_rule(data.get("rule")) and "levels" not in data["rule"] and programs.get(data["rule"]["name"]):
        data["rule"]["levels"] = programs[data["rule"]["name"]]
    if not is_dataclass(kind) or not {f.name for f in fields(kind)} >= data.keys():
        raise CompilerBug(f"the text of {id} has fields that a {kind.__name__} has not")
    node: AnyNode = decode(kind, data, file)
    return node


def is_rule(data: Any) -> bool:
    return isinstance(data, dict) and {"name"} <= data.keys() <= set(Rule.__dataclass_fields__)
