"""Memories of a rule: the constants above its function."""

from __future__ import annotations

from codegen.forms import plain_form
from codegen.layout import fit
from codegen.names import class_constant
from nlc.graph.nodes import RuleMemory
from nlc.graph.remembered import memory_of


def constant(function: str, memory: RuleMemory) -> str:
    """DEEP_MOMENTUM_M"""
    return class_constant(f"{function}_{memory.name}")


def remembered(function: str, memory: RuleMemory) -> list[str]:
    """DEEP_MOMENTUM_M = Remembered("m", Mlp(act="tanh", residual=False), inner=(1, 0), outer=(1, 0))"""
    form, node = memory.form, memory_of(memory, 1, 1)
    options = [f"inner={memory.inner}", f"outer={memory.outer}"]
    options += [f"hidden={form.hidden or form.times!r}"] * (form.kind != "matrix")
    options += [f'objective="{memory.objective}"'] * (memory.objective != "l2")
    options += ["identity=False"] * (memory.start != "identity")
    text = ", ".join([f'"{memory.name}"', plain_form(node.form), *options])
    return fit(f"{constant(function, memory)} = Remembered({text})")


def form_class(memory: RuleMemory) -> str:
    return memory.form.kind.capitalize()
