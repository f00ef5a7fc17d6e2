"""Views -> text: render every template, in a fixed order; the lock file last.

package(graph, resolved, options) -> {"model.py": text, "train.py": text, "spec.lock.yaml": text, "graph.json": text}
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("codegen"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, view: Any) -> str:
    """A view printed by its template; blank lines as a formatter leaves them."""
    values = {f.name: getattr(view, f.name) for f in fields(view)}
    text = environment().get_template(template).render(values)
    return tidy(text)


def tidy(text: str) -> str:
    """No trailing spaces, at most two blank lines, one newline at the end."""
    out: list[str] = []
    for line in text.split("\n"):
        line = line.rstrip()
        if line or out[-2:] != ["", ""]:
            out.append(line)
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n"
