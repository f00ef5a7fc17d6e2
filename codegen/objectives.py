"""Objectives written as expressions: the generated function of their slope at p = M(k), which a write descends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from codegen.expressions import Scope
from codegen.layout import fit
from codegen.names import function_name, local
from nlc import equations as eq
from nlc.diagnostics import CompilerBug, Reporter
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Input, Memory, Number, Op, Shape
from nlc.graph.static import option
from nlc.operators import BY_SYMBOL, OPERATORS, REQUIRED


def slope_name(memory: Memory) -> str:
    return function_name(f"{memory.id}_slope")


def slopes(graph: Graph) -> list[str]:
    """One function a memory whose objective is an expression."""
    lines: list[str] = []
    for memory in graph.of(Memory):
        if memory.objective.tree is not None:
            lines += [""] * (not lines) + _slope(graph, memory)  # a formatter's two blank lines before a function
    return lines


def _slope(graph: Graph, memory: Memory) -> list[str]:
    given = [local(p.name) for p in memory.objective.params if p.value]
    text = Expression(graph, memory).text()
    return [
        f"def {slope_name(memory)}({', '.join(['M', 'k', 'v', *given])}):",
        f'    """d/dM of {eq.to_text(memory.objective.tree)}."""',
        *fit(f"return torch.func.grad(lambda M: ({text}).sum())(M)", 1),
        "",
        "",
    ]


class _Slope(Scope):
    """Values of an objective, of which the slope is taken by torch.func."""

    def _call(self, function: str, *arguments: str) -> str:
        return super()._call("exact_l2norm" if function == "l2norm" else function, *arguments)


class Expression:
    """The expression as values of a graph of its own, so that it is written as a block's equations are.

    M and v are as wide as what the memory gives, k as what it takes; a parameter has at least the memory's heads.
    """

    def __init__(self, graph: Graph, memory: Memory) -> None:
        self.graph, self.memory = graph, memory
        self.nodes: dict[str, AnyNode] = {}
        self.named: dict[str, str] = {}
        shapes = {"M": memory.outer, "v": memory.outer, "k": memory.inner}
        for name, width in shapes.items():
            self.input(name, (*memory.heads, width))
        for param in memory.objective.params:
            if param.value is None:
                self.named[param.name] = self.add(Number(**self.place(), value=float(param.number)))
            else:
                own = graph[param.value].shape or ()
                self.input(param.name, own if len(own) > len(memory.heads) else memory.heads)

    def text(self) -> str:
        root = self.value(self.memory.objective.tree)
        scope = _Slope(replace(self.graph, nodes=self.nodes), like="M")
        scope.names |= {id: local(name) for name, id in self.named.items() if isinstance(self.nodes[id], Input)}
        return scope.text(root)

    def place(self) -> dict[str, Any]:
        return {"id": str(len(self.nodes)), "at": self.memory.at, "block": self.memory.block}

    def add(self, node: AnyNode) -> str:
        self.nodes[node.id] = node
        return node.id

    def input(self, name: str, shape: Shape) -> None:
        self.named[name] = self.add(Input(**self.place(), name=name, shape=shape))

    def value(self, tree: eq.Expr) -> str:
        match tree:
            case eq.Name(id=name):
                return self.named[name]
            case eq.Number(value=value):
                return self.add(Number(**self.place(), value=float(value)))
            case eq.Unary(value=inner):
                return self.op("neg", [self.value(inner)], {})
            case eq.Binary(op=op, left=left, right=right) | eq.Compare(op=op, left=left, right=right):
                return self.op(BY_SYMBOL[op], [self.value(left), self.value(right)], {})
            case eq.Call(func=func, args=args, kwargs=kwargs):
                most = OPERATORS[func].operands[1]
                count = len(args) if most is None else most
                return self.op(
                    func, [self.value(a) for a in args[:count]], self.options(func, args[count:], dict(kwargs))
                )
        raise CompilerBug(f"codegen: the objective of '{self.memory.id}' holds {tree!r}")

    def options(self, func: str, positional: Sequence[eq.Expr], named: dict[str, eq.Expr]) -> dict[str, Any]:
        declared, report = OPERATORS[func].options, Reporter()
        given = {**dict(zip((o.name for o in declared), positional, strict=False)), **named}
        found = {o.name: self.graph.sizes.get(str(o.default), o.default) for o in declared if o.default is not REQUIRED}
        sizes = {p.name: p.number for p in self.memory.objective.params if isinstance(p.number, int)}
        return found | {o.name: option(o.kind, given[o.name], sizes, report, func) for o in declared if o.name in given}

    def op(self, name: str, inputs: list[str], options: dict[str, Any]) -> str:
        shape = OPERATORS[name].shape(tuple(getattr(self.nodes[i], "shape", ()) for i in inputs), options)
        return self.add(
            Op(**self.place(), op=name, inputs=tuple(inputs), options=tuple(sorted(options.items())), shape=shape)
        )
