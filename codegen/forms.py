"""The map a memory is, as the runtime's form."""

from __future__ import annotations

from codegen.written_forms import written_text
from nlc.graph.graph import Graph
from nlc.graph.nodes import Form, Memory


def form_text(memory: Memory, graph: Graph) -> str:
    """The runtime's form of a memory, or that of the spec's own equations."""
    if memory.form.kind == "equations":
        return written_text(graph, memory)
    return plain_form(memory.form, memory.normalise_hidden)


def plain_form(form: Form, normalise_hidden: bool = False) -> str:
    """The runtime's form: `Mlp(act="tanh")`."""
    match form.kind:
        case "matrix":
            return "Matrix()"
        case "vector":
            return "Vector()"
        case "mlp":
            options = {
                "act": form.act,
                "residual": form.residual,
                "norm": form.norm,
                "bias": form.bias,
                "depth": form.depth,
            }
            given = {"act": "gelu", "residual": True, "norm": "none", "bias": False, "depth": 2}
        case "swiglu":
            options = {"residual": form.residual, "norm": form.norm, "bias": form.bias}
            given = {"residual": True, "norm": "none", "bias": False}
        case _:
            raise KeyError(form.kind)
    options["normalise_hidden"], given["normalise_hidden"] = normalise_hidden, False
    said = [f'{n}="{v}"' if isinstance(v, str) else f"{n}={v}" for n, v in options.items() if v != given[n]]
    return f"{form.kind.capitalize()}({', '.join(said)})"
