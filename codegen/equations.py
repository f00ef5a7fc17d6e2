"""Values written back in the language of the spec: the comment above each generated statement."""

from __future__ import annotations

import re

from nlc.graph.graph import Graph
from nlc.graph.nodes import Input, Number, Op, Read, Value, Weight

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2), "matmul": ("@", 2), "pow": ("**", 4),
         "lt": ("<", 0), "le": ("<=", 0), "gt": (">", 0), "ge": (">=", 0), "eq": ("==", 0),
         "ne": ("!=", 0)}  # fmt: skip
LOOSEST, TIGHTEST = 0, 9


def number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def power(base: str, exponent: str) -> str:
    """A power as a formatter writes it: tight between names and numbers, spaced where a side holds a bracket."""
    simple = all(re.fullmatch(r"-?[\w.]+", side) for side in (base, exponent))
    return f"{base}**{exponent}" if simple else f"{base} ** {exponent}"


def parenthesised(text: str, precedence: int, least: int) -> str:
    return f"({text})" if precedence < least else text


def spec_text(graph: Graph, id: str, top: bool = True) -> str:
    """The expression of a value, as a spec would write it."""
    return _text(graph, graph[id], top)[0]


def _text(graph: Graph, node: Value, top: bool) -> tuple[str, int]:
    name = getattr(node, "name", "")
    if name and not top:
        return name, TIGHTEST
    match node:
        case Input():
            return node.name, TIGHTEST
        case Number():
            return number(node.value), TIGHTEST if node.value >= 0 else 3
        case Read():
            usual = node.when is graph[node.memory].read or graph[node.memory].form.kind == "attention"
            when = "" if usual else f", read={node.when.value}"
            return f"{graph[node.memory].name}({spec_text(graph, node.query, False)}{when})", TIGHTEST
        case Op(op="item" | "fold" | "unfold"):
            return _text(graph, graph[node.inputs[0]], False)
        case Op(op="neg"):
            text, precedence = _text(graph, graph[node.inputs[0]], False)
            return "-" + parenthesised(text, precedence, 3), 3
        case Op(op="slice"):
            text, precedence = _text(graph, graph[node.inputs[0]], False)
            return f"{parenthesised(text, precedence, TIGHTEST)}[{bounds(dict(node.options))}]", TIGHTEST
        case Op() if node.op in INFIX:
            symbol, strength = INFIX[node.op]
            left, right = (_text(graph, graph[i], False) for i in node.inputs)
            return f"{parenthesised(*left, strength)} {symbol} {parenthesised(*right, strength + 1)}", strength
        case Op():
            inputs = [spec_text(graph, i, False) for i in node.inputs]
            return f"{node.op}({', '.join(inputs + _options(graph, node))})", TIGHTEST


def _options(graph: Graph, node: Op) -> list[str]:
    """Static arguments worth repeating; a `linear` says its width only where it differs from its input's."""
    options = dict(node.options)
    if node.op == "linear":
        weight: Weight = graph[node.weights[0]]
        out, inner = (weight.shape or (0, 0))[-2:]
        return [f"out={out}"] * (out != inner) + ["bias=true"] * bool(options.get("bias"))
    if node.op in ("conv", "index", "eye", "poly", "dropout"):
        return [str(value) for value in options.values() if not isinstance(value, str)]
    if node.op == "param":
        return ["[" + ", ".join(map(str, options["shape"])) + "]"]
    return []


def bounds(options: dict[str, object]) -> str:
    start, stop = options.get("start"), options.get("stop")
    if options.get("single"):
        return str(start)
    return f"{'' if start is None else start}:{'' if stop is None else stop}"
