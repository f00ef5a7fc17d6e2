"""Forms that a spec writes as equations: the generated function of each, and how a memory's constant gets its weights.

    def ttt_form(layer, x, y_layernorm, y_layernorm_bias):
        \"""y = x + layernorm(W @ x + b)\"""
        b = layer("b")
        return x + layernorm(layer("W", x) + b, y_layernorm, y_layernorm_bias)

It is written for values of all tokens, as a block's equations are (runtime.ops.equations).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.equations import spec_text
from codegen.expressions import Scope, attribute
from codegen.layout import docstring_text, fit, wrapped
from codegen.names import class_constant, local
from nlc.graph.graph import Graph
from nlc.graph.nodes import AnyNode, Input, Memory, Op
from nlc.graph.written_forms import matrices, vectors

if TYPE_CHECKING:
    from codegen.block import Emitter


def functions(graph: Graph) -> list[str]:
    """The function of every such form; memories that mean the same by a name share it."""
    lines: list[str] = []
    seen: set[str] = set()
    for memory in _written(graph):
        name = function_of(graph, memory)
        if name not in seen:
            seen.add(name)
            lines += [""] * (not lines) + [f"def {name}{_rest(graph, memory)[0]}", *_rest(graph, memory)[1:], "", ""]
    return lines


def function_of(graph: Graph, memory: Memory) -> str:
    """`ttt_form`, with a number where another memory means something else by `ttt`."""
    texts: list[list[str]] = []
    for other in _written(graph):
        if other.form.name == memory.form.name and (text := _rest(graph, other)) not in texts:
            texts.append(text)
    place = texts.index(_rest(graph, memory))
    return f"{memory.form.name}_form" + (str(place + 1) if place else "")


def written_text(graph: Graph, memory: Memory) -> str:
    """`Equations(ttt_form, vectors=("b",), matrices=("W",))`, the matrices in the order they are applied."""
    form = memory.form
    applied = [
        n.inputs[0] for n in form.body if isinstance(n, Op) and n.op == "matmul" and n.inputs[0] in matrices(form)
    ]
    options = [function_of(graph, memory)]
    options += [
        f"{kind}={_words(names)}" for kind, names in (("vectors", vectors(form)), ("matrices", applied)) if names
    ]
    return f"Equations({', '.join(options + ['headless=True'] * (not memory.heads))})"


def constant_of(emitter: Emitter, memory: Memory) -> str:
    """The memory's constant; where its form's equations use weights, a variable of the same name that has them:

    m_memory = M_MEMORY.given(y_layernorm=self.m.memory.form.y.layernorm)
    """
    constant, given = class_constant(memory.id), _arguments(emitter.graph, memory)
    if not given:
        return constant
    if memory.id not in emitter.given:
        text = next(t for n in ("", *range(2, 100)) if (t := f"{local(constant.lower())}{n}") not in emitter.owner)
        weights = ", ".join(f"{name}={attribute(emitter.graph[id].path)}" for id, name in given.items())
        emitter.say(f"{text} = {constant}.given({weights})")
        emitter.given[memory.id] = text
        emitter.keep(text)
    return emitter.given[memory.id]


def _written(graph: Graph) -> list[Memory]:
    return [m for m in graph.of(Memory) if m.form.kind == "equations"]


def _words(names: list[str] | tuple[str, ...]) -> str:
    return f"({', '.join(repr(n) for n in names)}{',' if len(names) == 1 else ''})".replace("'", '"')


def _arguments(graph: Graph, memory: Memory) -> dict[str, str]:
    """Id of each weight of the equations -> its name in the function: y.layernorm_bias is y_layernorm_bias."""
    paths = {id: graph[id].path.rpartition(".form.")[2].replace(".", "_") for id in memory.form_weights}
    return {id: local(name) for id, name in paths.items()}


def _rest(graph: Graph, memory: Memory) -> list[str]:
    """The function from its arguments on."""
    form = memory.form
    entering = {"x": (*memory.heads, memory.inner), **dict(memory.parts)}
    given = [Input(id=n, at=memory.at, block="form", name=n, shape=shape) for n, shape in entering.items()]
    nodes: dict[str, AnyNode] = {n.id: n for n in (*given, *form.body)} | {w: graph[w] for w in memory.form_weights}
    small = replace(graph, nodes=nodes)
    arguments = _arguments(graph, memory)
    by_path = {graph[id].path: name for id, name in arguments.items()}
    scope = _FormScope(small, names={"x": "x"}, weight=by_path.__getitem__, like="x", layers=matrices(form))
    taken = {"layer", "x", *arguments.values()}
    lines = []
    for name in vectors(form):
        scope.names[name] = _variable(name, taken)
        lines.append(f'{scope.names[name]} = layer("{name}")')
    body = [node for node in form.body if isinstance(node, Op) and node.name]
    for node in body:
        text = scope.text(node.id)
        scope.names[node.id] = _variable(node.name, taken)
        lines.append(f"return {text}" if node.id == form.result else f"{scope.names[node.id]} = {text}")
        if node.id == form.result:
            break
    if not lines[-1].startswith("return"):
        lines.append(f"return {scope.text(form.result)}")
    if re.search(r"\b[BT]\b", "\n".join(lines)):
        lines.insert(0, "B, T = x.shape[:2]")
    head = f"({', '.join(['layer', 'x', *arguments.values()])}):"
    doc = _docstring([f"{n.name} = {spec_text(small, n.id)}" for n in body])
    return [head, *doc, *(piece for line in lines for piece in fit(line, 1))]


def _docstring(equations: list[str]) -> list[str]:
    lines = [docstring_text(line) for e in equations for line in wrapped(e, 112)]
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return ['    """', *(f"    {line}" for line in lines), '    """']


def _variable(name: str, taken: set[str]) -> str:
    """A Python name that nothing before has."""
    text = next(t for n in ("", *range(2, 1000)) if (t := local(f"{name}{n}")) not in taken)
    taken.add(text)
    return text


class _FormScope(Scope):
    """Values of a form's equations: a matrix of the state is a layer that is called."""

    def __init__(self, graph: Graph, *, layers: tuple[str, ...], **options: object) -> None:
        super().__init__(graph, **options)  # type: ignore[arg-type]
        self.layers = layers

    def _infix(self, node: Op) -> tuple[str, int]:
        if node.op == "matmul" and node.inputs[0] in self.layers:
            a = node.inputs[1]
            return f'layer("{node.inputs[0]}", {self.spread(a) if self.tokenless(a) else self.text(a)})', 9
        return super()._infix(node)

    def _call(self, function: str, *arguments: str) -> str:
        """Errors of the form are derivatives, so its layernorm must have one more that is right."""
        return super()._call("exact_layernorm" if function == "layernorm" else function, *arguments)
